from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from podidentity.mic.pages import AT_ONCE, PageServer, probes, scrapes
from podidentity.telemetry.metrics import Registry


class State:
    def __init__(self) -> None:
        self.leads = False
        self.wrong: list[str] = []


@asynccontextmanager
async def serving(state: State, *, seconds: float = 5.0) -> AsyncIterator[int]:
    registry = Registry()
    registry.gauge("podidentity_mic_leading", "text", lambda: [((), float(state.leads))])
    pages = {
        **probes(
            leading=lambda: state.leads,
            checks={"lease": lambda: state.wrong},
            said=lambda: {"leader": "mic-2"},
        ),
        **scrapes(registry),
    }
    server = await PageServer(pages, seconds=seconds).serve(0, "127.0.0.1")
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, text: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, body


async def get(port: int, path: str) -> tuple[int, bytes]:
    return await ask(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


async def test_healthz_says_who_leads_and_is_always_200() -> None:
    state = State()
    async with serving(state) as port:
        assert await get(port, "/healthz") == (200, b"Not Active")
        state.leads = True
        state.wrong = ["no right"]
        assert await get(port, "/healthz?x=1") == (200, b"Active")


async def test_readyz_says_what_is_wrong() -> None:
    state = State()
    async with serving(state) as port:
        status, body = await get(port, "/readyz")
        found: dict[str, Any] = json.loads(body)
        assert (status, found["checks"], found["leader"]) == (200, {"lease": "ok"}, "mic-2")
        state.wrong = ["no right"]
        status, body = await get(port, "/readyz")
        assert (status, json.loads(body)["checks"]) == (503, {"lease": ["no right"]})


async def test_metrics_are_prometheus_text() -> None:
    async with serving(State()) as port:
        status, body = await get(port, "/metrics")
        assert status == 200
        assert b"podidentity_mic_leading 0\n" in body


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"\x00\xff\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 404),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 400),
        (b"HEAD /healthz HTTP/1.1\r\n\r\n", 200),
    ],
)
async def test_strange_requests_are_answered_and_harm_nothing(text: bytes, status: int) -> None:
    async with serving(State()) as port:
        answered, body = await ask(port, text)
        assert answered == status
        if text.startswith(b"HEAD"):
            assert not body
        assert (await get(port, "/healthz"))[0] == 200


async def test_who_holds_all_places_loses_one_to_each_who_comes() -> None:
    """Else a pod keeps the kubelet's probe from MIC, and the kubelet restarts it."""
    async with serving(State(), seconds=60.0) as port:
        silent = [
            await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
            for _ in range(3 * AT_ONCE)
        ]
        for _ in range(3):
            assert (await get(port, "/healthz"))[0] == 200
        for _, writer in silent:
            writer.close()


async def test_who_comes_when_each_place_is_anothers_takes_the_oldest() -> None:
    async with serving(State(), seconds=60.0) as port:
        silent = [
            await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.1.{each}", 0))
            for each in range(1, AT_ONCE + 1)
        ]
        assert (await get(port, "/healthz"))[0] == 200
        assert await silent[0][0].read() == b""
        for _, writer in silent:
            writer.close()


async def test_who_sends_nothing_is_left_and_who_opens_many_gets_none() -> None:
    async with serving(State(), seconds=1.0) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(AT_ONCE + 5)]
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
        assert (await get(port, "/healthz"))[0] == 200
