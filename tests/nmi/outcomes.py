"""Outcomes of token requests, as the pipeline makes them."""

from __future__ import annotations

from typing import Any, NamedTuple

from podidentity.core.decision import Allowed, Entitlement
from podidentity.core.errors import PodIdentityError
from podidentity.core.refusals import Refusal
from podidentity.core.resources import (
    AccessToken,
    AzureIdentity,
    Fetched,
    Origin,
    Pod,
    TokenRequest,
)
from podidentity.nmi.request.decision import (
    NO_EVIDENCE,
    Evidence,
    Failed,
    Granted,
    Rejected,
    Subject,
    TokenQuery,
    no_token,
)
from tests.fakes import ADDRESS, NOW, VAULT, binding, identity, pod

QUERY = TokenQuery(ADDRESS, TokenRequest(resource=VAULT))
POD = pod()


class Entry(NamedTuple):
    """A token in a cache."""

    token: AccessToken
    fresh_until: float = 60.0
    fresh_until_time: float = NOW + 60.0


def granted(
    *,
    to: Pod = POD,
    of: AzureIdentity | None = None,
    origin: Origin = Origin.CACHE,
    observed: Refusal | None = None,
    evidence: Evidence = NO_EVIDENCE,
) -> Granted:
    """Return the outcome of a request that got a token."""
    entitlement = Entitlement(identity=of or identity(), binding=binding())
    token = AccessToken(
        value="token-1",
        client_id=entitlement.identity.client_id,
        expires_on=int(NOW) + 3600,
        not_before=int(NOW),
        resource=VAULT,
    )
    return Granted(
        subject=Subject(to, evidence),
        allowed=Allowed(pod=to, entitlement=entitlement, observed=observed),
        fetched=Fetched(Entry(token), origin),
    )


def refused(error: PodIdentityError, to: Pod | None = POD, **more: Any) -> Rejected | Failed:
    """Return the outcome of a request that got none; `to`: the pod, if it was proved."""
    if to is None:
        return no_token(error, **more)
    return no_token(error, Subject(to, more.pop("evidence", NO_EVIDENCE)), **more)
