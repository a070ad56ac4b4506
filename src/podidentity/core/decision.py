"""The whole decision on a request, except its token: selected, permitted, granted.

A request that names an id gets that identity or a refusal, never another one. A request that names
none gets the identity of the heaviest binding, then of the first name, the same each time
(`matching.by_weight`); with `Ambiguity.REJECT` it is refused if the pod has several, as IMDS does.

These functions do not ask the cluster. If its RBAC is not known yet, the decision is the question;
the caller asks it and decides again. So the same page answers a request and explains it.

The permission is RBAC of the cluster, because an AzureIdentity is only a request: its author can
write any client id into it. It is the verb `use` on the resource `azureidentities` of group
`aadpodidentity.k8s.io`, granted cluster-wide, so that the owner of a namespace cannot grant it by a
Role. The resource's name is the client id (without one the ARM id, in lower case), or
`system-assigned` for the node's own identity.

Two entitlements need no permission: a service account annotated for azure-workload-identity,
because Entra itself decides on it, and an exception, because it counts only in the operator's
namespaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice

from podidentity.core.errors import InvalidRequest
from podidentity.core.matching import (
    MOST_NAMED,
    Basis,
    Directory,
    Entitlement,
    Match,
    all_named,
    may_use,
    named,
)
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    SYSTEM_ASSIGNED,
    AzureIdentity,
    AzurePodIdentityException,
    ClientId,
    Grant,
    IdentityType,
    ObjectRef,
    Pod,
    ResourceId,
    TokenRequest,
    WorkloadIdentity,
)

GROUP = "aadpodidentity.k8s.io"
RESOURCE = "azureidentities"
VERB = "use"


class Authorization(StrEnum):
    """The effect of a missing permission; values are those of `--authorization`."""

    RBAC = "rbac"
    """The request is refused."""
    OBSERVE = "observe"
    """Log, audit and event report it, but the token is given."""
    OFF = "off"
    """Permissions are not checked."""


@dataclass(frozen=True, slots=True)
class Use:
    """A question to the API server: may this service account use the resource of this name?"""

    service_account: ObjectRef
    name: str

    def __str__(self) -> str:
        return f"{self.service_account} {VERB} {self.name}"


MOST_TRIED = MOST_NAMED
"""Identities whose permission is checked for one request: a namespace may bind thousands."""

Permitted = Callable[[Use], bool | None]
"""Returns the known decision on a permission; None if the cluster must be asked."""


class Ambiguity(StrEnum):
    """The answer to a request without an id if the pod has several identities."""

    WEIGHT = "weight"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The pod gets a token of the entitlement's identity."""

    pod: Pod
    entitlement: Entitlement
    observed: Refusal | None = None
    """The refusal that `--authorization=observe` reported instead."""

    @property
    def identity(self) -> AzureIdentity:
        """The identity."""
        return self.entitlement.identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The pod gets no token."""

    pod: Pod
    refusal: Refusal
    identity: AzureIdentity | None = None
    """The identity that the refusal concerns, if any."""
    observed: Refusal | None = None
    """An earlier refusal that `--authorization=observe` only reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """The cluster's RBAC must be asked first."""

    pod: Pod
    question: Use
    identity: AzureIdentity | None = None
    """The identity that the question concerns, if any."""


Decision = Allowed | Denied | Undecided


def decide(
    match: Match,
    request: TokenRequest,
    permitted: Permitted,
    *,
    ambiguity: Ambiguity = Ambiguity.WEIGHT,
    authorization: Authorization = Authorization.RBAC,
) -> Decision:
    """Return the decision on `request` of the pod of `match`.

    If the request names no identity, the first permitted one answers. If that one is not on the
    node yet, the request waits for it, so that the answer is the same each time.
    """
    if authorization is Authorization.OFF:
        permitted = _always
    observing = authorization is Authorization.OBSERVE
    candidates = select(match, request, ambiguity)
    if isinstance(candidates, Refusal):
        return Denied(pod=match.pod, refusal=candidates)
    if not candidates:
        return _decide_not_among(match, request, _always if observing else permitted)
    refused: list[tuple[Entitlement, Use]] = []
    for entitlement in candidates[:MOST_TRIED]:
        lacking = _lacking(match, entitlement, permitted)
        if lacking is None:
            return _granted(match, entitlement)
        if permitted(lacking) is None:
            return Undecided(pod=match.pod, question=lacking, identity=entitlement.identity)
        if observing:
            observed = not_permitted(match.pod, entitlement.identity, lacking)
            return _granted(match, entitlement, observed)
        refused.append((entitlement, lacking))
    return _not_permitted(match, *refused[0], permitted)


