"""The client of `net`: asks about connections and the data path, over the socket between the two.

While `net` is away every proof is UNKNOWN, so requests are answered with 503. The client reconnects
within half a second, and the last state of `net` does not count meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from podidentity.core.attestation import (
    AttestationMode,
    ConnectionFacts,
    Proof,
    Verdict,
    judge,
    judge_local,
)
from podidentity.core.data_path import Arrival, Hop, ProbeResult
from podidentity.core.ports import Clock
from podidentity.core.resources import Pod
from podidentity.local_sockets import Untrusted, connect
from podidentity.wire import BROKEN_JSON
from podidentity.wire import net as wire
from podidentity.wire.path_probe import nonce_of

ANSWER_SECONDS = 2.0
"""Timeout of an answer; `net` needs some 0.1 ms."""
PROBE_SECONDS = 6.0
"""Timeout of a probe of the data path: `net` waits for 2 s at most in each of its steps."""
MOST_QUESTIONS = 128
"""Questions under way at once; they and their answers fit into the socket's buffer."""
_SEND_BUFFER = 256 * 1024
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two attempts to connect."""

_log = logging.getLogger("podidentity.net")


class _Probe:
    """The probe that is under way."""

    def __init__(self, number: int, address: str) -> None:
        self.id = number
        self.address = address
        self.port = 0
        """Announced by `net`; 0 until then."""
        self.result: asyncio.Future[ProbeResult] = asyncio.get_running_loop().create_future()


class NetClient:
    """Implements `core.ports.Attestor`; `run` it as a task."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        version: str,
        mode: AttestationMode,
        uids: frozenset[int] = frozenset({0}),
        is_elsewhere: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`uids` are the user ids that the process `net` may have.

        `is_elsewhere` tells of a pod's uid whether the pod is known to have another address than
        that of a connection which is its own. Then it may be a proxy in another pod's place.
        """
        self._path = path
        self._clock = clock
        self._hello = wire.Hello(wire.PROTOCOL, version)
        self._mode = mode
        self._uids = uids
        self._is_elsewhere = is_elsewhere
        self._connection: socket.socket | None = None
        self._greeted = False
        self._accepting = False
        self._leaving = False
        self._sources_guarded = False
        self._failure = f"net has not been reached at {path} yet"
        self._number = 0
        self._waiting: dict[int, tuple[float, Callable[[ConnectionFacts | None], None]]] = {}
        """When each question was asked, oldest first, and what takes its answer."""
        self._unsent: list[wire.Question] = []
        """Asked in this turn of the event loop, and sent together at its end."""
        self._busy = False
        """Whether the last question that was not sent at once had others beside it."""
        self._room = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._ended, self._changed, self._met = asyncio.Event(), asyncio.Event(), asyncio.Event()
        """The last is set once `net` has been reached."""
        self._probe: _Probe | None = None
        self._one_probe = asyncio.Lock()
        self.state: wire.State | None = None
        """The last state that `net` sent; None while it is away."""
        self.verdicts = dict.fromkeys(Verdict, 0)
        """Number of proofs by their verdict."""

    def problems(self) -> Sequence[str]:
        """Return why `net` cannot be asked; () while it can."""
        return (self._failure,) if self._failure else ()

    def interception_problems(self) -> Sequence[str]:
        """Return why pods' traffic is not redirected; () if it is."""
        if self.state is None:
            return self.problems()
        if self._accepting and not self.state.guards:
            return (*self.state.interception, "the rules are still those of the agent before")
        return self.state.interception

    def attestation_problems(self) -> Sequence[str]:
        """Return why callers cannot be proved; () if they can."""
        if self.state is None:
            return self.problems()
        if self.state.proof != self._mode:
            other = f"--attestation of net is {self.state.proof}, of serve {self._mode}"
            return (*self.state.attestation, other)
        return self.state.attestation

    @property
    def sources_guarded(self) -> bool:
        """Whether no pod can send from the address of another, by the last state of `net`."""
        return self._sources_guarded

    @property
    def repairs(self) -> int:
        """Number of times that `net` has repaired the rules since its start."""
        return 0 if self.state is None else self.state.repairs

    @property
    def dropped_resets(self) -> int:
        """Number of resets of pods that the rules have dropped since the start of `net`."""
        return 0 if self.state is None else self.state.dropped_resets

    @property
    def accepting(self) -> bool:
        return self._accepting

    @property
    def changes(self) -> int:
        return 0 if self.state is None else self.state.changes

    def accept(self, accepting: bool) -> None:
        """Tell `net`, now and after each reconnect, whether connections are accepted here."""
        self._accepting = accepting
        self._tell()
        if self._greeted:
            self._send(wire.Accepting(accepting))

    def leave(self) -> None:
        """Tell `net`, now and after each reconnect, that this agent ends and no other follows."""
        self._leaving = True
        if self._greeted:
            self._send(wire.Leaving())

    @property
    def removed(self) -> bool:
        """Whether `net` has removed its rules, so that no new connection is led here."""
        return self.state is not None and self.state.removed

    async def changed(self) -> None:
        await self._changed.wait()

    async def prove(
        self, address: str, port: int, candidates: Sequence[Pod], own: str = ""
    ) -> Proof:
        proof = self._judge(await self._facts(address, port, local=False, own=own), candidates)
        if self._clients_decide(proof):
            facts = await self._facts(address, port, local=False, own=own, clients=True)
            proof = self._judge(facts, candidates)
        return self._counted(proof)

    def ask(
        self,
        address: str,
        port: int,
        candidates: Sequence[Pod],
        judged: Callable[[Proof], None],
        own: str = "",
    ) -> bool:
        """Have `judged` called later with what `prove` returns, without a task.

        False if nothing can be asked: `net` is away, or so many questions are under way that the
        other half of the places is left to those who wait for one.
        """
        if not self._greeted or len(self._waiting) >= MOST_QUESTIONS // 2:
            return False

        def decided(facts: ConnectionFacts | None) -> None:
            judged(self._counted(self._judge(facts, candidates)))

        def first(facts: ConnectionFacts | None) -> None:
            proof = self._judge(facts, candidates)
            if self._clients_decide(proof) and self._greeted:
                self._ask(address, port, decided, own=own, clients=True)
            else:
                judged(self._counted(proof))

        self._ask(address, port, first, own=own)
        return True

    async def prove_local(self, address: str, port: int, own: str) -> Proof:
        facts = await self._facts(address, port, local=True, own=own)
        return self._counted(None if facts is None else judge_local(facts, self._mode))

    async def probe(self, address: str, pod: str = "") -> ProbeResult:
        """Return whether a request from a pod's address arrives here; one at a time.

        `pod` is the uid of the probe pod; "" for another, known by nothing but its address.
        """
        async with self._one_probe:
            if not self._greeted:
                return self._not_sent()
            self._number += 1
            self._probe = running = _Probe(self._number, address)
            self._send(wire.Probe(running.id, address, pod))
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    return await running.result
            except TimeoutError:
                return self._not_sent("net does not answer")
            finally:
                self._probe = None

    def take_probe(self, address: str, port: int, own: str, target: str) -> bool:
        """Whether a request is the probe that is under way; `net` is told that it has arrived.

        Only a request from the address and port that `net` has announced is one.
        """
        probe = self._probe
        if probe is None or not self._greeted or (probe.address, probe.port) != (address, port):
            return False
        nonce = nonce_of(target)
        if nonce:
            self._send(wire.Arrived(probe.id, *Arrival(nonce, address, port, own)))
        return bool(nonce)

    async def run(self) -> None:
        pause = SHORTEST_PAUSE
        try:
            while True:
                if self._connect():
                    await self._ended.wait()
                    self._ended.clear()
                    pause = SHORTEST_PAUSE if self._disconnected() else pause
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self._disconnected()

    async def _facts(
        self, address: str, port: int, *, local: bool, own: str = "", clients: bool = False
    ) -> ConnectionFacts | None:
        if not self._met.is_set():
            # `net` starts beside this process, and leads pods here before it is reached.
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._met.wait()
        while self._greeted and len(self._waiting) >= MOST_QUESTIONS:
            await self._room.wait()
        if not self._greeted:
            return None
        answer: asyncio.Future[ConnectionFacts | None] = asyncio.get_running_loop().create_future()

        def take(facts: ConnectionFacts | None) -> None:
            if not answer.done():
                answer.set_result(facts)

        self._ask(address, port, take, local=local, own=own, clients=clients)
        return await answer

    def _ask(
        self,
        address: str,
        port: int,
        take: Callable[[ConnectionFacts | None], None],
        *,
        local: bool = False,
        own: str = "",
        clients: bool = False,
    ) -> None:
        """Send a question, now or at the end of this turn of the loop; `take` its answer later.

        One that comes alone is sent at once; where several came at a time of late, it waits for the
        others of this turn. Who asked may have gone when the answer comes, which frees its place.
        """
        loop = asyncio.get_running_loop()
        self._number += 1
        question = wire.Question(self._number, address, port, local, own, clients)
        alone = not self._waiting
        self._waiting[self._number] = (loop.time(), take)
        if self._timer is None:
            self._timer = loop.call_later(ANSWER_SECONDS, self._late)
        if alone and not self._busy:
            self._send(wire.Questions((question,)))
            return
        self._busy = not alone
        if not self._unsent:
            loop.call_soon(self._send_questions)
        self._unsent.append(question)

    def _answered(self, number: int, facts: ConnectionFacts | None) -> None:
        """Hand an answer on to who asked; None: there will be none."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return
        if len(self._waiting) == MOST_QUESTIONS - 1:
            self._room.set()
            self._room = asyncio.Event()
        try:
            waiting[1](facts)
        except Exception:  # noqa: BLE001 - a defect of who asked
            # The other answers of the packet are others'.
            _log.exception("facts about a connection could not be used; please report this")

    def _send_questions(self) -> None:
        questions, self._unsent = self._unsent, []
        while questions and self._greeted:
            self._send(wire.Questions(tuple(questions[: wire.MOST_TOGETHER])))
            del questions[: wire.MOST_TOGETHER]

    def _late(self) -> None:
        """Give `net` up if the oldest question has waited too long; one timer serves for all."""
        self._timer = None
        oldest = next(iter(self._waiting.values()), None)
        if oldest is None:
            return
        loop = asyncio.get_running_loop()
        left = oldest[0] + ANSWER_SECONDS - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._late)
        else:
            self._end(f"net did not answer within {ANSWER_SECONDS:g} s")

    def _hear_of_probe(self, message: wire.Probing | wire.Probed) -> None:
        probe = self._probe
        if probe is None or probe.id != message.id:
            return
        if isinstance(message, wire.Probing):
            probe.port = message.port
            self._send(wire.Expecting(probe.id))
        elif not probe.result.done():
            probe.result.set_result(message.result)

    def _not_sent(self, why: str = "") -> ProbeResult:
        return ProbeResult(hop=Hop.NOT_SENT, detail=why or self._failure or "net went away")

    def _judge(self, facts: ConnectionFacts | None, candidates: Sequence[Pod]) -> Proof | None:
        return None if facts is None else judge(facts, candidates, self._mode)

    def _clients_decide(self, proof: Proof | None) -> bool:
        """Whether the clients of the connection's namespace are worth asking for: it costs more."""
        return proof is not None and proof.clients_decide and self._is_elsewhere(proof.pod_uid)

    def _counted(self, proof: Proof | None) -> Proof:
        """Return the proof after counting it; without one, that `net` could not be asked."""
        if proof is None:
            proof = Proof(verdict=Verdict.UNKNOWN, detail=self._failure or "net went away")
        self.verdicts[proof.verdict] += 1
        return proof

    def _connect(self) -> bool:
        try:
            self._connection = connect(self._path, uids=self._uids)
        except (OSError, Untrusted) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._fail(f"net cannot be reached at {self._path}: {why}")
            return False
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        asyncio.get_running_loop().add_reader(self._connection, self._read)
        self._send(self._hello)
        return True

    def _read(self) -> None:
        """Read one message; the event loop comes again for the next."""
        connection = self._connection
        if connection is None or self._ended.is_set():
            return
        try:
            packet = connection.recv(wire.LARGEST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            packet = b""
        if not packet:
            self._end(f"net has ended its connection at {self._path}")
            return
        try:
            message = wire.parse_from_net(packet)
        except BROKEN_JSON as error:
            self._end(f"net sent no message: {error}")
        else:
            self._take(message)

    def _take(self, message: wire.FromNet) -> None:
        if isinstance(message, wire.FactsAnswers):
            for each in message.answers:
                self._answered(each.id, each.facts)
        elif isinstance(message, wire.Probing | wire.Probed):
            self._hear_of_probe(message)
        elif isinstance(message, wire.State):
            self.state = message
            self._sources_guarded = not message.sources
            self._tell()
        elif isinstance(message, wire.Rejection):
            self._end(f"net refuses this serve: {message.reason}")
        else:
            why = wire.why_other(self._hello, message, me="serve", other="net")
            if why:
                self._end(why)
            else:
                self._greet()

    def _greet(self) -> None:
        self._greeted = True
        self._met.set()
        self._fail("")
        if self._accepting:
            self._send(wire.Accepting(accepting=True))
        if self._leaving:
            self._send(wire.Leaving())

    def _send(self, message: wire.FromServe) -> None:
        assert self._connection is not None  # noqa: S101 - who sends is connected
        try:
            self._connection.send(wire.encode(message))
        except (BlockingIOError, InterruptedError):
            self._end("net does not read its questions")
        except OSError as error:
            self._end(f"net cannot be asked: {error.strerror}")

    def _end(self, why: str) -> None:
        if not self._ended.is_set():
            self._fail(why)
            self._greeted = False
            self._ended.set()

    def _disconnected(self) -> bool:
        """Close the connection, fail its questions; return whether the state had arrived."""
        greeted = self.state is not None
        self._greeted, self.state = False, None
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection)
            self._connection.close()
            self._connection = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unsent.clear()
        if self._probe is not None and not self._probe.result.done():
            self._probe.result.set_result(self._not_sent())
        for number in list(self._waiting):
            self._answered(number, None)
        self._tell()
        return greeted

    def _fail(self, why: str) -> None:
        if why and why != self._failure:
            _log.warning("%s", why)
        elif not why and self._failure:
            _log.info("net is reached at %s", self._path)
        self._failure = why
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
