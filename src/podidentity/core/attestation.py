"""From facts about a connection to a verdict on it: the rule, without the kernel.

An address is a claim; the socket is the proof. `net` states facts and knows no pods; `serve` judges
them against the pods that have the address. Among the namespaces that hold the claimed address, one
has the client's socket, and its cgroup is named by the uid of a pod whose status has the address.
So a pod that takes a foreign address proves only itself, and cannot lock the owner out.

Where pods have no cgroups of their own (`--attestation=namespace`), the namespace alone is the
proof, and then exactly one may hold the address.

A proxy of a mesh makes the connection in the pod's place: its socket is in the pod's namespace, and
in the proxy's cgroup. An address does not tell whose that namespace is, because a pod can take that
of another, one that has just ended, or that comes next. What tells it are the namespace's other
clients: the pod itself has a connection to IMDS open there, which the proxy holds. So the verdict
PROXIED names two pods: the socket is the one's, and all other clients of its namespace are the
other's, which has the address in its status.

A pod with a kernel of its own (Kata) has no socket in any namespace: its connections are unseen, as
forged ones are.

Which proxies are trusted, and which pods have a kernel of their own, no pod can say of itself. The
operator does (`Trust`), by service accounts and runtime classes.

Facts and proofs are tuples: each new connection has them made, sent and judged by processes that
have slept, and to make and to send a tuple takes the least code that is not in a cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import ObjectRef, Pod


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


class Sighting(NamedTuple):
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
    clients: tuple[str, ...] | None = None
    """Whose open connections to IMDS the namespace has, each as `pod`; None if nobody asked.

    Pods see the connections that a proxy holds for them; the proxy's own are among these, too.
    """


class ConnectionFacts(NamedTuple):
    """What the kernel says of one accepted connection, at one moment."""

    accepted: bool
    """Whether our own end of the connection still exists."""
    sightings: tuple[Sighting, ...] = ()
    """One for each namespace that holds the client's address, and may send from it."""
    holders: int = 0
    """Number of namespaces that hold the address, whether or not they may send from it.

    This and `guarded` are told with `clients`, and of a connection of which no socket is open.
    """
    guarded: bool = False
    """Whether no pod can send from the address of another."""
    failure: str = ""
    """Why a namespace, or our own end, could not be looked for; "" if all could be."""


class Verdict(StrEnum):
    """What the facts say of a connection."""

    PROVEN = "proven"
    PROXIED = "proxied"
    """Another pod's socket has it, in the claimed pod's own namespace and beside its own client."""
    FORGED = "forged"
    """No socket of the claimed pod has this connection."""
    GONE = "gone"
    """The client has closed the connection already."""
    UNKNOWN = "unknown"
    """The kernel could not be asked for a moment."""


class Proof(NamedTuple):
    """The verdict on one accepted connection."""

    verdict: Verdict
    pod_uid: str = ""
    """The pod that owns the socket's cgroup, claimed or not; "" where cgroups are not asked."""
    root: bool = False
    """Whether root made the socket; set for local connections only."""
    unseen: bool = False
    """Whether the connection is not proven only because no namespace has a socket of it: that of a
    pod behind a kernel or a NAT of its own is nowhere to be seen."""
    proxy: str = ""
    """The pod whose socket it is, if that is in the namespace of `pod_uid`, another pod."""
    holders: int = 0
    """Number of namespaces that hold the address of a connection with a `proxy` or unseen."""
    guarded: bool = False
    """Whether an unseen connection can only come from a namespace that has its address."""
    clients_decide: bool = False
    """Whether the connection is another pod's, and the clients of its namespace, which nobody has
    asked for, would tell whether it is proxied."""
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
    networks = {each.pod: each.network for each in sound if each.pod}
    owners = _owners(networks, candidates)
    if len(owners) == 1:
        [(uid, cgroup)] = owners.items()
        return Proof(verdict=Verdict.PROVEN, pod_uid=uid, detail=networks[cgroup])
    failures = [each.failure for each in facts.sightings if each.failure]
    failures += [_NO_CGROUPS for each in opened if each.pod is None]
    if failures:
        return Proof(verdict=Verdict.UNKNOWN, detail=failures[0])
    if sound:
        return _behind(facts, sound, candidates) or _another(sound, bool(candidates))
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


def _behind(
    facts: ConnectionFacts, sound: Sequence[Sighting], candidates: Sequence[Pod]
) -> Proof | None:
    """Judge a socket of one pod in the namespace of another; None if it is not known to be so.

    The pod of the socket has entered the namespace, which only root of the node can. Whether it is
    to be trusted is not known here.
    """
    found = sound[0]
    if len(sound) > 1 or not found.pod or found.clients is None:
        return None
    others = set(found.clients) - {found.pod}
    if len(others) != 1 or "" in others:
        return None
    if facts.failure:
        return Proof(verdict=Verdict.UNKNOWN, detail=facts.failure)
    [behind] = others
    owners = _owners(others, candidates)
    # As in `_another`: the one behind may be new, and its address not known yet.
    absent = Verdict.FORGED if candidates else Verdict.UNKNOWN
    detail = f"the socket in {found.network} belongs to pod {found.pod}"
    return Proof(
        verdict=Verdict.PROXIED if len(owners) == 1 else absent,
        pod_uid=next(iter(owners)) if len(owners) == 1 else behind,
        proxy=found.pod,
        holders=facts.holders,
        detail=f"{detail}, all others there to pod {behind}",
    )


