"""Kubernetes events about pods and nodes: what `kubectl describe` and `kubectl get events` show.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple
from zlib import crc32

from podidentity.core.resources import ObjectRef, Pod

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
    PATH_BROKEN = "PathBroken"
    """A request from the probe pod did not arrive at NMI."""
    PATH_UNPROVED = "PathUnproved"
    """Nothing proves that pods' requests arrive at NMI."""
    NODE_LACKS = "NodeLacks"
    """Something of the kernel, or of the node, that NMI does without."""
    STARTUP_TAINT = "StartupTaint"
    """NMI may not take the taint off with which its node started."""
    STALE_STATE = "StaleState"
    """NMI cannot follow the cluster, and decides on what it knew before."""
    TOKENS_FAIL = "TokensFail"
    """Pods that are entitled get no token: IMDS or Entra is away, throttles or refuses."""
    BACKEND = "Backend"
    """What leads pods' requests to NMI on its node: no warning, and told all the same."""
    BOOT_CLOSED = "BootClosed"
    """What closes IMDS to the node's pods while no NMI runs: no warning, and told all the same."""

    @property
    def is_warning(self) -> bool:
        """Whether it is about something that is not as it should be."""
        return self not in {AgentReason.BACKEND, AgentReason.BOOT_CLOSED}


OVER = "It is over."
"""Text of an agent's warning that has ended."""
COMPONENT_OF_MIC = "podidentity-mic"
AGAIN_OF_MIC = 60.0
"""As `AGAIN`, of MIC's: Azure is soon well again."""


class MicReason(StrEnum):
    """What an event on MIC's own pod is about: what keeps MIC from its work in Azure."""

    AZURE_THROTTLES = "AzureThrottles"
    """Azure refuses requests to a subscription for a while: `Retry-After`."""
    AZURE_SILENT = "AzureDoesNotAnswer"
    """Requests to a subscription have no answer, one after the other."""
    HOSTS_NOT_CHANGED = "HostsNotChanged"
    """Machines may not be read or changed, or each change of them fails."""


PATH_PROVED = "PathProved"
"""Reason of the event that ends `PATH_BROKEN`."""


class ProbeReason(StrEnum):
    """What an event that answers `podidentity explain` says."""

    ARRIVED = "ProbeArrived"
    LOST = "ProbeLost"
    NOT_SENT = "ProbeNotSent"


class NodeName(NamedTuple):
    """A node as what an event is about."""

    name: str


class CustomResource(NamedTuple):
    """An object of one of our kinds as what an event is about."""

    api_version: str
    kind: str
    ref: ObjectRef
    uid: str


About = Pod | NodeName | CustomResource


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that happened to an object, with the number of its repetitions."""

    about: About
    reason: str
    type: Literal["Warning", "Normal"] = "Warning"
    note: str
    first: float
    """Seconds since 1970, as `last`."""
    last: float
    count: int

    @property
    def namespace(self) -> str:
        """Where its event is: the pod's, and of a node `default`."""
        return "default" if isinstance(self.about, NodeName) else self.about.ref.namespace

    @property
    def name(self) -> str:
        """The name of its event: it begins with the name of what it is about, and is unique."""
        mark = crc32(f"{uid_of(self.about)}/{self.reason}".encode())
        name = self.about.name if isinstance(self.about, NodeName) else self.about.ref.name
        return f"{name[:220]}.{int(self.first * 1e6):x}{mark:08x}"


def uid_of(about: About) -> str:
    """Return by what `kubectl describe` finds events; of a node that is its name."""
    return about.name if isinstance(about, NodeName) else about.uid


def render_event(happening: Happening, node: str, component: str = COMPONENT) -> Mapping[str, Any]:
    """Return the body of a new event; `component` tells it, on that node or of that instance."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": happening.name, "namespace": happening.namespace},
        "involvedObject": {**_named(happening.about), "uid": uid_of(happening.about)},
        "type": happening.type,
        "reason": happening.reason,
        "source": {"component": component, "host": node},
        "reportingComponent": component,
        "reportingInstance": node,
        "firstTimestamp": stamp(happening.first),
        **render_repetition(happening),
    }


def probe_answer_name(number: str) -> str:
    """Return the name of the event that answers the question of this number."""
    return f"podidentity-probe.{number}"


def render_probe_answer(number: str, happening: Happening, node: str) -> Mapping[str, Any]:
    """Return the body of the event that answers the question of this number."""
    name = {"name": probe_answer_name(number), "namespace": happening.namespace}
    return {**render_event(happening, node), "metadata": name}


def _named(about: About) -> Mapping[str, str]:
    if isinstance(about, NodeName):
        return {"apiVersion": "v1", "kind": "Node", "name": about.name}
    place = {"namespace": about.ref.namespace, "name": about.ref.name}
    if isinstance(about, Pod):
        return {"apiVersion": "v1", "kind": "Pod", **place}
    return {"apiVersion": about.api_version, "kind": about.kind, **place}


def render_repetition(happening: Happening) -> Mapping[str, Any]:
    """Return the fields of an event that change with each repetition."""
    return {
        "count": happening.count,
        "lastTimestamp": stamp(happening.last),
        "message": happening.note[:LONGEST_NOTE],
    }


def stamp(seconds: float) -> str:
    """Return a time, in seconds since 1970, as the API server writes times."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
