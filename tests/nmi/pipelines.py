"""The request pipeline over fakes and the real token cache, with its memo, and changes to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from podidentity.adapters.token_cache import TokenCache
from podidentity.core.resources import BINDING_LABEL, ClientId, IdentityType, Phase
from podidentity.nmi.reporting.request_log import AuditLog
from podidentity.nmi.request.decision import DecisionPolicy
from podidentity.nmi.request.hold import HoldTimes
from podidentity.nmi.request.pipeline import AnswerCache
from podidentity.nmi.server.messages import LATER, Caller, KnownAnswer, Request, Waiting, render
from tests.fakes import (
    ADDRESS,
    OTHER_CLIENT,
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
from tests.nmi.wiring import pipeline_over

TOKEN = b"/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
PLAIN = [(b"Host", b"169.254.169.254"), (b"Metadata", b"true")]


class World:
    """The request pipeline over fakes and the real token cache, with its memo."""

    def __init__(
        self,
        audit: AuditLog | None = None,
        *,
        attestor: FakeAttestor | None = None,
        **policy: Any,
    ) -> None:
        self.clock = FakeClock()
        self.cluster = cluster(self.clock, pod(), identity(), binding())
        self.permissions, self.attestor = FakePermissions(), attestor or FakeAttestor()
        self.attestor.uid = pod().uid
        self.source = FakeTokenSource(life=4)
        self.source.now = self.clock.time
        self.tokens = TokenCache(dict.fromkeys(IdentityType, self.source), self.clock)
        self.record = Recorded(self.clock, audit)
        self.answers = AnswerCache(self.cluster, self.permissions, self.clock)
        self.pipeline = pipeline_over(
            self.cluster,
            self.clock,
            attestor=self.attestor,
            permissions=self.permissions,
            tokens=self.tokens,
            decider=DecisionPolicy(hold=HoldTimes(change=0), **policy),
            answers=self.answers,
            record=self.record,
            recorded_first=audit is not None and audit.required,
        )
        self.caller = Caller(ADDRESS, 1)

    def request(self, target: bytes = TOKEN, **more: Any) -> Request:
        fields: dict[str, Any] = {"method": "GET", "fields": PLAIN} | more
        raw = repr((target, fields)).encode()
        return Request(self.caller, raw_target=target, raw=raw, **fields)

    def remembered(self, request: Request | None = None) -> bytes | None:
        """Return what the memo answers at once to the request's bytes."""
        request = request or self.request()
        return _bytes(self.pipeline.by_bytes(request.caller, request.raw, _nobody_waits))

    async def remembered_later(self) -> bytes | None:
        """Return what the memo answers once the connection has been asked about."""
        request = self.request()
        answered: asyncio.Future[KnownAnswer | None] = asyncio.get_running_loop().create_future()
        found = self.pipeline.by_bytes(request.caller, request.raw, answered.set_result)
        assert found is LATER
        return _bytes(await answered)

    async def decide(self, request: Request) -> bytes:
        """Return the answer of a decision; whoever waits for something waits in vain."""
        deciding = asyncio.ensure_future(self.pipeline(request))
        while not deciding.done():
            sleeping = asyncio.ensure_future(self.clock.somebody_sleeps())
            await asyncio.wait({deciding, sleeping}, return_when=asyncio.FIRST_COMPLETED)
            sleeping.cancel()
            if not deciding.done():
                self.clock.advance(2)
        return render(deciding.result(), stays=request.keep_alive)

    async def decide_anew(self, request: Request) -> bytes:
        """Return the answer of a decision that remembers nothing."""
        remembered = self.pipeline._answers
        self.pipeline._answers = AnswerCache(self.cluster, self.permissions, self.clock)
        try:
            return await self.decide(request)
        finally:
            self.pipeline._answers = remembered

    def decider_must_rest(self) -> None:
        """Fail the test at the next decision."""
        self.pipeline.outcome = None  # type: ignore[assignment, method-assign]

    async def warm(self) -> bytes:
        """Ask until it is kept; return the answer."""
        await self.decide(self.request())
        return await self.decide(self.request())


def _nobody_waits(known: KnownAnswer | None) -> None:
    del known


def _bytes(known: KnownAnswer | Waiting | None) -> bytes | None:
    if not isinstance(known, KnownAnswer):
        return None
    return known.kept if known.keep_alive else known.last


def remove_pod(world: World) -> None:
    world.cluster.remove_pod(pod().ref)


def relabel(world: World) -> None:
    world.cluster.put_pod(pod(labels={BINDING_LABEL: "other"}))


def end_pod(world: World) -> None:
    world.cluster.put_pod(pod(phase=Phase.SUCCEEDED))


def address_to_another(world: World) -> None:
    world.cluster.put_pod(pod(addresses=("10.244.0.99",)))
    world.cluster.put_pod(pod("carts-0"))


def remove_binding(world: World) -> None:
    world.cluster.remove("AzureIdentityBinding", binding().ref)


def remove_identity(world: World) -> None:
    world.cluster.remove("AzureIdentity", identity().ref)


def change_identity(world: World) -> None:
    world.cluster.put(identity(client_id=ClientId.parse(OTHER_CLIENT)))


def forbid(world: World) -> None:
    world.permissions.allowed = dict.fromkeys(world.permissions.allowed, False)
    world.permissions.default = False
    world.permissions.revision += 1


def restore(world: World) -> None:
    world.cluster.remove_pod(pod("carts-0").ref)
    world.cluster.put_pod(pod())
    world.cluster.put(identity())
    world.cluster.put(binding())
    world.permissions.allowed, world.permissions.default = {}, True
    world.permissions.revision += 1


TAKEN_AWAY: list[Callable[[World], None]] = [
    remove_pod,
    relabel,
    end_pod,
    address_to_another,
    remove_binding,
    remove_identity,
    forbid,
]
CHANGES = [*TAKEN_AWAY, change_identity, restore, restore]
