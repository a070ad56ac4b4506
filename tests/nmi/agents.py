"""NMI's routes on loopback, with fakes behind them: the pod is whoever connects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from podidentity.core.delegation import Delegation
from podidentity.core.errors import TokenSourceDown
from podidentity.core.rate_limits import Flow
from podidentity.nmi.request.decision import Policy, TokenService
from podidentity.nmi.request.host_token import HostTokenService
from podidentity.nmi.request.patience import Patience
from podidentity.nmi.request.routes import RoutePolicy, Routes
from podidentity.nmi.server.listener import Listener
from podidentity.wire.metadata import AllowList
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
from tests.nmi.recorded import Recorded
from tests.nmi.talking import Reply, listening, talking


@dataclass
class Passed:
    """An answer of the real service."""

    status: int = 200
    content_type: str = "application/json"
    body: bytes = b'{"compute":{"vmId":"v","userData":"c2VjcmV0"}}'


@dataclass
class FakeMetadata:
    """The real service, for what is passed on."""

    passed: Passed = field(default_factory=Passed)
    down: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def metadata(self, target: str, accept: str, flow: Flow) -> Passed:
        del flow
        self.asked.append((target, accept))
        if self.down:
            raise TokenSourceDown("IMDS did not answer within 10 s")
        return self.passed


class Agent:
    """An agent whose one pod, `shop/orders-0`, has the address of the test."""

    def __init__(
        self,
        *objects: Any,
        tenant_array: bool = False,
        deciding: Policy | None = None,
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
        service = TokenService(
            cluster=self.cluster,
            tokens=self.tokens,
            permissions=self.permissions,
            attestor=self.attestor,
            clock=self.clock,
            policy=deciding or Policy(patience=Patience(hold=0), tenant_array=tenant_array),
        )
        route_policy = RoutePolicy(**({"allow": AllowList()} | policy))
        host = HostTokenService(
            service,
            cluster=self.cluster,
            attestor=self.attestor,
            clock=self.clock,
            delegation=Delegation(),
        )
        self.record = Recorded(self.clock)
        self.routes = Routes(
            service,
            host,
            self.metadata,
            clock=self.clock,
            policy=route_policy,
            record=self.record.record,
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
    async with listening(found.routes) as listener:
        found.listener = listener
        yield found
