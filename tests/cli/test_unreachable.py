from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from podidentity.cli.connection import Waiting
from tests.cli.binding import Run
from tests.cli.world import World


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["explain", "pod", "default/x"], ["enable"], ["disable"]],
    ids=lambda value: value[0],
)
def test_an_api_server_that_is_away_is_named(
    arguments: list[str], podidentity: Run, tmp_path: Any
) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: c}}],"
        " clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]}"
    )
    ran = podidentity(*arguments, "--kubeconfig", str(kubeconfig))
    assert ran.code == 1
    assert "https://127.0.0.1:1 cannot be asked: Connection refused." in ran.err
    assert "Check --kubeconfig and --context." in ran.err


def test_a_kubeconfig_that_is_missing_is_named(podidentity: Run) -> None:
    ran = podidentity("list", "--kubeconfig", "/no/such/file")
    assert ran.code == 1
    assert "/no/such/file" in ran.err


def test_an_unknown_context_is_named(world: World, podidentity: Run) -> None:
    ran = podidentity("list", "--kubeconfig", str(world.plan.kubeconfig), "--context", "moon")
    assert ran.code == 1
    assert "moon" in ran.err


class Overloaded(BaseHTTPRequestHandler):
    """An API server whose priority and fairness turns everybody away."""

    def do_GET(self) -> None:
        text = b"Too many requests, please try again later.\n"
        self.send_response(429)
        self.send_header("Retry-After", "31")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def overloaded() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Overloaded)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_api_server_that_stays_overloaded_is_said_to_be_so(
    overloaded: str, podidentity: Run, tmp_path: Any
) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: c}}],"
        f" clusters: [{{name: c, cluster: {{server: '{overloaded}'}}}}]}}"
    )
    ran = podidentity("list", "--kubeconfig", str(kubeconfig))
    assert ran.code == 1
    assert "(429): Too many requests, please try again later." in ran.err
    assert "The API server is overloaded: try again later." in ran.err


async def test_a_request_without_an_answer_is_named_every_five_seconds() -> None:
    said: list[str] = []
    now = 0.0
    waiting = Waiting(lambda: now, said.append)

    async def sleep(seconds: float) -> None:
        nonlocal now
        if now >= 15:
            raise asyncio.CancelledError
        now += seconds

    with waiting.of("get pods web"), pytest.raises(asyncio.CancelledError):
        await waiting.tell(sleep)
    assert said == [
        f"still waiting for the API server ({seconds} s): get pods web" for seconds in (5, 10, 15)
    ]


async def test_requests_that_are_answered_soon_are_not_named() -> None:
    said: list[str] = []
    now = 0.0
    waiting = Waiting(lambda: now, said.append)
    request = ExitStack()

    async def sleep(seconds: float) -> None:
        nonlocal now
        request.close()
        if now >= 15:
            raise asyncio.CancelledError
        now += seconds - 1
        request.enter_context(waiting.of("get pods web"))
        now += 1

    with pytest.raises(asyncio.CancelledError):
        await waiting.tell(sleep)
    assert said == []


async def test_a_row_of_slow_answers_is_told_every_five_seconds() -> None:
    said: list[str] = []
    now = 0.0
    waiting = Waiting(lambda: now, said.append)
    request = ExitStack()

    async def sleep(seconds: float) -> None:
        nonlocal now
        if now >= 15:
            raise asyncio.CancelledError
        for _ in range(round(seconds)):
            if now % 2 == 0:
                request.close()
                request.enter_context(waiting.of(f"get pods web-{now:.0f}"))
            now += 1

    with pytest.raises(asyncio.CancelledError):
        await waiting.tell(sleep)
    assert said == [
        "the API server is slow (2 s for an answer), asked now: get pods web-4",
        "still waiting for the API server (2 s): get pods web-8",
        "the API server is slow (2 s for an answer), asked now: get pods web-14",
    ]
