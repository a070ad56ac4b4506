"""From facts about a connection to a verdict on it: the rule, without the kernel.

An address is a claim; the socket is the proof. `net` states facts and knows no pods; `serve` judges
them against the pods that have the address. Among the namespaces that hold the claimed address, one
has the client's socket, and its cgroup is named by the uid of a pod whose status has the address.
So a pod that takes a foreign address proves only itself, and cannot lock the owner out.

Where pods have no cgroups of their own (`--attestation=namespace`), the namespace alone is the
proof, and then exactly one may hold the address.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from podidentity.core.resources import Pod


class AttestationMode(StrEnum):
    """What proves a caller; the values of `--attestation`."""

    KERNEL = "kernel"
    """The client's socket, and the pod in the name of its cgroup."""
    NAMESPACE = "namespace"
    """The client's socket, in the only network namespace that holds the address."""
    ADDRESS = "address"
    """Nothing: the source address is believed."""

    @property
    def weakness(self) -> str:
        """What it gives up beside `KERNEL` and, after a semicolon, what to do; "" for that one."""
        return _WEAKNESSES.get(self, "")


_WEAKNESSES = {
    AttestationMode.NAMESPACE: "a pod that takes another's address has both refused; "
    "nodes with cgroup v2 can have --attestation=kernel",
    AttestationMode.ADDRESS: "any pod can take another's tokens by its address; choose "
    "--attestation=kernel, or namespace for nodes with cgroup v1 only",
}


class SocketState(StrEnum):
    """What a namespace has of a connection."""

    NONE = "none"
    OPEN = "open"
    """A process holds the socket and can still read an answer."""
    CLOSED = "closed"
    """The client has closed it, or its pod has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one namespace that holds the claimed address has of the connection."""

    network: str
    """Name of the namespace, for people."""
    state: SocketState = SocketState.NONE
    pod: str | None = None
    """Uid, or config hash of a static pod, in the name of the open socket's cgroup.

    "" for a process of no pod; None where cgroups are not asked.
    """
    user: int = -1
    """Uid of the process that made the socket, in this user namespace; -1 if there is none."""
    doubt: str = ""
    """Why the open socket cannot be this connection's, though it has the same two ends."""
    failure: str = ""
    """Why the namespace, or the cgroup, could not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFacts:
    """What the kernel says of one accepted connection, at one moment."""

    accepted: bool
    """Whether our own end of the connection still exists."""
    sightings: tuple[Sighting, ...] = ()
    """One for each namespace that holds the client's address."""
    failure: str = ""
    """Why a namespace, or our own end, could not be looked for; "" if all could be."""


class Verdict(StrEnum):
    """What the facts say of a connection."""

    PROVEN = "proven"
    FORGED = "forged"
    """No socket of the claimed pod has this connection."""
    GONE = "gone"
    """The client has closed the connection already."""
    UNKNOWN = "unknown"
    """The kernel could not be asked for a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The verdict on one accepted connection."""

    verdict: Verdict
    pod_uid: str = ""
    """The pod that owns the socket's cgroup, claimed or not; "" where cgroups are not asked."""
    root: bool = False
    """Whether root made the socket; set for local connections only."""
    unseen: bool = False
    """Whether the connection is not proven only because no namespace has a socket of it: that of a
    pod behind a kernel or a NAT of its own is nowhere to be seen."""
    detail: str = ""
    """For the log: the namespace, the cgroup, or the reason of a failure."""


_NOWHERE = (
    "no network namespace has the pod's address: somebody has taken it out of the folder of "
    "namespaces (delete the pod, so that it starts again), or the pod has just ended"
)
_NO_CGROUPS = "cgroups are not asked: both programs need the same --attestation"


def judge(facts: ConnectionFacts, candidates: Sequence[Pod], mode: AttestationMode) -> Proof:
    """Return the verdict on a pod's connection; `candidates` have its address in their status."""
    if not facts.accepted:
        return _not_accepted(facts)
    opened = [each for each in facts.sightings if each.state is SocketState.OPEN]
    if mode is AttestationMode.NAMESPACE:
        return _by_namespace(facts, opened, candidates)
    sound = [each for each in opened if each.pod is not None and not each.doubt]
    owners = _owners({each.pod for each in sound if each.pod}, candidates)
    if len(owners) == 1:
        (uid, cgroup) = next(iter(owners.items()))
        network = next(each.network for each in sound if each.pod == cgroup)
        return Proof(verdict=Verdict.PROVEN, pod_uid=uid, detail=network)
    failures = [each.failure for each in facts.sightings if each.failure]
    failures += [_NO_CGROUPS for each in opened if each.pod is None]
    if failures:
        return Proof(verdict=Verdict.UNKNOWN, detail=failures[0])
    if sound:
        return _another(sound, bool(candidates))
    if opened:
        return _doubted(opened[0])
    return _not_found(facts, known=bool(candidates))


