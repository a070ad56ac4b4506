"""The service with fakes behind all its ports, and ways to ask it."""

from __future__ import annotations

import asyncio
from typing import Any

from podidentity.core.errors import (
    Refused,
)
from podidentity.core.refusals import Reason
from podidentity.core.tokens import TokenRequest
from podidentity.nmi.request.caller import Callers
from podidentity.nmi.request.decision import Policy, TokenService
from podidentity.nmi.request.outcome import Outcome
from podidentity.nmi.server.messages import Caller
from tests.fakes import (
    ADDRESS,
    NOW,
    VAULT,
    FakeAttestor,
    FakeClock,
    FakePermissions,
    FakeTokenSource,
    cluster,
)

REQUEST = TokenRequest(resource=VAULT)
OLD = NOW - 3600


class World:
    """A service with fakes behind all its ports."""

    def __init__(self, *objects: Any, **policy: Any) -> None:
        self.clock = FakeClock()
        self.cluster = cluster(self.clock, *objects)
        self.tokens = FakeTokenSource()
        self.permissions = FakePermissions()
        self.attestor = FakeAttestor()
        self.policy = Policy(**policy)
        self.caller = Caller(ADDRESS, 40_000)

    def callers(self, *, attested: bool = True) -> Callers:
        return Callers(self.cluster, self.attestor if attested else None, self.clock)

    def service(self, *, attested: bool = True) -> TokenService:
        return TokenService(
            cluster=self.cluster,
            tokens=self.tokens,
            permissions=self.permissions,
            attestor=self.attestor if attested else None,
            clock=self.clock,
            policy=self.policy,
        )

    async def ask(self, request: TokenRequest = REQUEST, *, attested: bool = True) -> Outcome:
        return await self.service(attested=attested).answer(self.caller, request)

    async def asking(self, request: TokenRequest = REQUEST) -> asyncio.Task[Outcome]:
        """Return a request that waits for something."""
        task = asyncio.create_task(self.ask(request))
        await self.clock.somebody_sleeps()
        return task


def reason(outcome: Outcome) -> Reason:
    assert isinstance(outcome.error, Refused), outcome.error
    return outcome.error.refusal.reason
