"""A worker accepts when it is told, reports, and loses no request when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import cast

import pytest

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.net import NetClient
from podidentity.nmi.lifecycle import Agent, Orders, live
from podidentity.nmi.server.listener import Listener
from podidentity.nmi.server.messages import Request, Response
from podidentity.supervisor import control
from podidentity.supervisor.control import LARGEST, Readiness, Report
from podidentity.supervisor.listeners import listening_socket
from podidentity.supervisor.worker import Inherited
from tests.nmi.talking import Talk

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class FakeNet:
    """Remembers whether `net` was told that connections are accepted."""

    sources_guarded = True
    removed = False

    def __init__(self) -> None:
        self.leaving = asyncio.Event()
        self.told: list[bool] = []
        self.left = asyncio.Event()

    def accept(self, *, accepting: bool) -> None:
        self.told.append(accepting)
        if not accepting:
            self.left.set()

    def leave(self) -> None:
        self.leaving.set()


class Worker:
    """A worker whose requests are answered by a task of its own, and its supervisor's end."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        )
        self.supervisor = ours
        self.control = theirs
        self.net = FakeNet()
        self.problems: list[str] = []
        self.asked: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self.slow = asyncio.Event()
        self.begun = asyncio.Event()
        self.listening = listening_socket("127.0.0.1", 0)
        self.orders = Orders(Inherited({"pods": self.listening}, theirs, {"host": "taken"}))
        self.port: int = self.listening.getsockname()[1]
        pods = Listener(self._handle)
        self.agent = Agent(
            node="n1",
            net=cast("NetClient", self.net),
            pods=pods,
            pages={},
            checks={
                "watches": lambda: self.problems,
                "listener": lambda: () if pods.serving else ("not listening",),
            },
            tasks=[self._answer],
        )
        self.task: asyncio.Task[None]

    async def _handle(self, _: Request) -> Response:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self.asked.put(mine)
        await mine
        return Response(HTTPStatus.OK, b"answered")

    async def _answer(self) -> None:
        """Stands for the watches and secrets that a request may wait for."""
        while True:
            waiting = await self.asked.get()
            if self.slow.is_set():
                self.begun.set()
                await asyncio.sleep(0.1)
            waiting.set_result(None)

    async def report(self, readiness: Readiness) -> str:
        """Return the detail of the next report of this readiness."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            while True:
                found = Report.parse(await loop.sock_recv(self.supervisor, LARGEST))
                if found.readiness is readiness:
                    return found.detail

    @asynccontextmanager
    async def talk(self) -> AsyncIterator[Talk]:
        talk = Talk(*await asyncio.open_connection("127.0.0.1", self.port))
        try:
            yield talk
        finally:
            await talk.leave()

    async def ended(self) -> None:
        async with asyncio.timeout(60):
            await self.task


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    made = Worker()
    made.task = asyncio.create_task(live(made.agent, made.orders, SystemClock()))
    try:
        yield made
    finally:
        made.task.cancel()
        await asyncio.gather(made.task, return_exceptions=True)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        loop.remove_reader(made.control)
        for each in (made.supervisor, made.control, *made.orders.listeners.values()):
            each.close()


async def test_it_is_prepared_and_accepts_nothing_until_it_is_told(worker: Worker) -> None:
    assert "not listening" in await worker.report(Readiness.PREPARED)
    async with worker.talk() as talk:
        await talk.say(ASK)
        assert worker.asked.empty()
        worker.supervisor.send(control.ACCEPT)
        assert (await talk.hear()).body == b"answered"
    await worker.report(Readiness.READY)
    assert worker.net.told == [True]


async def test_it_says_what_it_lacks(worker: Worker) -> None:
    worker.problems.append("the API server is away")
    assert "the API server is away" in await worker.report(Readiness.UNREADY)


async def test_told_to_stop_it_answers_what_waits_for_its_watches_before_it_ends_them(
    worker: Worker,
) -> None:
    worker.supervisor.send(control.ACCEPT)
    await worker.report(Readiness.READY)
    worker.slow.set()
    async with worker.talk() as talk, worker.talk() as idle:
        assert (await idle.ask(ASK)).status == 200
        await talk.say(ASK)
        await worker.begun.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await talk.hear()).body == b"answered"
        assert await idle.closed() == b""
        await worker.ended()


async def test_told_to_drain_it_answers_a_kept_connection_once_more_and_then_ends(
    worker: Worker,
) -> None:
    worker.supervisor.send(control.ACCEPT)
    await worker.report(Readiness.READY)
    async with worker.talk() as talk:
        assert (await talk.ask(ASK)).header("Connection") == []
        worker.supervisor.send(control.DRAIN)
        await worker.net.left.wait()
        assert not worker.task.done()
        last = await talk.ask(ASK)
        assert (last.status, last.header("Connection")) == (200, ["close"])
        await worker.ended()
    assert worker.net.told == [True, False]


async def test_told_to_pause_it_lets_who_connects_wait_until_it_is_told_to_drain(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it accepts who was on the way here, until it is told to stop."""
    monkeypatch.setattr(control, "ON_THE_WAY_SECONDS", 3600)
    worker.supervisor.send(control.ACCEPT)
    await worker.report(Readiness.READY)
    async with worker.talk() as kept:
        assert (await kept.ask(ASK)).header("Connection") == []
        worker.supervisor.send(control.PAUSE)
        await worker.net.left.wait()
        assert (await kept.ask(ASK)).header("Connection") == ["close"]
    async with worker.talk() as waiting:
        await worker.report(Readiness.PREPARED)
        worker.supervisor.send(control.DRAIN)
        last = await waiting.ask(ASK)
        assert (last.status, last.header("Connection")) == (200, ["close"])
    async with worker.talk() as late:
        last = await late.ask(ASK)
        assert (last.status, last.header("Connection")) == (200, ["close"])
    os.kill(os.getpid(), signal.SIGTERM)
    await worker.ended()
    assert worker.net.told == [True, False]