def _always(use: Use) -> bool:
    """Permit everything, for `--authorization=off`."""
    del use
    return True


def _lacking(match: Match, entitlement: Entitlement, permitted: Permitted) -> Use | None:
    """Return the first permission that is denied or not known."""
    return next((use for use in uses_of(match.pod, entitlement) if not permitted(use)), None)


def _granted(
    match: Match, entitlement: Entitlement, observed: Refusal | None = None
) -> Allowed | Denied:
    pod, awaited = match.pod, entitlement.awaited
    if awaited is not None:
        identity = entitlement.identity
        return Denied(pod=pod, refusal=awaited, identity=identity, observed=observed)
    return Allowed(pod=pod, entitlement=entitlement, observed=observed)


def _decide_not_among(match: Match, request: TokenRequest, permitted: Permitted) -> Decision:
    usable = _usable(match, permitted)
    if isinstance(usable, Use):
        return Undecided(pod=match.pod, question=usable)
    refusal = _refuse_not_among(match, request, usable, _unseen(match, permitted))
    return Denied(pod=match.pod, refusal=refusal)


def _not_permitted(
    match: Match, entitlement: Entitlement, lacking: Use, permitted: Permitted
) -> Decision:
    usable = _usable(match, permitted)
    identity = entitlement.identity
    if isinstance(usable, Use):
        return Undecided(pod=match.pod, question=usable, identity=identity)
    refusal = not_permitted(match.pod, identity, lacking, usable, _unseen(match, permitted))
    return Denied(pod=match.pod, refusal=refusal, identity=identity)


def _usable(match: Match, permitted: Permitted) -> Sequence[Entitlement] | Use:
    """Return the permitted entitlements, or the permission that must be asked for first."""
    if permitted is _always:
        return match.entitlements
    usable: list[Entitlement] = []
    for entitlement in match.entitlements[:MOST_TRIED]:
        lacking = _lacking(match, entitlement, permitted)
        if lacking is None:
            usable.append(entitlement)
        elif permitted(lacking) is None:
            return lacking
    return usable


def _unseen(match: Match, permitted: Permitted) -> int:
    """Return the number of identities that `_usable` does not check: each may cost questions."""
    return 0 if permitted is _always else max(0, len(match.entitlements) - MOST_TRIED)


# The permission to use an identity.


def uses_of(pod: Pod, entitlement: Entitlement) -> tuple[Use, ...]:
    """Return all permissions that `entitlement` of `pod` needs; usually one.

    A managed identity that is the credential of another (`federation.via`) needs its own
    permission: else a tenant could sign in to his application by a neighbour's identity.
    """
    if entitlement.basis is not Basis.BINDING:
        return ()
    account = ObjectRef(pod.ref.namespace, pod.service_account)
    return tuple(Use(account, name) for name in permission_names(entitlement.identity))


def permission_names(identity: AzureIdentity) -> tuple[str, ...]:
    """Return the names of all resources to which `use` must be granted."""
    federation = identity.entra.federation if identity.entra else None
    if federation is None or federation.via is None:
        return (permission_name(identity),)
    return (permission_name(identity), federation.via.folded)


def permission_name(identity: AzureIdentity) -> str:
    """Return the name of the resource to which `use` must be granted."""
    if identity.system_assigned:
        return SYSTEM_ASSIGNED
    if identity.client_id is not None:
        return str(identity.client_id)
    return identity.resource_id.folded if identity.resource_id else ""


def not_permitted(
    pod: Pod,
    identity: AzureIdentity,
    use: Use,
    usable: Sequence[Entitlement] | None = None,
    unseen: int = 0,
) -> Refusal:
    """Return the refusal of a pod whose service account lacks the permission.

    `usable` are the identities that it may use instead, None if unknown; `unseen` more were not
    checked.
    """
    instead = "" if usable is None else f" {may_use(usable, unseen)}"
    return Refusal(
        reason=Reason.NOT_PERMITTED,
        message=f"Service account {use.service_account} of pod {pod.ref} may not use the identity "
        f"{use.name} of AzureIdentity {identity.ref}.{instead}",
        next_step="An operator grants it: podidentity grant --namespace "
        f"{use.service_account.namespace} --identity {use.name}.",
        about=identity.ref,
    )


# Which identity is asked for.