def judge_local(facts: ConnectionFacts, mode: AttestationMode) -> Proof:
    """Return the verdict on a connection from the node's own namespace: whose, not whether."""
    if not facts.accepted:
        return _not_accepted(facts)
    for found in facts.sightings:
        if found.failure:
            return Proof(verdict=Verdict.UNKNOWN, detail=found.failure)
        if found.doubt:
            return _doubted(found)
        if found.state is SocketState.OPEN and found.pod is None and mode is AttestationMode.KERNEL:
            return Proof(verdict=Verdict.UNKNOWN, detail=_NO_CGROUPS)
        if found.state is SocketState.OPEN:
            pod = found.pod or ""
            detail = f"pod {pod}" if pod else f"a process of user {found.user}"
            root = found.user == 0
            return Proof(verdict=Verdict.PROVEN, pod_uid=pod, root=root, detail=detail)
    return _not_found(facts)


def _owners(cgroups: Collection[str], candidates: Sequence[Pod]) -> dict[str, str]:
    """Return the uids of the candidates that own these cgroups, each with its cgroup's name.

    A uid decides before any config hash: the uid is the API server's, the hash is an annotation.
    """
    by_uid = {pod.uid: pod.uid for pod in candidates if pod.uid in cgroups}
    return by_uid or {pod.uid: pod.config_hash for pod in candidates if pod.config_hash in cgroups}


def _another(sound: Sequence[Sighting], known: bool) -> Proof:
    """Judge open sockets that belong to no candidate, or to several.

    A pod is named if it alone has one: then it may be new, and its address not known yet.
    """
    pods = {each.pod or "" for each in sound}
    whose = [(each.network, f"pod {each.pod}" if each.pod else "no pod") for each in sound]
    # Without candidates: the kernel knows a pod before the API server has told of its address.
    return Proof(
        verdict=Verdict.FORGED if known else Verdict.UNKNOWN,
        pod_uid=pods.pop() if len(pods) == 1 else "",
        detail=", ".join(f"the socket in {network} belongs to {pod}" for network, pod in whose),
    )


def _by_namespace(
    facts: ConnectionFacts, opened: Sequence[Sighting], candidates: Sequence[Pod]
) -> Proof:
    """Judge by the only namespace with the address, for nodes without cgroups of pods."""
    failures = [facts.failure, *(each.failure for each in facts.sightings)]
    if any(failures):
        return Proof(verdict=Verdict.UNKNOWN, detail=next(filter(None, failures)))
    if not opened:
        return _not_found(facts, known=bool(candidates))
    if len(facts.sightings) > 1:
        names = ", ".join(sorted(each.network for each in facts.sightings))
        detail = f"{names} hold the address, and pods have no cgroups to tell them apart"
        return Proof(verdict=Verdict.FORGED, detail=detail)
    found = opened[0]
    if found.doubt:
        return _doubted(found)
    if len(candidates) != 1:
        detail = f"{len(candidates)} pods have the address in their status"
        return Proof(verdict=Verdict.UNKNOWN, detail=detail)
    return Proof(verdict=Verdict.PROVEN, detail=f"{found.network}, by namespace alone")


def _doubted(found: Sighting) -> Proof:
    # No pod is named: the socket is an old one, and its owner has not asked.
    detail = f"the socket in {found.network} is of another connection: {found.doubt}"
    return Proof(verdict=Verdict.FORGED, detail=detail)


def _not_accepted(facts: ConnectionFacts) -> Proof:
    if facts.failure:
        return Proof(verdict=Verdict.UNKNOWN, detail=facts.failure)
    # An honest client that resets leaves as little behind as an attacker: no alarm.
    return Proof(verdict=Verdict.GONE, detail="reset by the client")


def _not_found(facts: ConnectionFacts, *, known: bool = False) -> Proof:
    """Judge a connection whose client end is open nowhere; `known`: a pod's status has the address.

    Then some namespace should have it, too. Where none does there is nobody to ask: the pod may
    have forged nothing.
    """
    for each in facts.sightings:
        if each.state is SocketState.CLOSED:
            detail = f"closed by the client in {each.network}"
            return Proof(verdict=Verdict.GONE, detail=detail)
    if facts.failure:
        return Proof(verdict=Verdict.UNKNOWN, detail=facts.failure)
    if known and not facts.sightings:
        return Proof(verdict=Verdict.UNKNOWN, unseen=True, detail=_NOWHERE)
    names = ", ".join(sorted(each.network for each in facts.sightings))
    where = f"in {names}" if names else "in any pod: no network namespace has the address"
    detail = f"no socket of this connection {where}"
    return Proof(verdict=Verdict.FORGED, unseen=True, detail=detail)