async def test_when_nobody_can_be_on_the_way_any_more_it_ends(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ON_THE_WAY_SECONDS", 0.01)
    worker.supervisor.send(control.ACCEPT)
    await worker.report(Readiness.READY)
    worker.supervisor.send(control.PAUSE)
    await worker.net.left.wait()
    worker.supervisor.send(control.DRAIN)
    await worker.ended()


async def test_told_that_the_rules_go_it_accepts_and_says_when_they_are_gone(
    worker: Worker,
) -> None:
    worker.supervisor.send(control.ACCEPT)
    await worker.report(Readiness.READY)
    worker.supervisor.send(control.LEAVE)
    await worker.net.leaving.wait()
    async with worker.talk() as talk:
        assert (await talk.ask(ASK)).header("Connection") == []
    worker.net.removed = True
    await worker.report(Readiness.OVER)
    async with worker.talk() as talk:
        assert (await talk.ask(ASK)).status == 200


async def test_without_its_supervisor_it_ends(worker: Worker) -> None:
    worker.supervisor.send(control.ACCEPT)
    await worker.report(Readiness.READY)
    worker.supervisor.close()
    await worker.ended()


async def test_reports_that_nobody_reads_hold_nothing_up(worker: Worker) -> None:
    worker.supervisor.send(control.ACCEPT)
    for _ in range(2000):
        worker.orders.report(worker.agent.readiness())
    async with worker.talk() as talk:
        assert (await talk.ask(ASK)).status == 200


@pytest.mark.parametrize("accepting", [True, False], ids=["while it accepts", "before it does"])
async def test_a_socket_that_comes_later_is_accepted_from_too(
    worker: Worker, *, accepting: bool
) -> None:
    """Another program has ended that kept the address."""
    if accepting:
        worker.supervisor.send(control.ACCEPT)
        await worker.report(Readiness.READY)
    with listening_socket("127.0.0.1", 0) as late:
        socket.send_fds(worker.supervisor, [control.LISTEN + b"host"], [late.fileno()])
        worker.port = late.getsockname()[1]
    if not accepting:
        worker.supervisor.send(control.ACCEPT)
    async with worker.talk() as talk:
        await talk.say(ASK)
        async with asyncio.timeout(60):
            assert (await talk.hear()).body == b"answered"
    assert worker.orders.missing == {}


async def test_a_word_about_a_socket_without_one_changes_nothing(worker: Worker) -> None:
    worker.supervisor.send(control.LISTEN + b"host")
    worker.supervisor.send(control.ACCEPT)
    await worker.report(Readiness.READY)
    assert worker.orders.missing == {"host": "taken"}
