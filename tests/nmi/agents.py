"""NMI's routes on loopback, with fakes behind them: the pod is whoever connects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from podidentity.nmi.request.decision import DecisionPolicy
from podidentity.nmi.request.hold import HoldTimes
from podidentity.nmi.server.listener import Listener
from tests.fakes import (
    FakeAttestor,
    FakeClock,
    FakePermissions,
    FakeTokenSource,
    binding,
    cluster,
    identity,
    pod,
)
from tests.nmi.metadata import FakeMetadata
from tests.nmi.recorded import Recorded
from tests.nmi.talking import Reply, listening, talking
from tests.nmi.wiring import pipeline_over


class Agent:
    """An agent whose one pod, `shop/orders-0`, has the address of the test."""

    def __init__(
        self,
        *objects: Any,
        tenant_array: bool = False,
        deciding: DecisionPolicy | None = None,
        attestor: FakeAttestor | None = None,
        **policy: Any,
    ) -> None:
        self.clock = FakeClock()
        found = objects or (pod(addresses=("127.0.0.1",)), identity(), binding())
        self.cluster = cluster(self.clock, *found)
        self.tokens = FakeTokenSource()
        self.permissions = FakePermissions()
        self.attestor = attestor or FakeAttestor()
        self.metadata = FakeMetadata()
        policy_ = deciding or DecisionPolicy(hold=HoldTimes(change=0), tenant_array=tenant_array)
        self.record = Recorded(self.clock)
        self.pipeline = pipeline_over(
            self.cluster,
            self.clock,
            attestor=self.attestor,
            permissions=self.permissions,
            tokens=self.tokens,
            decider=policy_,
            metadata=self.metadata,
            record=self.record,
            **policy,
        )
        self.listener: Listener

    async def ask(self, request: str) -> Reply:
        """Send a request as text, its lines without their ends."""
        lines = [line.strip() for line in request.splitlines() if line.strip()]
        async with talking(self.listener) as talk:
            return await talk.ask("\r\n".join([*lines, "", ""]).encode("latin-1"))


@asynccontextmanager
async def agent(*objects: Any, **policy: Any) -> AsyncIterator[Agent]:
    """Run an agent."""
    found = Agent(*objects, **policy)
    async with listening(found.pipeline) as listener:
        found.listener = listener
        yield found
