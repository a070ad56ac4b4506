"""Which of a pod's identities answers this request.

A request that names an id gets that identity or a refusal, never another one. A request that
names none gets the identity of the heaviest binding, then of the first name, the same each time;
with `Ambiguity.REJECT` several identities are refused, as IMDS itself does.
"""

from __future__ import annotations

from enum import StrEnum

from podidentity.core.matching import Entitlement, Match
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import AzureIdentity
from podidentity.core.tokens import TokenRequest


class Ambiguity(StrEnum):
    """What a request without an id gets where the pod has several identities."""

    WEIGHT = "weight"
    REJECT = "reject"


def select(
    match: Match, request: TokenRequest, ambiguity: Ambiguity = Ambiguity.WEIGHT
) -> Entitlement | Refusal:
    """Return the entitlement that answers `request`, or why none does."""
    if not match.entitlements:
        return match.refusals[0]
    if request.asked is None:
        if len(match.entitlements) > 1 and ambiguity is Ambiguity.REJECT:
            return _several(match)
        return match.entitlements[0]
    for entitlement in match.entitlements:
        if _answers(entitlement.identity, request):
            return entitlement
    return _not_among(match, request)


def _answers(identity: AzureIdentity, request: TokenRequest) -> bool:
    """Whether `identity` is the one that was asked for; an unknown id never equals another."""
    if request.client_id is not None:
        return identity.client_id == request.client_id
    if request.object_id is not None:
        return identity.object_id == request.object_id
    return identity.resource_id == request.resource_id


def _name(identity: AzureIdentity) -> str:
    known = identity.client_id or identity.resource_id
    return f"{identity.ref.name} ({known})" if known else identity.ref.name


def _usable(match: Match) -> str:
    return ", ".join(_name(entitlement.identity) for entitlement in match.entitlements)


def _not_among(match: Match, request: TokenRequest) -> Refusal:
    return Refusal(
        reason=Reason.NOT_AMONG,
        message=f"Pod {match.pod.ref} may not use the identity {request.asked}. "
        f"It may use: {_usable(match)}.",
        next_step="Ask for one of these, or bind the identity to the pod.",
        about=match.pod.ref,
    )


def _several(match: Match) -> Refusal:
    return Refusal(
        reason=Reason.AMBIGUOUS,
        message=f"Pod {match.pod.ref} may use several identities and named none: {_usable(match)}.",
        next_step="Name one by client_id, object_id or msi_res_id.",
        about=match.pod.ref,
        told="Multiple user assigned identities exist, please specify the clientId / resourceId "
        "of the identity in the token request",
    )
