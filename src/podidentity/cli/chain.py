"""The chain label → binding → identity → machine → NMI, and where it ends: what `explain` says.

The first three links are those of `core.matching`, in its words. The last two are facts of the
pod's node, which nobody but an operator sees: is the identity on its machine, is its NMI ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from podidentity.core.entitlements import Entitlement, Match
from podidentity.core.ids import ObjectRef
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import BINDING_LABEL


class State(StrEnum):
    """What is known of a link."""

    HOLDS = "ok"
    BROKEN = "no"
    UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain."""

    name: str
    state: State
    text: str


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a machine or of NMI, and where from."""

    state: State
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is known of the pod's node."""

    attached: Mapping[ObjectRef, Fact]
    """For each AzureIdentity that the pod may use: is it on the node's machine?"""
    nmi: Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The links as far as they were followed, and the reason where they end."""

    pod: ObjectRef
    links: tuple[Link, ...]
    entitlements: tuple[Entitlement, ...]
    refusal: Refusal | None = None
    """Why the rules refuse."""

    @property
    def entitled(self) -> bool:
        """Whether the pod can have a token: no link is known to be broken."""
        return self.refusal is None and not self.obstacle

    @property
    def obstacle(self) -> Link | None:
        """The link behind the rules that is known to be broken for all its identities."""
        for name in ("machine", "nmi"):
            links = [link for link in self.links if link.name == name]
            if links and all(link.state is State.BROKEN for link in links):
                return links[0]
        return None


_LINK_OF = {
    Reason.NO_LABEL: "pod",
    Reason.HOST_NETWORK: "pod",
    Reason.POD_ENDED: "pod",
    Reason.NO_BINDING: "binding",
    Reason.OTHER_NAMESPACE: "binding",
    Reason.MALFORMED_BINDING: "binding",
}


def follow(match: Match, node: Node) -> Explanation:
    """Return the chain of `match.pod`."""
    usable, refusals = match.entitlements, match.refusals
    links = [_pod(match, refusals)]
    links += [
        Link("binding", State.HOLDS, f"{each.ref}, selector {each.selector!r}")
        for each in match.bindings
    ]
    links += [Link("identity", State.HOLDS, _identity(each)) for each in usable]
    links += [
        Link(_LINK_OF.get(each.reason, "identity"), State.BROKEN, each.message)
        for each in refusals
        if _LINK_OF.get(each.reason) != "pod"
    ]
    if usable:
        links += [_machine(each, node) for each in usable]
        links.append(Link("nmi", node.nmi.state, node.nmi.text))
    return Explanation(
        pod=match.pod.ref,
        links=tuple(links),
        entitlements=usable,
        refusal=None if usable else refusals[0],
    )


def _pod(match: Match, refusals: Sequence[Refusal]) -> Link:
    for each in refusals:
        if _LINK_OF.get(each.reason) == "pod":
            return Link("pod", State.BROKEN, each.message)
    pod = match.pod
    where = f"on node {pod.node}" if pod.node else "on no node yet"
    return Link("pod", State.HOLDS, f"{pod.ref} {where}, label {BINDING_LABEL}={pod.selector}")


def _identity(entitlement: Entitlement) -> str:
    identity = entitlement.identity
    known = [f"client id {identity.client_id}"] if identity.client_id else []
    known += [str(identity.resource_id)] if identity.resource_id else []
    return ", ".join([str(identity.ref), *known])


def _machine(entitlement: Entitlement, node: Node) -> Link:
    fact = node.attached[entitlement.identity.ref]
    return Link("machine", fact.state, f"{entitlement.identity.ref.name}: {fact.text}")
