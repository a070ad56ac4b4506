"""Answers the questions of `serve`, which is not trusted.

`serve` parses the bytes of strangers, so an attacker may control it. So its cost is bounded: the
size of messages and the rate of questions are limited, and a client that does not read its answers
is disconnected. It can find out to which pods connections belong, and whether a fixed request from
a pod arrives at it, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import msgspec

from podidentity.core.attestation import ConnectionFacts
from podidentity.core.data_path import Arrival, Hop, ProbeResult
from podidentity.core.rate_limits import TokenBucket
from podidentity.local_sockets import Untrusted, check_user
from podidentity.net.path_probe import PathProber, ServeWord
from podidentity.telemetry.log_limiter import LogLimiter
from podidentity.wire import net as wire

MOST_CLIENTS = 8
"""Connections at the same time: of a worker, its successor, and workers that are ending."""
HELLO_SECONDS = 5.0
"""Timeout for the first message of a client."""
RATE, BURST = 10_000, 2_000
"""Questions of one client in a second; a worker handles a third as many new connections."""
SEND_BUFFER = 512 * 1024
"""Limit of unread answers, in bytes."""

_log = logging.getLogger("podidentity.net")


class Inspector(Protocol):
    """Finds facts about connections; implemented by `kernel.attestation.ConnectionInspector`."""

    def facts(
        self, address: str, port: int, own: str = "", *, clients: bool = False
    ) -> ConnectionFacts:
        """Return the facts about a redirected connection, with its namespace's other clients."""

    def local_facts(self, address: str, port: int, own: str) -> ConnectionFacts:
        """Return the facts about a connection from the node itself to our address `own`."""


