"""Kubernetes events about pods: what `kubectl describe pod` and `kubectl get events` show.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from zlib import crc32

from podidentity.core.resources import Pod

COMPONENT = "podidentity-nmi"
LONGEST_NOTE = 1024
"""Characters of a message that an API server accepts."""


AGAIN = 300.0
"""Seconds between two writes of an agent's warning while it lasts: one that is older than twice
that is over."""


class AgentReason(StrEnum):
    """What an event on a pod of NMI itself is about: a lasting warning of its node or of itself."""

    SOURCES_UNGUARDED = "SourcesUnguarded"
    """A pod of the node can speak with another's address."""
    TOO_MANY_RIGHTS = "TooManyRights"
    """`serve` is root, or has a capability."""
    AUDIT_NOT_WRITTEN = "AuditNotWritten"
    PATH_UNPROVED = "PathUnproved"
    """Nothing proves that pods' requests arrive at NMI."""
    NODE_LACKS = "NodeLacks"
    """Something of the kernel, or of the node, that NMI does without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodWarning:
    """A warning about a pod, with the number of its repetitions."""

    pod: Pod
    reason: str
    note: str
    first: float
    """Seconds since 1970, as `last`."""
    last: float
    count: int


def event_name(warning: PodWarning) -> str:
    """Return the name of the event: it begins with the pod's name, and is unique."""
    mark = crc32(f"{warning.pod.uid}/{warning.reason}".encode())
    return f"{warning.pod.ref.name[:220]}.{int(warning.first * 1e6):x}{mark:08x}"


def render_event(warning: PodWarning, node: str) -> Mapping[str, Any]:
    """Return the body of a new event."""
    pod = warning.pod
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": event_name(warning), "namespace": pod.ref.namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.ref.namespace,
            "name": pod.ref.name,
            "uid": pod.uid,
        },
        "type": "Warning",
        "reason": warning.reason,
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": _time(warning.first),
        **render_repetition(warning),
    }


def render_repetition(warning: PodWarning) -> Mapping[str, Any]:
    """Return the fields of an event that change with each repetition."""
    return {
        "count": warning.count,
        "lastTimestamp": _time(warning.last),
        "message": warning.note[:LONGEST_NOTE],
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