def _another(sound: Sequence[Sighting], known: bool) -> Proof:
    """Judge open sockets that belong to no candidate, or to several.

    A pod is named if it alone has one: then it may be new, and its address not known yet.
    """
    pods = {each.pod or "" for each in sound}
    whose = [(each.network, f"pod {each.pod}" if each.pod else "no pod") for each in sound]
    # Without candidates: the kernel knows a pod before the API server has told of its address.
    named = pods.pop() if len(pods) == 1 else ""
    return Proof(
        verdict=Verdict.FORGED if known else Verdict.UNKNOWN,
        pod_uid=named,
        clients_decide=bool(named) and all(each.clients is None for each in sound),
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
    nowhere = known and not facts.sightings and not facts.holders
    names = ", ".join(sorted(each.network for each in facts.sightings))
    where = f"in {names}" if names else "in any pod: no network namespace has the address"
    detail = _NOWHERE if nowhere else f"no socket of this connection {where}"
    return Proof(
        verdict=Verdict.UNKNOWN if nowhere else Verdict.FORGED,
        unseen=True,
        holders=facts.holders,
        guarded=facts.guarded,
        detail=detail,
    )


# What the operator trusts in place of a pod's own socket.

_BELIEVED = "address"
"""Value of a pod's attestation annotation that lowers the demand for it: its address is believed
where no namespace has the socket. A socket that the kernel knows is its owner's all the same, since
a pod's status may have the address of another."""


_UNSEEN = (
    "The connection is not proved to be that of the pod whose address it has: no process of the "
    "node has it."
)
"""The text that the client gets, who may be another than the pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What an operator accepts where a pod's own socket cannot be seen."""

    proxies: tuple[ObjectRef, ...] = ()
    """Service accounts of proxies that make connections for the pods of their node."""
    by_class: Mapping[str, AttestationMode] = field(default_factory=dict)
    """What proves pods of a runtime class: NAMESPACE or ADDRESS."""

    def demand(self, pod: Pod) -> AttestationMode:
        """Return what proves an unseen connection of `pod`; KERNEL: nothing does."""
        if pod.attestation == _BELIEVED:
            return AttestationMode.ADDRESS
        if pod.runtime_class:
            return self.by_class.get(pod.runtime_class, AttestationMode.KERNEL)
        return AttestationMode.KERNEL

    def weaknesses(self) -> Iterator[tuple[str, str]]:
        """Yield each way in which the proof is weaker, with a safer setting."""
        for name, mode in self.by_class.items():
            if mode is AttestationMode.ADDRESS:
                yield (
                    f"--attestation-by-runtime-class={name}=address: any pod that the source guard "
                    "does not hold back can take the tokens of pods of that class",
                    f"choose --attestation-by-runtime-class={name}=namespace if its runtime leaves "
                    "the address in the pod's network namespace, as Kata does",
                )

    def refuse_proxy(self, proof: Proof, proxy: Pod) -> Refusal | None:
        """Return the refusal of a PROXIED connection that `proxy` made; None if it is trusted.

        The kernel has named the proxy, and the API server its namespace and service account. So who
        may run pods of that account, as root of a node, is trusted with the pods of that node.
        """
        account = proxy.account
        made_by = f"The connection was made by a proxy {account} in the pod's network namespace"
        if account not in self.proxies or proxy.ended:
            return Refusal(
                reason=Reason.MADE_BY_PROXY,
                message=f"{made_by}.",
                next_step=f"If it is your mesh's, trust it: --trusted-proxies={account}; or "
                "keep the pod out of Istio's ambient mesh: label it istio.io/dataplane-mode=none.",
                about=proxy.ref,
                told="The connection was made by a proxy in the pod's network namespace, which the "
                "operator has not trusted.",
            )
        if proof.holders == 1:
            return None
        return Refusal(
            reason=Reason.ADDRESS_CONTESTED,
            message=f"{made_by}, and {proof.holders} network namespaces hold its address.",
            next_step="Find the pod that has taken the address of the other.",
            about=proxy.ref,
            told="The connection was made by a proxy, and a second pod holds the address.",
        )

    def judge_unseen(self, proof: Proof, pods: Sequence[Pod]) -> Verdict | Refusal | None:
        """Return what an unseen connection is, of which `pods` have the address.

        PROVEN: it is that of the only one. None: the address is believed, and nothing is proved.
        Where nothing is lowered it is what it was.
        """
        demands = {self.demand(pod) for pod in pods}
        if demands == {AttestationMode.ADDRESS}:
            return None
        if len(pods) != 1 or not pods[0].runtime_class:
            return proof.verdict
        pod, mode = pods[0], pods[0].runtime_class
        unseen = f"No process of the node has the connection, and pod {pod.ref} is of runtime class"
        if demands == {AttestationMode.KERNEL}:
            return Refusal(
                reason=Reason.RUNTIME_CLASS,
                message=f"{unseen} {mode}, which lowers nothing.",
                next_step="If its pods have a kernel of their own, as Kata's have, let their "
                f"network namespaces prove them: --attestation-by-runtime-class={mode}=namespace.",
                about=pod.ref,
                told=_UNSEEN,
            )
        if proof.holders != 1:
            return Refusal(
                reason=Reason.ADDRESS_CONTESTED,
                message=f"{unseen} {mode}, but {proof.holders} network namespaces hold its "
                "address, and not one.",
                next_step="Find the pod that has taken the address. If none has, the runtime takes "
                f"it away, as gVisor does: --attestation-by-runtime-class={mode}=address.",
                about=pod.ref,
                told=_UNSEEN,
            )
        return Verdict.PROVEN if proof.guarded else Verdict.UNKNOWN


STRICT_TRUST = Trust()
"""No proxy, and no runtime class."""
