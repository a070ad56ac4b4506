"""The chain label → binding → identity → permission → credential or machine → NMI of a pod.

The first four links are the decision of `core`, in its words. The others are facts that the rules
do not use: whether the identity can sign in, or is attached to the node's machine, how requests
come to NMI, whether NMI is ready there, and what became of the pod's last requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from podidentity.core.decision import Basis, Decision, Denied, Entitlement, Match, Use, uses_of
from podidentity.core.errors import NEXT_STEPS
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import BINDING_LABEL, AzureIdentity, IdentityType, ObjectRef


class LinkState(StrEnum):
    """Whether a link holds."""

    HOLDS = "ok"
    BROKEN = "no"
    UNKNOWN = "?"


CREDENTIAL_STEP = "Create it, or correct its contents."
"""What mends a credential that cannot be used."""


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One link of the chain."""

    name: str
    state: LinkState
    text: str


@dataclass(frozen=True, slots=True)
class Fact:
    """The state of a permission, credential, machine or NMI, with its source."""

    state: LinkState
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Facts about the pod's node."""

    attached: Mapping[ObjectRef, Fact]
    """For each bound AzureIdentity of a managed identity: is it attached to the node's machine?"""
    ways: Mapping[str, Fact]
    """What lies between the pod and NMI, NMI itself included, by the name of the link."""
    requests: Requests | None = None


