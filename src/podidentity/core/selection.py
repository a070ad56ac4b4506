"""Which of a pod's identities answers this request.

A request that names an id gets that identity or a refusal, never another one. A request that
names none gets the identity of the heaviest binding, then of the first name, the same each time;
with `Ambiguity.REJECT` several identities are refused, as IMDS itself does.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import islice

from podidentity.core.entitlements import Basis, Entitlement, Match, all_named, may_use, named
from podidentity.core.errors import InvalidRequest
from podidentity.core.excepting import identity_of_the_node
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import AzureIdentity, Pod
from podidentity.core.tokens import Grant, TokenRequest


class Ambiguity(StrEnum):
    """What a request without an id gets where the pod has several identities."""

    WEIGHT = "weight"
    REJECT = "reject"


def select(
    match: Match, request: TokenRequest, ambiguity: Ambiguity = Ambiguity.WEIGHT
) -> tuple[Entitlement, ...] | Refusal:
    """Return the entitlements that may answer `request`, best first, or why none does.

    More than one only where the request names none: the first that is permitted answers. Empty
    where it names one that is none of the pod's.
    """
    if match.exception is not None:
        found = identity_of_the_node(match.pod, match.exception, request)
        if isinstance(found, Refusal):
            return found
        return (Entitlement(identity=found, basis=Basis.EXCEPTION),)
    if not match.entitlements:
        return match.refusals[0]
    if request.asked is None:
        if len(match.entitlements) > 1 and ambiguity is Ambiguity.REJECT:
            return _several(match)
        return match.entitlements
    answering = (each for each in match.entitlements if _answers(each.identity, request))
    return tuple(islice(answering, 1))


def granted(entitlement: Entitlement, pod: Pod, request: TokenRequest) -> Grant:
    """Return what the rules give `pod`; raise InvalidRequest for a tenant that is not its own."""
    identity, tenant = entitlement.identity, request.tenant
    entra = identity.entra
    if tenant is None or entra is None or tenant == entra.tenant:
        # IMDS issues tokens of its own tenant only, and ignores what else it is told.
        return Grant(identity=identity, pod=pod)
    if tenant not in entra.auxiliary_tenants:
        raise InvalidRequest(
            f"authority names the tenant {tenant}, which is none of {named(identity)}"
        )
    return Grant(identity=identity, pod=pod, tenant=tenant)


def _answers(identity: AzureIdentity, request: TokenRequest) -> bool:
    """Whether `identity` is the one that was asked for; an unknown id never equals another."""
    if request.client_id is not None:
        return identity.client_id == request.client_id
    if request.object_id is not None:
        return identity.object_id == request.object_id
    return identity.resource_id == request.resource_id


def not_among(
    match: Match, request: TokenRequest, usable: Sequence[Entitlement], unseen: int
) -> Refusal:
    """Return the refusal of a request for an identity that is none of the pod's.

    `usable` is what it may use instead; `unseen` more were not looked at.
    """
    return Refusal(
        reason=Reason.NOT_AMONG,
        message=f"Pod {match.pod.ref} may not use the identity {request.asked}. "
        f"{may_use(usable, unseen)}",
        next_step="Ask for one of these, or bind the identity to the pod.",
        about=match.pod.ref,
    )


def _several(match: Match) -> Refusal:
    return Refusal(
        reason=Reason.AMBIGUOUS,
        message=f"Pod {match.pod.ref} may use several identities and named none: "
        f"{all_named(match.entitlements)}.",
        next_step="Name one by client_id, object_id or msi_res_id.",
        about=match.pod.ref,
        told="Multiple user assigned identities exist, please specify the clientId / resourceId "
        "of the identity in the token request",
    )