def select(
    match: Match, request: TokenRequest, ambiguity: Ambiguity = Ambiguity.WEIGHT
) -> tuple[Entitlement, ...] | Refusal:
    """Return the entitlements that may answer `request`, best first, or a refusal.

    More than one only if the request names no identity: the first permitted one answers. Empty if
    it names an identity that the pod does not have.
    """
    if match.exception is not None:
        found = _identity_of_node(match.pod, match.exception, request)
        if isinstance(found, Refusal):
            return found
        return (Entitlement(identity=found, basis=Basis.EXCEPTION),)
    if not match.entitlements:
        return match.refusals[0]
    if request.asked is None:
        if len(match.entitlements) > 1 and ambiguity is Ambiguity.REJECT:
            return _refuse_several(match)
        return match.entitlements
    answering = (each for each in match.entitlements if _answers(each.identity, request))
    return tuple(islice(answering, 1))


def _identity_of_node(
    pod: Pod, exception: AzurePodIdentityException, request: TokenRequest
) -> AzureIdentity | Refusal:
    """Return the identity for an excepted pod, or the refusal.

    Without a list in the exception every requested identity is allowed, and a request without an id
    gets the node's own identity. With a list only its identities are allowed, and a request without
    an id gets the first.
    """
    listed = exception.identities
    asked = request.asked
    if asked is None and listed:
        asked = listed[0]
    if listed and asked not in listed:
        return Refusal(
            reason=Reason.NOT_AMONG,
            message=f"AzurePodIdentityException {exception.ref} does not let pod {pod.ref} use "
            f"{asked}. It may use: {', '.join(str(each) for each in listed)}.",
            next_step="Ask for one of these, or add it to spec.azureIdentities.",
            about=exception.ref,
        )
    return AzureIdentity(
        ref=exception.ref,
        type=IdentityType.USER_ASSIGNED,
        client_id=asked if isinstance(asked, ClientId) else None,
        resource_id=asked if isinstance(asked, ResourceId) else None,
        object_id=request.object_id,
        system_assigned=asked is None,
    )


def _answers(identity: AzureIdentity, request: TokenRequest) -> bool:
    """Whether `identity` is the requested one; an identity without that kind of id never is."""
    if request.client_id is not None:
        return identity.client_id == request.client_id
    if request.object_id is not None:
        return identity.object_id == request.object_id
    return identity.resource_id == request.resource_id


def _refuse_not_among(
    match: Match, request: TokenRequest, usable: Sequence[Entitlement], unseen: int
) -> Refusal:
    """Return the refusal of a request for an identity that the pod does not have.

    `usable` are the identities that it may use instead; `unseen` more were not checked.
    """
    return Refusal(
        reason=Reason.NOT_AMONG,
        message=f"Pod {match.pod.ref} may not use the identity {request.asked}. "
        f"{may_use(usable, unseen)}",
        next_step="Ask for one of these, or bind the identity to the pod.",
        about=match.pod.ref,
    )


def _refuse_several(match: Match) -> Refusal:
    return Refusal(
        reason=Reason.AMBIGUOUS,
        message=f"Pod {match.pod.ref} may use several identities and named none: "
        f"{all_named(match.entitlements)}.",
        next_step="Name one by client_id, object_id or msi_res_id.",
        about=match.pod.ref,
        told="Multiple user assigned identities exist, please specify the clientId / resourceId "
        "of the identity in the token request",
    )


# What is granted.


def granted(entitlement: Entitlement, pod: Pod, request: TokenRequest) -> Grant:
    """Return the grant of `entitlement`; raise InvalidRequest for a tenant of another identity."""
    identity, tenant = entitlement.identity, request.tenant
    entra = identity.entra
    if tenant is None or entra is None or tenant == entra.tenant:
        # IMDS issues tokens of its own tenant only, and ignores the parameter.
        return Grant(identity=identity, pod=pod)
    if tenant not in entra.auxiliary_tenants:
        raise InvalidRequest(
            f"authority names the tenant {tenant}, which is none of {named(identity)}"
        )
    return Grant(identity=identity, pod=pod, tenant=tenant)


def current_grants(grant: Grant, directory: Directory) -> Iterator[Grant]:
    """Yield the grant again from the current objects; nothing if its identity is gone.

    The token cache drops tokens without a current grant. An AzureIdentity, an annotated service
    account and an exception may have the same name, so there may be several.
    """
    identity = grant.identity
    found = directory.identity(identity.ref)
    if isinstance(found, AzureIdentity):
        yield replace(grant, identity=found)
    account = directory.workload_identity(identity.ref)
    if isinstance(account, WorkloadIdentity) and account.client_id == identity.client_id:
        yield grant
    if any(each.ref == identity.ref for each in directory.exceptions(identity.ref.namespace)):
        yield grant
