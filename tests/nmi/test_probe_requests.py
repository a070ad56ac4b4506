from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from podidentity.core.data_path import Hop, ProbeResult
from podidentity.core.resources import ObjectRef, Phase
from podidentity.nmi.probe_requests import ProbeRequests
from tests.fakes import FakeClock, cluster, pod
from tests.nmi.test_events import Board
from tests.nmi.test_path_watch import FakeProber

OWN = pod("nmi-x", ref=ObjectRef("kube-system", "nmi-x"), addresses=())
TENANT = pod(addresses=("fd00::7", "10.244.0.7"))
NUMBER = "0123456789abcdef"


class Place:
    def __init__(self, *pods: Any) -> None:
        clock = FakeClock()
        self.prober, self.board = FakeProber(), Board()
        self.cluster = cluster(clock, OWN, *pods)
        own = lambda: self.cluster.pod(OWN.ref)  # noqa: E731 - as the agent's
        self.requests = ProbeRequests(
            self.prober, self.cluster, self.board, clock, own=own, node="n1"
        )

    async def ask(self, question: str) -> None:
        """Annotate the agent's pod."""
        self.cluster.put_pod(replace(OWN, probe=question))
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(body["reason"], body["message"]) for _, _, body in self.board.sent]


@asynccontextmanager
async def place(*pods: Any) -> AsyncIterator[Place]:
    found = Place(*pods)
    task = asyncio.create_task(found.requests.run())
    await asyncio.sleep(0)
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_question_is_a_probe_from_that_pod_and_its_answer_an_event_of_that_number() -> None:
    async with place(TENANT) as here:
        await here.ask(f"{NUMBER} shop/orders-0")
        assert here.prober.probed == [("10.244.0.7", "")]
        ((verb, path, body),) = here.board.sent
    assert (verb, path) == ("create", "/api/v1/namespaces/kube-system/events")
    assert body["metadata"]["name"] == f"podidentity-probe.{NUMBER}"
    assert body["involvedObject"]["name"] == "nmi-x"
    assert (body["type"], body["reason"]) == ("Normal", "ProbeArrived")
    assert body["message"].endswith("its answer at the pod (bridge)")


async def test_a_question_is_answered_once() -> None:
    async with place(TENANT) as here:
        for _ in range(3):
            await here.ask(f"{NUMBER} shop/orders-0")
            here.cluster.put_pod(replace(TENANT, ref=ObjectRef("shop", "another")))
        assert len(here.board.sent) == 1
        await here.ask(f"{NUMBER[::-1]} shop/orders-0")
        assert len(here.board.sent) == 2


async def test_what_did_not_arrive_is_told_with_the_next_step() -> None:
    async with place(TENANT) as here:
        here.prober.result = ProbeResult(hop=Hop.NO_ANSWER, detail="connection refused")
        await here.ask(f"{NUMBER} shop/orders-0")
        ((reason, message),) = here.told
    assert reason == "ProbeLost"
    what, _, step = message.partition("; ")
    assert what == "a request from the pod got no answer (connection refused)"
    assert step.startswith("let pods out to 169.254.169.254/32")


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (None, "pod shop/orders-0 is not on node n1"),
        (replace(TENANT, host_network=True), "the pod is in the node's network"),
        (replace(TENANT, phase=Phase.SUCCEEDED), "the pod is Succeeded, and has no network"),
        (replace(TENANT, addresses=()), "the pod is Running, and has no network"),
    ],
)
async def test_a_pod_that_cannot_be_probed_is_told_and_nothing_is_sent(
    there: Any, why: str
) -> None:
    async with place(*([there] if there else [])) as here:
        await here.ask(f"{NUMBER} shop/orders-0")
        assert here.prober.probed == []
        ((reason, message),) = here.told
    assert reason == "ProbeNotSent"
    assert why in message


@pytest.mark.parametrize(
    "question",
    [
        "",
        "shop/orders-0",
        f"{NUMBER}",
        f"{NUMBER} shop/orders-0 and more",
        f"{NUMBER}/../x shop/orders-0",
        f"{NUMBER} ../orders-0",
        f"{NUMBER.upper()} shop/orders-0",
        f"{NUMBER} shop/{'x' * 254}",
    ],
)
async def test_what_is_no_question_is_nothing(question: str) -> None:
    async with place(TENANT) as here:
        await here.ask(question)
        assert (here.prober.probed, here.board.sent) == ([], [])


async def test_the_annotation_of_a_tenants_pod_asks_nothing() -> None:
    async with place(replace(TENANT, probe=f"{NUMBER} shop/orders-0")) as here:
        await here.ask("")
        assert (here.prober.probed, here.board.sent) == ([], [])
