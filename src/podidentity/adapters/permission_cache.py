"""A cache of SubjectAccessReviews; a core.ports.Permissions.

    asked ─── fresh ──────────────┬─ fresh, renewed in the  ─┬─ asked again before it is used
            allowed: 60 s         │  background, from half   │
            denied:   5 s         └─ of that time on        ─┘

A permission in use is renewed in the background, so only its first request waits. A revoked
permission counts for a minute at most, a new one after five seconds at most. A "no" that would end
a permission is asked for again 5 s later (`podidentity.lasting`); these 5 s are part of the minute.
The minute begins when the question is sent: a slow API server may have decided it at once.

Names come again: a namespace that is deleted and made anew is another, and its grant has ended with
the first (`wire.rbac`). All its pods are new, so a decision counts for those pods alone that were
there when it was asked for (`since`), and each new pod's first request asks anew.

While the API server is away, which is where it fails or is silent for `SILENT`, the last decision
stands, for `OUTLIVES` at most: a pod keeps its token for up to a day anyway, and an outage of the
control plane must not stop workloads. Without a decision, `ask` raises NotReady.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from podidentity.access_reviews import confirmed
from podidentity.core.decision import Use
from podidentity.core.errors import NotReady
from podidentity.core.ports import Clock
from podidentity.core.rate_limits import FairCache, RateLimiter
from podidentity.waiting import end_all
from podidentity.wire.kube import KubeApi, KubeError
from podidentity.wire.reviews import PATH, RULE, InconclusiveReview, parse_review, review

ALLOWED = 60.0
"""Seconds that a permission is fresh."""
DENIED = 5.0
"""Seconds that a refusal is fresh: an operator may be about to grant the permission."""
OUTLIVES = 12 * 3600.0
"""Seconds that a decision stands while the API server is away: a night, until an operator comes."""
TIMEOUT = 3.0
"""Seconds that a request waits for the API server. It waits longer if it has the patience."""
SILENT = 12.0
"""Seconds without any answer after which the API server is away: a slow one takes ten."""
CAPACITY = 10_000
"""Entries: more than any node has pairs of service account and identity."""
AT_ONCE, RENEWED_AT_ONCE = 8, 64
"""New questions under way, so that the start of a node is no burst on the API server; and questions
asked again, which are spread over time."""
QUESTIONS_PER_SECOND, QUESTIONS_AT_ONCE = 20, 200
"""New questions of one namespace: a tenant may name as many identities as he likes."""

_LATE = "the API server does not answer in time"

_log = logging.getLogger("podidentity.permissions")


@dataclass(slots=True)
class _Decision:
    allowed: bool
    asked: float
    """When it was asked for; this and the other times are in monotonic seconds."""
    renew_at: float
    """From this time on it is renewed in the background."""
    fresh_until: float


class RbacPermissions:
    """Cached decisions of the API server. Close it when done."""

    def __init__(
        self,
        server: KubeApi,
        clock: Clock,
        *,
        outlives: float = OUTLIVES,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._server = server
        self._clock = clock
        self._outlives = outlives
        self._jitter = jitter
        self._decisions: FairCache[Use, _Decision] = FairCache(CAPACITY)
        self._flights: dict[Use, asyncio.Task[bool]] = {}
        self._doubted: set[Use] = set()
        """Permissions that the API server refused once, and is asked for again."""
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._renewed_at_once = asyncio.Semaphore(RENEWED_AT_ONCE)
        self._sent: dict[Use, float] = {}
        """When each question was sent that has no answer; the first one is the oldest."""
        self._heard = -inf
        """When the last answer came."""
        self._new_questions = RateLimiter(QUESTIONS_PER_SECOND, QUESTIONS_AT_ONCE)
        """By namespace."""
        self._trouble = ""
        self._unauthorised = False
        self.revision = 0
        """Grows when a decision turns into its opposite, not with time."""

    def known(self, use: Use, since: float) -> bool | None:
        """Return the decision if it is fresh, without waiting."""
        decision = self._decisions.get(use)
        if decision is None or decision.asked < since:
            return None
        now = self._clock.monotonic()
        if now >= decision.fresh_until:
            return None
        if now >= decision.renew_at:
            self._flight(use)
        return decision.allowed

    async def ask(self, use: Use, since: float, patience: float = 0.0) -> bool:
        """Return the decision; all waiting requests share one question; raise NotReady."""
        until = self._clock.monotonic() + max(patience, TIMEOUT)
        on_its_way = use in self._flights
        answer = await self._asked(use, since, until)
        if on_its_way and self._is_older(use, since):
            answer = await self._asked(use, since, until)
        if answer and self._is_older(use, since):
            raise NotReady("the API server cannot be asked whether a new pod may use the identity")
        return answer

    def _is_older(self, use: Use, since: float) -> bool:
        decision = self._decisions.get(use)
        return decision is not None and decision.asked < since

    async def _asked(self, use: Use, since: float, until: float) -> bool:
        decision = self._decisions.get(use)
        # An allowed permission is always asked for again: a namespace must not prolong a revoked
        # one by many new questions.
        if use not in self._flights and not (decision and decision.allowed):
            now, namespace = self._clock.monotonic(), use.service_account.namespace
            if self._new_questions.take(namespace, now) > 0:
                if decision:
                    return False
                raise NotReady("the pod's namespace asks for too many permissions at once")
        flight = self._flight(use)
        while (left := until - self._clock.monotonic()) > 0:
            decision = self._decisions.get(use)
            counts = decision is not None and decision.asked >= since
            # A permission that may be revoked is not prolonged.
            if counts and use not in self._doubted and self._is_silent():
                return self._last(use, NotReady(_LATE), DENIED)
            timeout = asyncio.ensure_future(self._clock.sleep(min(TIMEOUT, left)))
            try:
                await asyncio.wait({flight, timeout}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timeout.cancel()
            if flight.done():
                return flight.result()
        raise NotReady(_LATE)

    def _is_silent(self) -> bool:
        """Whether the API server owes an answer, and has given none for `SILENT`."""
        sent = next(iter(self._sent.values()), inf)
        return self._clock.monotonic() >= max(sent, self._heard) + SILENT

    def problems(self) -> Sequence[str]:
        """Return what an operator must correct; an outage of the API server is no such problem."""
        return (self._trouble,) if self._unauthorised else ()

    def decisions(self) -> Sequence[tuple[Use, bool, float]]:
        """Return all decisions with their ages in seconds, for `/debug`."""
        now = self._clock.monotonic()
        return [(use, each.allowed, now - each.asked) for use, each in self._decisions.items()]

    async def close(self) -> None:
        await end_all(self._flights.values())

    def _flight(self, use: Use) -> asyncio.Task[bool]:
        flight = self._flights.get(use)
        if flight is None:
            flight = self._flights[use] = asyncio.create_task(self._decide(use))
            flight.add_done_callback(lambda done: self._landed(use, done))
        return flight

    def _landed(self, use: Use, flight: asyncio.Task[bool]) -> None:
        del self._flights[use]
        self._doubted.discard(use)
        if not flight.cancelled():
            # A renewal in the background has no listener; its failure has been logged.
            flight.exception()

    async def _decide(self, use: Use) -> bool:
        before = self._decisions.get(use)
        asked = 0.0

        async def ask() -> bool:
            nonlocal asked
            async with self._renewed_at_once if before else self._at_once:
                self._sent[use] = asked = self._clock.monotonic()
                try:
                    answer = await self._server.ask(PATH, review(use))
                finally:
                    del self._sent[use]
            self._heard = self._clock.monotonic()
            self._doubted.add(use)
            return parse_review(answer)

        try:
            allowed = await confirmed(
                ask,
                self._clock,
                before=before.allowed if before else None,
                was_forbidden=self._unauthorised,
            )
        except (KubeError, InconclusiveReview) as error:
            return self._last(use, self._failed(error))
        if self._trouble:
            _log.info("the API server answers SubjectAccessReviews again")
        self._trouble, self._unauthorised = "", False
        self._keep(use, allowed, asked)
        return allowed

    def _keep(self, use: Use, allowed: bool, asked: float) -> None:
        renew_at = fresh_until = self._clock.monotonic() + DENIED
        if allowed:
            # Half of its time and up to a quarter more, so that renewals spread.
            renew_at = asked + ALLOWED * (0.5 + self._jitter() / 4)
            fresh_until = asked + ALLOWED
        before = self._decisions.get(use)
        if before is not None and before.allowed is not allowed:
            self.revision += 1
        kept = _Decision(allowed, asked=asked, renew_at=renew_at, fresh_until=fresh_until)
        self._decisions.put(use, kept, use.service_account.namespace)

    def _last(self, use: Use, error: NotReady, longest: float = ALLOWED) -> bool:
        """Return the last decision, and prolong it; raise `error` if it is too old or missing."""
        decision = self._decisions.get(use)
        now = self._clock.monotonic()
        last = decision.asked + self._outlives if decision else now
        if decision is None or now >= last:
            self._decisions.drop(use)
            raise error
        decision.renew_at = now + DENIED
        decision.fresh_until = min(last, now + (longest if decision.allowed else DENIED))
        return decision.allowed

    def _failed(self, error: KubeError | InconclusiveReview) -> NotReady:
        self._unauthorised = isinstance(error, KubeError) and error.forbidden
        trouble = str(error)
        if self._unauthorised:
            trouble = f"NMI may not check permissions to use identities: its role lacks {RULE}"
        if trouble != self._trouble:
            _log.error("%s; earlier decisions stand", trouble)
        self._trouble = trouble
        return NotReady(
            trouble
            if self._unauthorised
            else "the API server cannot be asked whether the pod's "
            "service account may use the identity"
        )
