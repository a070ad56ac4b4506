"""What the cluster's RBAC says, asked rarely: a core.ports.Permissions over SubjectAccessReviews.

    asked ──── given ────────────────┬─ asked anew while given ─┬─ asked before it is given
             allowed: 60 s           │ from half of that time   │
             denied:   5 s           └──────────────────────────┘

A permission that is in use is renewed behind the requests' backs, so that only its first one
waits. A permission that is taken back counts for a minute at most; one that is given counts within
five seconds. While nobody can be asked the last decision stands, `OUTLIVES` at most: who has a
token keeps it for up to a day anyway, and a control plane that is away must not stop what runs.
Nothing known and nobody to ask is a NotReady.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podidentity.core.errors import NotReady
from podidentity.core.permission import Use
from podidentity.core.ports import Clock
from podidentity.wire.kube import KubeApi, KubeError
from podidentity.wire.reviews import PATH, RULE, InconclusiveReview, parse_review, review

ALLOWED = 60.0
"""Seconds that a permission counts without a question."""
DENIED = 5.0
"""Seconds that a refusal does: somebody may be about to mend it."""
OUTLIVES = 12 * 3600.0
"""Seconds that a decision stands while nobody can be asked: a night, until somebody is there."""
PATIENCE = 3.0
"""Seconds that a request waits for the API server: an older decision is better than none."""
CAPACITY = 10_000
"""Decisions kept: more than any node has pairs of service account and identity."""
AT_ONCE = 8
"""Questions under way, so that a node's start is no burst on the API server."""

_log = logging.getLogger("podidentity.permissions")


@dataclass(slots=True)
class _Decision:
    allowed: bool
    asked: float
    """When it was made, in monotonic seconds, as all of these."""
    renewed: float
    """From when on it is asked for anew while it is given."""
    counts: float
    """Until when it is given without a question."""


class RbacPermissions:
    """Decisions of the API server, kept for a while. Close it when done."""

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
        self._decisions: OrderedDict[Use, _Decision] = OrderedDict()
        self._flights: dict[Use, asyncio.Task[bool]] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._trouble = ""
        self._unauthorised = False
        self.revision = 0
        """Grows when a decision turns into its opposite; time is seen by `known` alone."""

    def known(self, use: Use) -> bool | None:
        """Return the decision if it still counts; costs a look-up."""
        decision = self._decisions.get(use)
        if decision is None:
            return None
        now = self._clock.monotonic()
        if now >= decision.counts:
            return None
        if now >= decision.renewed:
            self._flight(use)
        return decision.allowed

    async def ask(self, use: Use) -> bool:
        """Return the decision, asking once however many wait; raise NotReady."""
        flight = self._flight(use)
        patience = asyncio.ensure_future(self._clock.sleep(PATIENCE))
        try:
            await asyncio.wait({flight, patience}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            patience.cancel()
        if not flight.done():
            return self._standing(use, NotReady("the API server does not say in time"))
        return flight.result()

    def problems(self) -> Sequence[str]:
        """Return what an operator must mend; an absence of the API server is none."""
        return (self._trouble,) if self._unauthorised else ()

    def decisions(self) -> Sequence[tuple[Use, bool, float]]:
        """Return what was decided, and how many seconds ago, for who looks on."""
        now = self._clock.monotonic()
        return [(use, each.allowed, now - each.asked) for use, each in self._decisions.items()]

    async def close(self) -> None:
        """End the questions under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _flight(self, use: Use) -> asyncio.Task[bool]:
        flight = self._flights.get(use)
        if flight is None:
            flight = self._flights[use] = asyncio.create_task(self._decide(use))
            flight.add_done_callback(lambda done: self._landed(use, done))
        return flight

    def _landed(self, use: Use, flight: asyncio.Task[bool]) -> None:
        del self._flights[use]
        if not flight.cancelled():
            # Behind the requests' backs nobody listens; it has been logged.
            flight.exception()

    async def _decide(self, use: Use) -> bool:
        try:
            async with self._at_once:
                allowed = parse_review(await self._server.create(PATH, review(use)))
        except (KubeError, InconclusiveReview) as error:
            return self._standing(use, self._failed(error))
        self._recovered()
        self._keep(use, allowed)
        return allowed

    def _keep(self, use: Use, allowed: bool) -> None:
        now = self._clock.monotonic()
        # Half of its time, and up to a quarter more: not all at once what was asked at once.
        renewed = now + ALLOWED * (0.5 + self._jitter() / 4) if allowed else now + DENIED
        before = self._decisions.get(use)
        if before is not None and before.allowed is not allowed:
            self.revision += 1
        counts = now + (ALLOWED if allowed else DENIED)
        self._decisions[use] = _Decision(allowed, asked=now, renewed=renewed, counts=counts)
        self._decisions.move_to_end(use)
        while len(self._decisions) > CAPACITY:
            self._decisions.popitem(last=False)

    def _standing(self, use: Use, error: NotReady) -> bool:
        """Return the last decision, and let it count a little longer; else raise `error`."""
        decision = self._decisions.get(use)
        now = self._clock.monotonic()
        last = decision.asked + self._outlives if decision else now
        if decision is None or now >= last:
            self._decisions.pop(use, None)
            raise error
        decision.renewed = now + DENIED
        decision.counts = min(last, now + (ALLOWED if decision.allowed else DENIED))
        return decision.allowed

    def _failed(self, error: KubeError | InconclusiveReview) -> NotReady:
        self._unauthorised = isinstance(error, KubeError) and error.forbidden
        trouble = str(error)
        if self._unauthorised:
            trouble = f"NMI may not ask who may use which identity: its role lacks {RULE}"
        if trouble != self._trouble:
            _log.error("%s; what was decided before stands", trouble)
        self._trouble = trouble
        return NotReady(
            trouble
            if self._unauthorised
            else "the API server cannot be asked whether the pod's "
            "service account may use the identity"
        )

    def _recovered(self) -> None:
        if self._trouble:
            _log.info("the API server says again who may use which identity")
        self._trouble, self._unauthorised = "", False
