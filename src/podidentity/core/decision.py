"""The whole decision on a request, but for its token: matched, selected, permitted.

Nothing here asks the cluster. If its RBAC is not known yet, the decision is the question; the
caller asks it and decides again. So the same page answers a request and explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podidentity.core.entitlements import MOST_NAMED, Entitlement, Match
from podidentity.core.permission import Authorization, Use, not_permitted, uses_of
from podidentity.core.refusals import Refusal
from podidentity.core.resources import AzureIdentity, Pod
from podidentity.core.selection import Ambiguity, not_among, select
from podidentity.core.tokens import TokenRequest

MOST_TRIED = MOST_NAMED
"""Identities whose permission is looked at for one request: a namespace may bind thousands."""

Permitted = Callable[[Use], bool | None]
"""What is known of a permission; None: it must be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The pod gets a token of the entitlement's identity."""

    pod: Pod
    entitlement: Entitlement
    observed: Refusal | None = None
    """What would have been refused, had the permission counted."""

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
    """Which identity it is about, if it is about one."""
    observed: Refusal | None = None
    """What would have been refused before, had the permission counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """The cluster's RBAC must be asked first."""

    pod: Pod
    question: Use
    identity: AzureIdentity | None = None
    """Which identity it is about, if it is about one."""


Decision = Allowed | Denied | Undecided


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
        permitted = _always
    observing = authorization is Authorization.OBSERVE
    candidates = select(match, request, ambiguity)
    if isinstance(candidates, Refusal):
        return Denied(pod=match.pod, refusal=candidates)
    if not candidates:
        return _not_among(match, request, _always if observing else permitted)
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
    """Answer for a permission that nobody asks for."""
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


def _not_among(match: Match, request: TokenRequest, permitted: Permitted) -> Decision:
    usable = _usable(match, permitted)
    if isinstance(usable, Use):
        return Undecided(pod=match.pod, question=usable)
    refusal = not_among(match, request, usable, _unseen(match, permitted))
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
    """Return what the pod may use and is permitted, or what must be asked to tell."""
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
    """Return how many identities `_usable` leaves out: each would cost questions."""
    return 0 if permitted is _always else max(0, len(match.entitlements) - MOST_TRIED)