class NetServer:
    """Serves the Unix socket of `net`."""

    def __init__(
        self,
        inspector: Inspector,
        prober: PathProber,
        *,
        version: str,
        uids: frozenset[int],
        accepting: Callable[[bool], None],
    ) -> None:
        """`uids` are the users whose processes may connect.

        `accepting` is called with True when a client begins to accept connections, and with False
        when none does any more.
        """
        self.inspector = inspector
        self.prober = prober
        self.hello = wire.Hello(wire.PROTOCOL, version)
        self._uids = uids
        self._tell_accepting = accepting
        self._clients: set[_Client] = set()
        self._state = wire.State()
        self._said = LogLimiter()
        self._listening: socket.socket | None = None
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._none_follows = asyncio.Event()
        self._none_follows.set()

    def start(self, listening: socket.socket) -> None:
        self._listening = listening
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def tell(self, state: wire.State) -> None:
        if state == self._state:
            return
        self._state = state
        packet = wire.encode(state)
        for client in list(self._clients):
            if client.greeted:
                client.send(packet)

    async def no_clients(self) -> None:
        await self._none_left.wait()

    async def none_follows(self) -> None:
        """Return when a client says that it ends and no agent follows, or when there is none."""
        await self._none_follows.wait()

    def close(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None
        for client in list(self._clients):
            client.close()

    def state_packet(self) -> bytes:
        return wire.encode(self._state)

    def left(self, client: _Client) -> None:
        self._clients.discard(client)
        if not self._clients:
            self._none_left.set()
        self.leaving_changed()
        if client.accepting:
            client.accepting = False
            self.accepting_changed()

    def leaving_changed(self) -> None:
        """Look again whether an agent follows, as far as clients know."""
        if not self._clients or any(client.leaving for client in self._clients):
            self._none_follows.set()
        else:
            self._none_follows.clear()

    def accepting_changed(self) -> None:
        self._tell_accepting(any(client.accepting for client in self._clients))

    def say(self, why: str, *values: object) -> None:
        """Log a line about a client, with a limit for each kind."""
        if self._said.allows("", why, asyncio.get_running_loop().time()):
            _log.warning(why, *values)

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:
            return  # The client has gone again, or there are no descriptors left at the moment.
        connection.setblocking(False)
        try:
            peer = check_user(connection, self._uids, "who asks at the socket of net")
        except (Untrusted, OSError) as error:
            self.say("refused: %s", error)
            _refuse(connection, str(error))
            return
        if len(self._clients) >= MOST_CLIENTS:
            self.say("refused process %s: %s clients are connected", peer.pid, MOST_CLIENTS)
            _refuse(connection, f"{MOST_CLIENTS} clients are connected")
            return
        self._none_left.clear()
        self._clients.add(_Client(connection, peer.pid, self))
        self.leaving_changed()


@dataclass(frozen=True, slots=True)
class _RunningProbe:
    """The probe of a client that is under way."""

    id: int
    word: ServeWord
    task: asyncio.Task[None]

    def hear(self, message: wire.Expecting | wire.Arrived) -> None:
        if isinstance(message, wire.Expecting):
            self.word.expecting()
        else:
            arrival = Arrival(message.nonce, message.address, message.port, message.own)
            self.word.note(arrival)


class _Client:
    """One connection of `serve`."""

    def __init__(self, connection: socket.socket, pid: int, server: NetServer) -> None:
        self.greeted = self.accepting = self.leaving = False
        self._probe: _RunningProbe | None = None
        self._connection = connection
        self._pid = pid
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._questions = TokenBucket(RATE, BURST, self._loop.time())
        self._timer = self._loop.call_later(HELLO_SECONDS, self._refuse, "it did not say hello")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER // 2)
        self._loop.add_reader(connection, self._read)

    def send(self, packet: bytes) -> None:
        """Send a packet, or close the connection if the client does not read."""
        try:
            self._connection.send(packet)
        except (BlockingIOError, InterruptedError):
            self._server.say("process %s does not read its answers: its connection ends", self._pid)
            self.close()
        except OSError:
            self.close()

    def close(self) -> None:
        self._timer.cancel()
        if self._probe is not None:
            self._probe.task.cancel()
            self._probe = None
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection)
            self._connection.close()
            self._server.left(self)

    def _read(self) -> None:
        """Read one message; the event loop comes again for the next, after those of others."""
        try:
            packet = self._connection.recv(wire.LARGEST + 1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            packet = b""
        if not packet:
            self.close()
            return
        try:
            message = wire.parse_from_serve(packet)
        except wire.Unreadable as error:
            self._refuse(str(error))
            return
        self._take(message)
        asked = len(message.questions) if isinstance(message, wire.Questions) else 1
        if self._connection.fileno() >= 0:
            self._pause_after(asked)

    def _take(self, message: wire.FromServe) -> None:
        if isinstance(message, wire.Hello):
            self._greet(message)
        elif not self.greeted:
            self._refuse("it did not say hello first")
        elif isinstance(message, wire.Questions):
            self._answer(message.questions)
        elif isinstance(message, wire.Probe):
            self._begin_probe(message)
        elif isinstance(message, wire.Expecting | wire.Arrived):
            # One that comes too late, or of no probe, says nothing.
            if self._probe is not None and self._probe.id == message.id:
                self._probe.hear(message)
        else:
            self._note(message)

    def _note(self, message: wire.Accepting | wire.Leaving) -> None:
        if isinstance(message, wire.Leaving):
            self.leaving = True
            self._server.leaving_changed()
        elif message.accepting != self.accepting:
            self.accepting = message.accepting
            self._server.accepting_changed()

    def _greet(self, theirs: wire.Hello) -> None:
        if self.greeted:
            self._refuse("it said hello twice")
            return
        why = wire.why_other(self._server.hello, theirs, me="net", other="serve")
        if why:
            self._refuse(why)
            return
        self._timer.cancel()
        self.greeted = True
        self.send(wire.encode(self._server.hello))
        self.send(self._server.state_packet())

    def _answer(self, questions: Sequence[wire.Question]) -> None:
        answers = [wire.FactsAnswer(each.id, self._facts(each)) for each in questions]
        for packet in wire.answer_packets(answers):
            self.send(packet)

    def _begin_probe(self, asked: wire.Probe) -> None:
        if self._probe is not None:
            busy = ProbeResult(hop=Hop.NOT_SENT, detail="another probe is under way")
            self.send(wire.encode(wire.Probed(asked.id, busy)))
            return
        word = ServeWord()
        self._probe = _RunningProbe(asked.id, word, self._loop.create_task(self._run(asked, word)))

    async def _run(self, asked: wire.Probe, word: ServeWord) -> None:
        def probing(port: int) -> None:
            self.send(wire.encode(wire.Probing(asked.id, port)))

        result = await self._server.prober.run(asked.address, asked.pod, probing, word)
        self._probe = None
        self.send(wire.encode(wire.Probed(asked.id, result)))

    def _facts(self, question: wire.Question) -> ConnectionFacts:
        inspector = self._server.inspector
        if question.local:
            return inspector.local_facts(question.address, question.port, question.own)
        return inspector.facts(
            question.address, question.port, question.own, clients=question.clients
        )

    def _pause_after(self, count: int) -> None:
        """Count questions; if there were too many, stop reading for a while."""
        wait, now = 0.0, self._loop.time()
        for _ in range(count):
            wait = self._questions.take(now)
        if not wait:
            return
        self._server.say("process %s asks more than %s times a second: it waits", self._pid, RATE)
        self._loop.remove_reader(self._connection)
        self._timer.cancel()
        self._timer = self._loop.call_later(max(wait, 0.01), self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._connection, self._read)

    def _refuse(self, why: str) -> None:
        self._server.say("process %s is refused: %s", self._pid, why)
        with suppress(OSError):
            self._connection.send(wire.encode(wire.Rejection(why)))
        self.close()


def _refuse(connection: socket.socket, why: str) -> None:
    with connection, suppress(OSError, msgspec.MsgspecError):
        connection.send(wire.encode(wire.Rejection(why)))
