"""The record of who leads: in a Lease, and as the archived controller kept it, in an annotation.

Both hold the same words. A candidate takes the record over when it has seen it unchanged for the
duration that it names, by its own clock; the times in it are for people only, because two machines'
clocks differ.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/ and
https://github.com/kubernetes/client-go/blob/master/tools/leaderelection/resourcelock/interface.go
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from podidentity.wire import BROKEN_JSON

OLD_LOCK = "control-plane.alpha.kubernetes.io/leader"
"""Annotation of Endpoints that holds the archived controller's record."""
_LONGEST_HOLDER = 253
_OTHERS = ("annotations", "finalizers", "labels", "ownerReferences")
_LONGEST_DURATION = 3600
"""Seconds: a record that names more is taken over after so many."""


class NotALock(ValueError):
    """These bytes hold no record of a leader; the message says what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """One version of the record."""

    version: str = ""
    """resourceVersion of the object."""
    holder: str = ""
    """"": nobody's, released or never taken."""
    seconds: int = 0
    """For how long it counts after each change."""
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0
    others: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Metadata that other programs wrote; an update sends it back."""

    @property
    def mark(self) -> tuple[str, str, int]:
        """What changes whenever its holder shows that it lives."""
        return (self.holder, self.renewed, self.transitions)


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct):
    metadata: dict[str, Any]
    spec: _Spec = msgspec.field(default_factory=_Spec)


class _Annotated(msgspec.Struct):
    metadata: _Meta


class _OldRecord(msgspec.Struct, rename="camel"):
    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: str | None = None
    renew_time: str | None = None
    leader_transitions: int = 0


_LEASE = msgspec.json.Decoder(_Lease)
_ANNOTATED = msgspec.json.Decoder(_Annotated)
_OLD_RECORD = msgspec.json.Decoder(_OldRecord)


def parse_lease(body: bytes | msgspec.Raw) -> Lock:
    """Return the record of a Lease; raise NotALock."""
    try:
        found = _LEASE.decode(body)
    except BROKEN_JSON as error:
        raise NotALock(f"the API server sent no Lease: {error}") from error
    spec, meta = found.spec, found.metadata
    return Lock(
        version=str(meta.get("resourceVersion", "")),
        holder=(spec.holder_identity or "")[:_LONGEST_HOLDER],
        seconds=_duration(spec.lease_duration_seconds or 0),
        acquired=spec.acquire_time or "",
        renewed=spec.renew_time or "",
        transitions=spec.lease_transitions or 0,
        others={name: meta[name] for name in _OTHERS if name in meta},
    )


def parse_old_lock(body: bytes) -> Lock:
    """Return the record in the annotation of Endpoints; raise NotALock.

    Endpoints without it hold none: a Lock without a holder.
    """
    try:
        meta = _ANNOTATED.decode(body).metadata
        text = (meta.annotations or {}).get(OLD_LOCK, "")
        found = _OLD_RECORD.decode(text) if text else _OldRecord()
    except BROKEN_JSON as error:
        raise NotALock(f"the annotation {OLD_LOCK} holds no record: {error}") from error
    return Lock(
        version=meta.resource_version,
        holder=found.holder_identity[:_LONGEST_HOLDER],
        seconds=_duration(found.lease_duration_seconds),
        acquired=found.acquire_time or "",
        renewed=found.renew_time or "",
        transitions=found.leader_transitions,
    )


def render_lease(
    namespace: str, name: str, spec: dict[str, Any], before: Lock = Lock()
) -> dict[str, Any]:
    """Return the Lease with this `spec`: a new one, or an update of the version in `before`."""
    version = {"resourceVersion": before.version} if before.version else {}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {**before.others, "namespace": namespace, "name": name, **version},
        "spec": spec,
    }


def taken(before: Lock, holder: str, seconds: int, now: float) -> dict[str, Any]:
    """Return the spec by which `holder` takes the record over, or renews what it holds.

    `now` is in seconds since 1970.
    """
    mine = before.holder == holder
    return {
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": (mine and before.acquired) or _time(now),
        "renewTime": _time(now),
        "leaseTransitions": before.transitions + (not mine),
    }


def released(before: Lock, now: float) -> dict[str, Any]:
    """Return the spec by which its holder gives it up: the next one need not wait."""
    return {
        "holderIdentity": "",
        "leaseDurationSeconds": 1,
        "renewTime": _time(now),
        "leaseTransitions": before.transitions,
    }


def _duration(seconds: int) -> int:
    return max(0, min(seconds, _LONGEST_DURATION))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
