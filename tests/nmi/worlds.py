"""The service with fakes behind all its ports, and ways to ask it."""

from __future__ import annotations

import asyncio
from typing import Any

from podidentity.core.attestation import Trust
from podidentity.core.delegation import Delegation
from podidentity.core.errors import PodIdentityError, Refused
from podidentity.core.refusals import Reason
from podidentity.core.resources import TokenRequest
from podidentity.nmi.request.caller import Callers
from podidentity.nmi.request.decision import Decider, DecisionPolicy, Granted, Outcome
from podidentity.nmi.request.pipeline import RequestPipeline
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
from tests.nmi.wiring import pipeline_over

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
        self.policy = DecisionPolicy(**policy)
        self.delegation = Delegation()
        self.trust = Trust()
        self.caller = Caller(ADDRESS, 40_000)

    def callers(self, *, attested: bool = True) -> Callers:
        attestor = self.attestor if attested else None
        return Callers(self.cluster, attestor, self.clock, trust=self.trust)

    def decider(self) -> Decider:
        return Decider(
            cluster=self.cluster,
            permissions=self.permissions,
            clock=self.clock,
            policy=self.policy,
        )

    def pipeline(self, decider: Decider, *, attested: bool = True) -> RequestPipeline:
        return pipeline_over(
            self.cluster,
            self.clock,
            attestor=self.attestor if attested else None,
            permissions=self.permissions,
            tokens=self.tokens,
            decider=decider,
            delegation=self.delegation,
        )

    async def ask(
        self,
        request: TokenRequest = REQUEST,
        *,
        attested: bool = True,
        decider: Decider | None = None,
    ) -> Outcome:
        """Return the outcome of the pipeline's steps from the caller to the token."""
        pipeline = self.pipeline(decider or self.decider(), attested=attested)
        begun = self.clock.monotonic()
        subject = await self.callers(attested=attested).identify(self.caller)
        return await pipeline.outcome(subject, request, self.policy.ambiguity, begun=begun)

    async def asking(self, request: TokenRequest = REQUEST) -> asyncio.Task[Outcome]:
        """Return a request that waits for something."""
        task = asyncio.create_task(self.ask(request))
        await self.clock.somebody_sleeps()
        return task


def error_of(outcome: Outcome) -> PodIdentityError:
    assert not isinstance(outcome, Granted), outcome
    return outcome.error


def reason(outcome: Outcome) -> Reason:
    error = error_of(outcome)
    assert isinstance(error, Refused), error
    return error.refusal.reason
