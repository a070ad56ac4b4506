"""A worker's life: it accepts connections when the supervisor says so, reports, and ends in order.

What comes before it accepts waits in the backlog of the supervisor's sockets, and so does what
comes while another agent takes over. It ends in one of two ways: where nobody is led here any more,
because another agent serves or the rules are gone, it drains, which takes as long as a connection
may be idle; told to stop, it finishes the requests that are under way.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from podidentity.adapters.net import NetClient
from podidentity.core.ports import Clock
from podidentity.nmi.reporting.endpoints import Check
from podidentity.nmi.server.listener import Listener
from podidentity.supervisor import control
from podidentity.supervisor.control import BEAT_SECONDS, UNREADY_BEAT_SECONDS, Readiness, Report
from podidentity.supervisor.listeners import from_descriptors
from podidentity.supervisor.worker import Inherited

GRACE = 1.0
"""Seconds that requests under way have at the end."""

Task = Callable[[], Coroutine[Any, Any, None]]
"""What must run beside the listeners."""

_log = logging.getLogger("podidentity.nmi")


class Orders:
    """What the supervisor wants, and its end of the line for reports."""

    def __init__(self, given: Inherited) -> None:
        self._connection = connection = given.control
        self.listeners = dict(given.listeners)
        self.missing = dict(given.missing)
        """Addresses that other programs have, by the names of their sockets."""
        self.also: Callable[[Mapping[str, socket.socket]], None] | None = None
        """Accepts the connections of a socket that comes later."""
        self.leave: Callable[[], None] | None = None
        """Has the rules removed that lead connections here."""
        self._accept = asyncio.Event()
        self._pause = asyncio.Event()
        self._end = asyncio.Event()
        self._stop = asyncio.Event()
        self._said_by = {
            control.ACCEPT: (self._accept,),
            control.PAUSE: (self._accept, self._pause),
            control.DRAIN: (self._accept, self._pause, self._end),
        }
        loop = asyncio.get_running_loop()
        loop.add_reader(connection, self._told)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped)

    @property
    def ending(self) -> bool:
        """Whether nobody is to be accepted any more but who waits."""
        return self._end.is_set()

    @property
    def accepting(self) -> bool:
        return self._accept.is_set() and not self._pause.is_set()

    async def accept_or_end(self) -> None:
        """Return when connections are to be accepted, or never will be."""
        await self._accept.wait()

    async def pause(self) -> None:
        """Return when no more connections are to be accepted until `end`."""
        await self._pause.wait()

    async def end(self) -> None:
        """Return when who waits is to be accepted, and nobody after that."""
        await self._end.wait()

    async def stop(self) -> None:
        """Return when there is no time left for connections that are idle."""
        await self._stop.wait()

    def report(self, report: Report) -> None:
        """Tell the supervisor; one that does not listen just now hears the next report."""
        with suppress(OSError):
            self._connection.send(report.encode())

    def _told(self) -> None:
        sockets: list[socket.socket | None] = []
        try:
            word, descriptors, _, _ = socket.recv_fds(self._connection, 100, 1)
            sockets = from_descriptors(descriptors)
        except BlockingIOError:
            return
        except OSError:
            word = b""
        if word.startswith(control.LISTEN) and sockets and sockets[0] is not None:
            self._listen(word.removeprefix(control.LISTEN).decode(), sockets[0])
            return
        for each in self._said_by.get(word, ()):
            each.set()
        if word == control.LEAVE and self.leave is not None:
            self.leave()
        elif not word:
            # The supervisor has ended, and with it the container: nobody restarts this worker.
            asyncio.get_running_loop().remove_reader(self._connection)
            self._stopped()

    def _listen(self, name: str, made: socket.socket) -> None:
        """Take a socket that the supervisor could open at last."""
        self.listeners[name] = made
        self.missing.pop(name, None)
        if self.also is not None:
            self.also({name: made})

    def _stopped(self) -> None:
        for each in (self._accept, self._pause, self._end, self._stop):
            each.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The worker's parts that its life is made of."""

    node: str
    net: NetClient
    pods: Listener
    pages: Mapping[str, Listener]
    """Of probes, metrics and `/debug`, by the name of their socket."""
    checks: Mapping[str, Check]
    tasks: list[Task]

    def accept(self, sockets: Mapping[str, socket.socket]) -> None:
        self.accept_also(sockets)
        self.net.accept(accepting=True)
        _log.info("serving node %s, port %s", self.node, self.pods.port)

    def accept_also(self, sockets: Mapping[str, socket.socket]) -> None:
        for name, each in sockets.items():
            self.pages.get(name, self.pods).accept_from(each)

    async def pause(self) -> None:
        """Accept no more until `finish`; end connections behind their next answer."""
        self.net.accept(accepting=False)
        self.pods.pause()
        for page in self.pages.values():
            await page.close(0.0)

    async def accept_late(self, orders: Orders) -> None:
        """Accept who was on the way here when the rules led elsewhere, until nobody can be."""
        self.pods.resume()
        with suppress(TimeoutError):
            async with asyncio.timeout(control.ON_THE_WAY_SECONDS):
                await orders.stop()

    async def finish(self, orders: Orders) -> None:
        """Accept who waits; end connections behind their next answer, all of them when told to."""
        draining = asyncio.create_task(self.pods.drain())
        stopping = asyncio.create_task(orders.stop())
        await asyncio.wait({draining, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await self.pods.close(GRACE)
        stopping.cancel()
        await draining

    def readiness(self) -> Report:
        """Return how far it is, and what is missing."""
        problems = {name: list(check()) for name, check in self.checks.items()}
        if self.net.removed:
            readiness = Readiness.OVER
        elif not any(problems.values()):
            readiness = Readiness.READY
        elif not any(found for name, found in problems.items() if name != "listener"):
            readiness = Readiness.PREPARED
        else:
            readiness = Readiness.UNREADY
        return Report(readiness, msgspec.json.encode(problems).decode())


async def live(agent: Agent, orders: Orders, clock: Clock) -> None:
    """Run the agent from the first order to the last."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(task()) for task in agent.tasks]
        tasks.append(group.create_task(_report(agent, orders, clock)))
        await orders.accept_or_end()
        if orders.accepting:
            agent.accept(orders.listeners)
            orders.also = agent.accept_also
            orders.leave = agent.net.leave
        await orders.pause()
        orders.also = None
        led_elsewhere = not orders.ending
        await agent.pause()
        await orders.end()
        if led_elsewhere:
            await agent.accept_late(orders)
        # Requests under way may wait for a secret or a watch: those are ended after them.
        await agent.finish(orders)
        for task in tasks:
            task.cancel()


async def _report(agent: Agent, orders: Orders, clock: Clock) -> None:
    """Tell the supervisor how it is, for ever: it takes silence for a loop that stands."""
    while True:
        # Where another pod could speak with its address, a kept connection is not a pod's for long.
        agent.pods.keep_connections(kept=agent.net.sources_guarded)
        found = agent.readiness()
        orders.report(found)
        ready = found.readiness is Readiness.READY
        await clock.sleep(BEAT_SECONDS if ready else UNREADY_BEAT_SECONDS)
