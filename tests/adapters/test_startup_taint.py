"""When NMI takes the start-up taint off its node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from podidentity.adapters.startup_taint import AGAIN, LATER, SOON, StartupTaint
from podidentity.wire.kube import KubeError
from tests.fakes import FakeClock, FakeKubeApi

KEY = "aadpodidentity.k8s.io/agent-not-ready"
OURS = {"key": KEY, "effect": "NoSchedule"}
OTHERS = {"key": "gpu", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}
CONFLICT = KubeError("changed meanwhile", status=409, reason="Conflict")
FORBIDDEN = KubeError("nodes is forbidden", status=403, reason="Forbidden")


class Server(FakeKubeApi):
    """Keeps one node."""

    def __init__(self, *taints: dict[str, str]) -> None:
        self.taints = list(taints)
        self.failures: list[KubeError] = []
        self.asked = 0
        self.body = b""
        """Its answer in place of the node."""

    async def get(self, path: str) -> bytes:
        assert path == "/api/v1/nodes/n1"
        self.asked += 1
        spec = {"taints": self.taints} if self.taints else {}
        node = {"metadata": {"resourceVersion": "7"}, "spec": spec}
        return self.body or json.dumps(node).encode()

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        assert path == "/api/v1/nodes/n1"
        assert body.keys() == {"metadata", "spec"}
        assert body["metadata"] == {"resourceVersion": "7"}
        if self.failures:
            raise self.failures.pop(0)
        self.taints = body["spec"]["taints"] or []
        return b"{}"


class World:
    def __init__(self, *taints: dict[str, str]) -> None:
        self.clock = FakeClock()
        self.server = Server(*taints)
        self.ready = True
        self.taint = StartupTaint(
            self.server, self.clock, node="n1", key=KEY, ready=lambda: self.ready
        )

    async def pause(self) -> float:
        """Return how long it sleeps now."""
        await self.clock.somebody_sleeps()
        return self.clock.slept[-1]

    async def advance(self, seconds: float) -> None:
        """Let the time pass, and return when it sleeps again."""
        self.clock.advance(seconds)
        # One turn of the loop for whoever wakes; the server of this test answers without a pause.
        await asyncio.sleep(0)
        await self.clock.somebody_sleeps()


@asynccontextmanager
async def running(*taints: dict[str, str], ready: bool = True) -> AsyncIterator[World]:
    world = World(*taints)
    world.ready = ready
    task = asyncio.create_task(world.taint.run())
    yield world
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_while_nmi_is_not_ready_the_node_is_not_even_read() -> None:
    async with running(OURS, ready=False) as world:
        for _ in range(3):
            assert await world.pause() == SOON
            await world.advance(SOON)
        assert world.server.asked == 0
        world.ready = True
        await world.advance(SOON)
        assert await world.pause() == LATER
        assert world.server.taints == []


async def test_the_other_taints_stay_as_they_are() -> None:
    async with running(OTHERS, OURS, {**OURS, "effect": "NoExecute"}) as world:
        await world.pause()
        assert world.server.taints == [OTHERS]
        assert world.taint.warnings() == ()


async def test_a_taint_that_comes_back_goes_again() -> None:
    async with running() as world:
        assert await world.pause() == LATER
        world.server.taints = [OURS]
        await world.advance(LATER)
        await world.pause()
        assert world.server.taints == []


async def test_where_somebody_changes_the_node_at_the_same_time_it_reads_it_again() -> None:
    world = World(OURS)
    world.server.failures = [CONFLICT]
    assert not await world.taint.look()
    assert world.taint.warnings() == ()
    assert await world.taint.look()
    assert (world.server.taints, world.server.asked) == ([], 2)


async def test_a_refusal_is_said_with_what_mends_it_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(OURS) as world:
        world.server.failures = [FORBIDDEN, FORBIDDEN]
        assert await world.pause() == AGAIN
        (said,) = world.taint.warnings()
        assert said == (
            f"the start-up taint {KEY} cannot be taken off node n1 (nodes is forbidden), so no pod "
            "may be placed there; run podidentity enable --startup-taint with the same key"
        )
        await world.advance(AGAIN)
        await world.pause()
        assert [each.message for each in caplog.records] == [said], "it is logged once"
        await world.advance(AGAIN)
        assert await world.pause() == LATER
        assert world.taint.warnings() == ()


async def test_an_answer_that_is_no_node_changes_nothing() -> None:
    world = World(OURS)
    world.server.body = b'{"kind":"Status"}'
    assert not await world.taint.look()
    assert "sent no Node" in world.taint.warnings()[0]
