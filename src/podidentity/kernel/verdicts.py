"""From what the kernel said of a connection to a verdict: the rule, without the kernel.

Among the namespaces that hold the claimed address, one has this socket, and its cgroup belongs to
a pod whose status has the address. So a pod that takes a foreign address proves only itself, and
cannot lock the owner out. Where pods have no cgroups of their own, the namespace alone is the
proof, and then exactly one may hold the address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podidentity.core.ports import Proof, Verdict
from podidentity.core.resources import Pod
from podidentity.kernel.diag import TcpSocket


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one namespace that holds the claimed address says."""

    network: str
    """Name of the namespace."""
    socket: TcpSocket | None = None
    """The connection's socket there, open or closed."""
    pod: str | None = None
    """Whose cgroup the open socket has (`cgroups.pod_of`); None where pods have no cgroups."""
    failure: str = ""
    """Why this namespace, or the cgroup, could not be asked."""


def judge(sightings: Sequence[Sighting], candidates: Sequence[Pod]) -> Proof | None:
    """Return the verdict; None where no namespace knows of the connection."""
    live = [each for each in sightings if each.socket is not None and each.socket.is_open]
    for each in live:
        if each.pod is not None:
            owner = _owner(each.pod, candidates)
            if owner is not None:
                return Proof(verdict=Verdict.PROVEN, pod_uid=owner.uid, detail=each.network)
    failures = [each.failure for each in sightings if each.failure]
    if failures:
        return Proof(verdict=Verdict.UNKNOWN, detail=failures[0])
    if live:
        return _not_by_cgroup(sightings, live[0], candidates)
    closed = [each for each in sightings if each.socket and each.socket.is_of_connection]
    if closed:
        return Proof(verdict=Verdict.GONE, detail=f"closed by the client in {closed[0].network}")
    return None


def _not_by_cgroup(
    sightings: Sequence[Sighting], live: Sighting, candidates: Sequence[Pod]
) -> Proof:
    """Judge an open socket that no candidate's cgroup owns."""
    if live.pod is not None:
        whose = f"pod {live.pod}" if live.pod else "no pod"
        detail = f"the socket in {live.network} belongs to {whose}"
        if not candidates:
            # The kernel knows the pod before the API server has told of its address.
            return Proof(verdict=Verdict.UNKNOWN, pod_uid=live.pod, detail=detail)
        return Proof(verdict=Verdict.FORGED, pod_uid=live.pod, detail=detail)
    if len(sightings) > 1:
        names = ", ".join(sorted(each.network for each in sightings))
        detail = f"{names} hold the address, and pods have no cgroups to tell them apart"
        return Proof(verdict=Verdict.FORGED, detail=detail)
    if len(candidates) != 1:
        detail = f"{len(candidates)} pods have the address in their status"
        return Proof(verdict=Verdict.UNKNOWN, detail=detail)
    return Proof(verdict=Verdict.PROVEN, detail=f"{live.network}, by namespace alone")


def _owner(cgroup_pod: str, candidates: Sequence[Pod]) -> Pod | None:
    """Return the candidate whose cgroup it is; "" (no pod's cgroup) is nobody's."""
    if not cgroup_pod:
        return None
    for pod in candidates:
        # A static pod's cgroup is named by the hash of its configuration.
        if cgroup_pod in {pod.uid, pod.config_hash}:
            return pod
    return None
