"""The whole decision on a request, but for its token: matched, selected, permitted.

Nothing here asks anybody. Where the cluster's RBAC is not known yet, the decision is the question;
whoever decides asks it and decides again. So the same page answers a request and explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podidentity.core.entitlements import MOST_NAMED, Entitlement, Match
from podidentity.core.permission import Authorization, Use, not_permitted, uses_of
from podidentity.core.refusals import Refusal
from podidentity.core.resources import AzureIdentity
from podidentity.core.selection import Ambiguity, not_among, select
from podidentity.core.tokens import TokenRequest

MOST_TRIED = MOST_NAMED
"""Identities whose permission is looked at for one request: a namespace may bind thousands."""

Permitted = Callable[[Use], bool | None]
"""What is known of a permission; None: it must be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a request gets: exactly one of `entitlement`, `refusal` and `question`."""

    entitlement: Entitlement | None = None
    refusal: Refusal | None = None
    question: Use | None = None
    """What must be asked of the cluster before it can be decided."""
    identity: AzureIdentity | None = None
    """Which identity it is about, permitted or not."""
    observed: Refusal | None = None
    """What would have been refused, had the permission counted."""


def decide(
    match: Match,
    request: TokenRequest,
    permitted: Permitted,
    *,
    ambiguity: Ambiguity = Ambiguity.WEIGHT,
    authorization: Authorization = Authorization.RBAC,
) -> Decision:
    """Return what the pod of `match` gets for `request`.

    Of several identities, where none is named, the first that is permitted answers; if that one is
    still on its way to the node it is waited for, so that the answer is the same each time.
    """
    if authorization is Authorization.OFF:
        permitted = _whatever
    observing = authorization is Authorization.OBSERVE
    candidates = select(match, request, ambiguity)
    if isinstance(candidates, Refusal):
        return Decision(refusal=candidates)
    if not candidates:
        return _not_among(match, request, _whatever if observing else permitted)
    refused: list[tuple[Entitlement, Use]] = []
    for entitlement in candidates[:MOST_TRIED]:
        lacking = _lacking(match, entitlement, permitted)
        if lacking is None:
            return _granted(entitlement)
        if permitted(lacking) is None:
            return Decision(question=lacking, identity=entitlement.identity)
        if observing:
            return _granted(entitlement, not_permitted(match.pod, entitlement.identity, lacking))
        refused.append((entitlement, lacking))
    return _not_permitted(match, *refused[0], permitted)


def _whatever(use: Use) -> bool:
    del use
    return True


def _lacking(match: Match, entitlement: Entitlement, permitted: Permitted) -> Use | None:
    """Return the first permission that is denied or not known."""
    return next((use for use in uses_of(match.pod, entitlement) if not permitted(use)), None)


def _granted(entitlement: Entitlement, observed: Refusal | None = None) -> Decision:
    identity = entitlement.identity
    if entitlement.awaited is not None:
        return Decision(refusal=entitlement.awaited, identity=identity, observed=observed)
    return Decision(entitlement=entitlement, identity=identity, observed=observed)


def _not_among(match: Match, request: TokenRequest, permitted: Permitted) -> Decision:
    usable = _usable(match, permitted)
    if isinstance(usable, Use):
        return Decision(question=usable)
    return Decision(refusal=not_among(match, request, usable, _unseen(match, permitted)))


def _not_permitted(
    match: Match, entitlement: Entitlement, lacking: Use, permitted: Permitted
) -> Decision:
    usable = _usable(match, permitted)
    identity = entitlement.identity
    if isinstance(usable, Use):
        return Decision(question=usable, identity=identity)
    refusal = not_permitted(match.pod, identity, lacking, usable, _unseen(match, permitted))
    return Decision(refusal=refusal, identity=identity)


def _usable(match: Match, permitted: Permitted) -> Sequence[Entitlement] | Use:
    """Return what the pod may use and is permitted, or what must be asked to tell."""
    if permitted is _whatever:
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
    """Return how many identities `_usable` leaves out: each would cost questions."""
    return 0 if permitted is _whatever else max(0, len(match.entitlements) - MOST_TRIED)