class Failure(NamedTuple):
    """A failed request of a pod, or of most pods of its node."""

    reason: str
    message: str
    since: float
    """When it failed first, in seconds since 1970."""
    last: float
    """When it failed last."""

    @property
    def next_step(self) -> str:
        """A sentence; "" where the message has the next step, or none is known."""
        step = NEXT_STEPS.get(self.reason, "")
        return f"{step[:1].upper()}{step[1:]}." if step else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What NMI answered a pod last, as far as that is known."""

    served: float | None = None
    """Seconds since a token was given; None if none is known of."""
    failure: Failure | None = None
    """A failure that still lasts, as far as that is known."""
    text: str
    """All that is known of it, as a clause."""

    @property
    def link(self) -> ChainLink:
        known = LinkState.UNKNOWN if self.served is None else LinkState.HOLDS
        return ChainLink("requests", LinkState.BROKEN if self.failure else known, self.text)


class Verdict(StrEnum):
    """The answer to "my pod gets no token"; values are stable, for programs."""

    SERVED = "served"
    CLEAR = "clear"
    """Nothing in the cluster stands against a token; Azure was not asked for one."""
    FAILS = "fails"
    REFUSED = "refused"


Permissions = Mapping[Use, Fact]
"""Each permission that the pod needs."""
Credentials = Mapping[ObjectRef, Fact]
"""The credentials of AzureIdentities: Secrets and service accounts of the cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All links of a pod, and the reason if the chain ends before a token."""

    pod: ObjectRef
    links: tuple[ChainLink, ...]
    entitlements: tuple[Entitlement, ...]
    refusal: Refusal | None = None
    """The refusal of the rules, if any."""
    obstacle: ChainLink | None = None
    """The broken link that prevents a token although the rules allow it."""
    requests: Requests | None = None

    @property
    def entitled(self) -> bool:
        return self.refusal is None and not self.obstacle

    @property
    def verdict(self) -> Verdict:
        """Whether the pod gets tokens, or what keeps it from them."""
        if not self.entitled:
            return Verdict.REFUSED
        if self.requests and self.requests.failure:
            return Verdict.FAILS
        served = self.requests and self.requests.served is not None
        return Verdict.SERVED if served else Verdict.CLEAR


_LINK_OF = {
    Reason.NO_LABEL: "pod",
    Reason.HOST_NETWORK: "pod",
    Reason.POD_ENDED: "pod",
    Reason.EXCEPTION_IGNORED: "exception",
    Reason.NO_TENANT: "service account",
    Reason.NO_BINDING: "binding",
    Reason.OTHER_NAMESPACE: "binding",
    Reason.MALFORMED_BINDING: "binding",
}


def follow(
    match: Match,
    decision: Decision,
    permissions: Permissions,
    node: Node,
    credentials: Credentials,
) -> Explanation:
    """Return the chain of `match.pod`; `decision` is that on a request that names no identity."""
    bound, refusals = match.entitlements, match.refusals
    links = [_pod(match, refusals)]
    if match.exception:
        text = f"AzurePodIdentityException {match.exception.ref}: the node's IMDS answers"
        links.append(ChainLink("exception", LinkState.HOLDS, text))
    links += [
        ChainLink("binding", LinkState.HOLDS, f"{each.ref}, selector {each.selector!r}")
        for each in match.bindings
    ]
    for each in bound:
        source = "service account" if each.basis is Basis.SERVICE_ACCOUNT else "identity"
        links.append(ChainLink(source, LinkState.HOLDS, _identity(each)))
    links += [
        ChainLink(_LINK_OF.get(each.reason, "identity"), LinkState.BROKEN, each.message)
        for each in refusals
        if _LINK_OF.get(each.reason) != "pod"
    ]
    # Several identities may need the same permission.
    for use in dict.fromkeys(use for each in bound for use in uses_of(match.pod, each)):
        fact = permissions[use]
        links.append(ChainLink("permission", fact.state, fact.text))
    links += [
        ChainLink("assignment", LinkState.BROKEN, each.awaited.message)
        for each in bound
        if each.awaited
    ]
    own = {each.identity.ref: _own(each, node, credentials) for each in bound}
    links += [link for link in own.values() if link]
    ways: list[ChainLink] = []
    if bound or match.exception:
        ways = [ChainLink(name, fact.state, fact.text) for name, fact in node.ways.items()]
        links += [*ways, *([node.requests.link] if node.requests else ())]
    usable = tuple(
        each
        for each in bound
        if each.awaited is None
        and all(permissions[use].state is not LinkState.BROKEN for use in uses_of(match.pod, each))
    )
    return Explanation(
        pod=match.pod.ref,
        links=tuple(links),
        entitlements=usable,
        refusal=decision.refusal if isinstance(decision, Denied) else None,
        obstacle=_obstacle([own[each.identity.ref] for each in usable], ways),
        requests=node.requests,
    )


def _obstacle(own: Sequence[ChainLink | None], ways: Sequence[ChainLink]) -> ChainLink | None:
    """Return a broken link if every identity has one, or one of the way to NMI, or of NMI."""
    broken = [link for link in own if link and link.state is LinkState.BROKEN]
    if broken and len(broken) == len(own):
        return broken[0]
    return next((link for link in ways if link.state is LinkState.BROKEN), None)


def is_assigned(identity: AzureIdentity) -> bool:
    return identity.type is IdentityType.USER_ASSIGNED and not identity.system_assigned


def _pod(match: Match, refusals: Sequence[Refusal]) -> ChainLink:
    for each in refusals:
        if _LINK_OF.get(each.reason) == "pod":
            return ChainLink("pod", LinkState.BROKEN, each.message)
    pod = match.pod
    where = f"on node {pod.node}" if pod.node else "on no node yet"
    label = f"label {BINDING_LABEL}={pod.selector}" if pod.selector else "no binding label"
    return ChainLink("pod", LinkState.HOLDS, f"{pod.ref} {where}, {label}")


def _identity(entitlement: Entitlement) -> str:
    identity = entitlement.identity
    known = [f"client id {identity.client_id}"] if identity.client_id else []
    known += [str(identity.resource_id)] if identity.resource_id else []
    known += ["the machine's own identity"] if identity.system_assigned else []
    known += [f"type {identity.type.value}"] if identity.type.value else []
    return ", ".join([str(identity.ref), *known])


def _own(entitlement: Entitlement, node: Node, credentials: Credentials) -> ChainLink | None:
    """Return the link of the identity's machine or credential, if it needs one of them."""
    ref = entitlement.identity.ref
    name, fact = "credential", credentials.get(ref)
    if is_assigned(entitlement.identity):
        name, fact = "machine", node.attached[ref]
    return ChainLink(name, fact.state, f"{ref.name}: {fact.text}") if fact else None
