"""One token that is kept, and until when it answers.

Who holds one may give it out until `fresh_until` and `fresh_until_time`, without asking the cache
again: what is dropped or replaced is fresh no more.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from math import inf

from podidentity.core.caching import LEASE, PAUSE, Schedule
from podidentity.core.ids import ObjectRef
from podidentity.core.tokens import AccessToken, Grant

Key = tuple[Hashable, str]
"""All that decides which token it is: credential and audience. Who may have it is decided before
anybody looks here."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The same instant on both clocks: the one that people set, the one that never goes back."""

    time: float
    monotonic: float


@dataclass(slots=True, eq=False, kw_only=True)
class Kept:
    """A token with its ages; `AccessToken` and `Grant` show no secret in their `repr`."""

    key: Key
    token: AccessToken
    grant: Grant
    """Whose request it was fetched for; the token is that of the identity, not of the pod."""
    owner: str
    """Uid of the pod whose share it counts for."""
    since: Moment
    schedule: Schedule
    forced: bool = False
    """Whether whoever issued it was told to bypass a cache of their own."""
    used: float = -inf
    """When somebody last asked for it, in monotonic seconds."""
    queued: float = -inf
    """When it last went to the end of the row of those that make room."""
    fresh_until: float = field(init=False)
    """Monotonic seconds until which it answers as it is."""
    fresh_until_time: float = field(init=False)
    """The same in seconds since 1970: whichever comes first counts."""

    def __post_init__(self) -> None:
        self.fresh_until = self.since.monotonic + self.schedule.renew
        self.fresh_until_time = self.since.time + self.schedule.renew

    @property
    def refs(self) -> frozenset[ObjectRef]:
        """The objects whose change may end it; identity and secret may have the same name."""
        entra = self.grant.identity.entra
        secret = entra.secret if entra else None
        return frozenset({self.grant.identity.ref, secret or self.grant.identity.ref})

    def age(self, now: Moment) -> float:
        """Return its age, by the clock that makes it older: a clock set back keeps nothing."""
        return max(now.time - self.since.time, now.monotonic - self.since.monotonic)

    def stale(self, now: Moment) -> bool:
        """Return whether another must be fetched before anybody is answered."""
        return self.age(now) >= self.schedule.stale

    def renewing(self, now: Moment) -> None:
        """Somebody fetches another behind it: until then, or for a while, it answers as it is."""
        for_ = min(PAUSE, self.schedule.stale - self.age(now))
        self.fresh_until = now.monotonic + for_
        self.fresh_until_time = now.time + for_

    def ended(self) -> None:
        """It is dropped or replaced: nobody may be answered with it any more."""
        self.fresh_until = self.fresh_until_time = -inf

    def in_an_outage(self, now: Moment) -> AccessToken | None:
        """Return what to give while nobody issues tokens; None where nothing is left of it.

        Beyond its expiry the token says that it expires soon: its holder must ask again.
        """
        if self.age(now) >= self.schedule.last:
            return None
        left = self.token.expires_on - now.time
        if left > 0 or not self.token.ext_expires_in:
            return self.token
        promised = min(LEASE, self.schedule.last - self.age(now))
        return replace(self.token, expires_on=int(now.time + promised), ext_expires_in=0)
