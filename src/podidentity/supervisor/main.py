"""The supervisor of `serve`: one loop that keeps the listening sockets and a worker.

A worker that ends, hangs or grows too large is replaced at once, or after a short pause if workers
end again and again. At SIGTERM the worker finishes its open requests; where `net` takes its rules
with it (`--on-exit=remove`) it accepts until they are gone: who comes then is led elsewhere. After
a hand-over this agent stays until it is told to stop, ready to serve again.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from podidentity import __version__
from podidentity.backoff import backoff
from podidentity.local_sockets import Untrusted, listen, peer_of
from podidentity.supervisor import control, handover, privileges
from podidentity.supervisor.control import ON_THE_WAY_SECONDS, Readiness
from podidentity.supervisor.descendants import check_outsider, children
from podidentity.supervisor.handover import HandoverFolder, Predecessor, Stage, Successor
from podidentity.supervisor.listeners import (
    Address,
    ListenError,
    close_all,
    listening_socket,
    open_missing,
    restore,
)
from podidentity.supervisor.worker import CANNOT_BEGIN, Worker, WorkerMain

PROBE_SOCKET = "serve-probe.sock"
"""Name of the socket in `--runtime-dir` at which the kubelet's exec probes ask."""
LARGEST_ANSWER = 16 * 1024
"""Bytes of an answer to a probe."""
PROBE_SECONDS = 4.0
"""Time that a probe waits for readiness, so that the kubelet learns of it at once."""
MOST_PROBES = 16

SHORT_LIFE = 3.0
"""A worker that ends earlier counts as a crash at its start."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds before the next worker: after the second crash in a row, and at most."""
STOP_SECONDS = 5.0
"""Seconds between SIGTERM and SIGKILL to a worker without a hand-over."""
DRAIN_SECONDS = 85.0
"""The same after a hand-over: more than the 75 s for which a connection may be idle."""
REMOVAL_SECONDS = 20.0
"""Longest wait for `net` to remove its rules. It takes milliseconds, on a busy node longer; after
it connections are refused until they are gone."""
LAST_ANSWERS_SECONDS = 10.0
"""Seconds of answering after that: more than a request is held for its binding (--hold). It is less
than after a hand-over, because what comes after this agent may wait for its end, and an idle
connection that closes costs its client no request."""
RETRY_SECONDS = 1.0
"""Seconds between two attempts to take over from a busy agent."""
TAKEN_BACK_SECONDS = 10.0
"""Seconds before the next attempt if the agent before has taken the sockets back."""
STANDS_BACK_SECONDS = 60.0
"""Seconds after which an agent whose successor serves counts as left over: an update ends it at
once, so this successor is no update of it but another NMI on the node."""
PUBLISH_SECONDS = 5.0
"""Seconds between two attempts to listen for the next agent."""
MOST_RETIRED = 2
"""Workers that only finish their open connections, beside the one that accepts."""
MEMORY_SECONDS = 1.0
"""Seconds between two checks of the worker's memory."""
_LONGEST_WAIT = 1.0

_log = logging.getLogger("podidentity.supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Settings of the supervisor."""

    addresses: Sequence[Address]
    runtime_dir: Path
    agent: str = ""
    """Namespace and name of this agent's pod, told to the agent before it."""
    handover_dir: Path | None = None
    handover_users: frozenset[int] = frozenset()
    """Users of the agents before and after this one, beside root and the own user."""
    memory: int = 0
    """Memory limit of the container in bytes; 0: none. A worker gets three quarters of it."""
    removes: bool = False
    """Whether `net` removes its rules when it is told to stop."""

    @property
    def worker_memory(self) -> int:
        """Resident memory in bytes above which a worker is replaced; 0: never."""
        return self.memory * 3 // 4


@dataclass(slots=True)
class _Probe:
    """One open connection of a probe."""

    deadline: float
    word: bytes = b""
    """The question, `live` or `ready`; b"" until it arrives."""


@dataclass(slots=True)
class _Due:
    """Earliest time of each next attempt, in `time.monotonic` seconds."""

    start: float = 0.0
    """To start a worker."""
    take: float = 0.0
    """To take over from the agent before, or to listen."""
    publish: float = 0.0
    """To listen for the next agent."""
    memory: float = 0.0
    """To check the worker's memory."""
    late: float = 0.0
    """To listen where another program did."""
    close: float = float("inf")
    """To accept no more, because this agent ends; then to answer no more."""


class Supervisor:
    """Keeps the listening sockets and a worker; `run` returns the exit code."""

    def __init__(self, plan: Plan, main: WorkerMain) -> None:
        self._plan = plan
        self._main = main
        self._folder = (
            HandoverFolder(plan.handover_dir, plan.handover_users) if plan.handover_dir else None
        )
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[str, socket.socket] = {}
        self._worker: Worker | None = None
        self._retired: list[Worker] = []
        """Workers that accept no more connections and finish those that are open."""
        self._probe_socket: socket.socket | None = None
        self._probes: dict[socket.socket, _Probe] = {}
        self._published: socket.socket | None = None
        self._predecessor: Predecessor | None = None
        self._successor: Successor | None = None
        self._begun = False
        """Whether the listening sockets are there."""
        self._stopping = False
        self._deadline = float("inf")
        self._due = _Due()
        self._crashes = 0
        self._has_worked = False
        """Whether a worker could begin once; then an error of the next one may be temporary."""
        self._note = ""
        """Why there is no worker, as probes are told."""
        self._untrusted = ""
        self._unpublished = ""
        self._said_left_over = ""
        self._code: int | None = None
        self._turn = 0.0
        self._pipe: tuple[int, ...] = ()

    def run(self) -> int:
        """Serve until told to stop; raise ListenError."""
        self._keep_workers_apart()
        self._pipe = signals, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._watch(signals, lambda: self._signalled(os.read(signals, 4096)))
        self._probe_socket = listen(self._plan.runtime_dir / PROBE_SOCKET)
        self._watch(self._probe_socket, self._probed)
        try:
            while self._code is None:
                self._tick(time.monotonic())
                if self._code is None:
                    self._turn = time.monotonic()
                    self._wait()
        finally:
            self._close()
        return self._code

    def _keep_workers_apart(self) -> None:
        """Protect this process from workers, which have its user."""
        try:
            privileges.hide_from_user()
            privileges.adopt_orphans()
        except OSError as error:
            _log.warning("a worker in a stranger's hands could reach its supervisor: %s", error)

    # One turn.

    def _wait(self) -> None:
        for key, _ in self._selector.select(self._timeout(time.monotonic())):
            if key.fileobj in self._watched():
                key.data()

    def _watched(self) -> set[object]:
        return {key.fileobj for key in self._selector.get_map().values()}

    def _timeout(self, now: float) -> float:
        due = [
            self._deadline,
            self._due.close,
            *(probe.deadline for probe in self._probes.values()),
        ]
        due += [each.hangs_at() for each in self._workers()]
        if self._worker is None and self._begun and not self._gave():
            due.append(self._due.start)
        if not self._begun:
            due.append(self._due.take)
        if self._successor is not None:
            due.append(self._successor.deadline)
        if self._predecessor is not None:
            due.append(self._predecessor.deadline)
        return max(0.0, min(_LONGEST_WAIT, min(due) - now))

    def _tick(self, now: float) -> None:
        if self._turn and now - self._turn > 2 * _LONGEST_WAIT:
            # This process did not run for a while, so the workers may not have run either.
            for each in self._workers():
                each.excuse(now)
        if not self._begun and not self._stopping and now >= self._due.take:
            self._begin(now)
        if self._begun and not self._stopping and self._late():
            self._listen_late(now)
        if now >= self._due.close:
            self._accept_no_more(now)
        self._look_at_workers(now)
        self._end_strays()
        self._look_at_handover(now)
        self._answer_probes(now)
        if self._stopping and not self._workers():
            self._code = 0

    # Listeners.

    def _begin(self, now: float) -> None:
        """Take the listening sockets over, or open them; raise ListenError."""
        try:
            predecessor = self._take_over()
        except handover.Busy as error:
            self._wait_for_listeners(str(error), now)
            return
        found = predecessor.listeners if predecessor is not None else {}
        try:
            patient = self._folder is not None
            self._sockets = open_missing(self._plan.addresses, found, patient=patient)
        except ListenError as error:
            close_all(found)
            if predecessor is not None:
                predecessor.connection.close()
            if self._folder is None:
                raise
            # The port belongs to an agent that cannot hand over, or not yet: wait for it.
            self._wait_for_listeners(str(error), now)
            return
        if predecessor is not None:
            self._predecessor = predecessor
            self._watch(predecessor.connection, self._heard_predecessor)
            _log.info("taking over from the agent before this one")
        self._begun = True
        self._note = ""
        for each in self._late():
            _log.warning(
                "another program has %s (%s): pods are served, and nobody there; tried again each "
                "%g s",
                each,
                each.name,
                RETRY_SECONDS,
            )

    def _late(self) -> list[Address]:
        """Return the addresses that another program had when this one began, and has still."""
        return [each for each in self._plan.addresses if each.name not in self._sockets]

    def _listen_late(self, now: float) -> None:
        """Listen where another program has ended; no successor knows such a socket."""
        settled = self._predecessor is None or self._predecessor.settled
        if not settled or self._successor is not None or now < self._due.late:
            return
        self._due.late = now + RETRY_SECONDS
        for each in self._late():
            with suppress(ListenError):
                made = listening_socket(each.host, each.port, freebind=each.freebind)
                self._sockets[each.name] = made
                _log.info("%s (%s) is free: this agent listens there", each, each.name)
                if self._worker is not None and not self._worker.give(each.name, made):
                    self._kill(self._worker, f"takes no socket of {each}")

    def _wait_for_listeners(self, why: str, now: float) -> None:
        if why != self._note:
            _log.warning("%s: tried again each %g s", why.rstrip("."), RETRY_SECONDS)
        self._note = why
        self._due.take = now + RETRY_SECONDS

    def _take_over(self) -> Predecessor | None:
        if self._folder is None:
            return None
        try:
            return self._folder.take(__version__, self._plan.agent, self._plan.addresses)
        except Untrusted as error:
            why = f"no hand-over from an agent before this one: {error}"
            if why != self._untrusted:
                _log.warning("%s", why)
            self._untrusted = why
            return None

    # Workers.

    def _workers(self) -> list[Worker]:
        return [*self._retired, *([self._worker] if self._worker is not None else [])]

    def _look_at_workers(self, now: float) -> None:
        for each in self._workers():
            if now >= each.hangs_at():
                self._kill(each, "hangs")
            elif self._stopping and now >= self._deadline:
                self._kill(each, "did not end in time")
                self._deadline = now + STOP_SECONDS
        worker = self._worker
        if worker is None:
            wanted = self._begun and not self._stopping and not self._gave()
            if wanted and now >= self._due.start:
                self._start(now)
        elif self._plan.memory and now >= self._due.memory:
            self._due.memory = now + MEMORY_SECONDS
            held = worker.memory()
            if held > self._plan.worker_memory:
                most = self._plan.worker_memory >> 20
                self._kill(worker, f"holds {held >> 20} MiB, more than {most} MiB")

    def _start(self, now: float) -> None:
        for name, listening in self._sockets.items():
            if why := restore(listening):
                _log.error("the socket of %s cannot be restored: %s: delete this pod", name, why)
        worker = Worker.start(
            self._main,
            self._sockets,
            now=now,
            memory=self._plan.memory,
            close=self._close_in_worker,
            missing={each.name: str(each) for each in self._late()},
        )
        self._worker = worker
        self._watch(worker.control, lambda: self._heard(worker))
        if self._predecessor is None or self._predecessor.gave:
            worker.tell(control.ACCEPT)

    def _heard(self, worker: Worker) -> None:
        now = time.monotonic()
        if not worker.listen(now):
            self._unwatch(worker.control)
        if worker is self._worker and self._is_over():
            self._due.close = min(self._due.close, now + ON_THE_WAY_SECONDS)

    def _retire(self, word: bytes = control.DRAIN) -> None:
        """Tell the worker to accept no more, to finish its open requests, and to end.

        With `control.PAUSE` it ends only after `_drain`.
        """
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.tell(word)
        self._retired.append(worker)
        if len(self._retired) > MOST_RETIRED:
            self._retired[0].signal(signal.SIGTERM)

    def _drain(self) -> None:
        """Have workers that paused answer who waits, and end.

        The rules led them to an address that the next agent has not. The end of the socket would
        reset their connections, and then the kernel would lead who comes from the same port of a
        pod to the old address for ten seconds more, where nobody listens: nf_conntrack keeps what
        was reset for so long (`tests/kernel/moving.py`).
        """
        for each in self._retired:
            each.tell(control.DRAIN)

    def _kill(self, worker: Worker, why: str) -> None:
        _log.error("worker %s %s: it is killed", worker.pid, why)
        worker.signal(signal.SIGKILL)
        worker.excuse(time.monotonic())

    def _reap(self) -> None:
        for worker in self._workers():
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if not pid:
                continue
            self._unwatch(worker.control)
            # Read its last report.
            worker.listen(time.monotonic())
            worker.close()
            if worker in self._retired:
                self._retired.remove(worker)
            else:
                self._worker = None
                self._ended(worker, os.waitstatus_to_exitcode(status), time.monotonic())

    def _end_strays(self) -> None:
        """Kill processes that a worker started and left: they are our children now."""
        for pid in children() - {each.pid for each in self._workers()}:
            if not os.waitpid(pid, os.WNOHANG)[0]:
                _log.error("process %s was left behind by a worker: it is killed", pid)
                os.kill(pid, signal.SIGKILL)

    def _ended(self, worker: Worker, code: int, now: float) -> None:
        if self._stopping:
            return
        self._has_worked = self._has_worked or worker.reported
        if code == CANNOT_BEGIN and not self._has_worked:
            self._code = CANNOT_BEGIN
            return
        lived = now - worker.began
        self._crashes = self._crashes + 1 if lived < SHORT_LIFE else 0
        pause = 0.0
        if self._crashes > 1:
            pause = backoff(FIRST_PAUSE, self._crashes - 1, LONGEST_PAUSE)
        self._due.start = now + pause
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        when = f"in {pause:g} s" if pause else "at once"
        self._note = f"the worker ended ({how})"
        _log.error("worker %s ended after %.1f s (%s): the next is started %s", worker.pid, lived,
                   how, when)  # fmt: skip

    # Hand-over.

    def _gave(self) -> bool:
        return self._successor is not None and self._successor.stage is not Stage.OFFERED

    def _look_at_handover(self, now: float) -> None:
        if self._predecessor is not None:
            self._go_on_taking(self._predecessor, now)
        if self._successor is not None and now >= self._successor.deadline:
            _log.error("version %s did not serve within %g s: this agent serves again",
                       self._successor.version, handover.SETTLE_SECONDS)  # fmt: skip
            self._successor.say(b"back")
            self._take_back()
        left_over = self._left_over(now)
        if left_over and left_over != self._said_left_over:
            _log.error("%s", left_over)
        self._said_left_over = left_over
        if self._folder is not None and self._should_publish() and now >= self._due.publish:
            self._publish(now)

    def _left_over(self, now: float) -> str:
        """Return why this agent is one too many on its node, with the next step; "" if it is not.

        It stays as it is, and serves again as soon as the other one ends.
        """
        successor = self._successor
        if self._stopping or successor is None:
            return ""
        if now - successor.settled < STANDS_BACK_SECONDS:
            return ""
        return (
            f"this agent stands back: {successor.agent or 'another'}, version {successor.version}, "
            "serves this node, and nobody ends this one, as an update would. A node has one NMI: "
            "delete one of the two DaemonSets"
        )

    def _should_publish(self) -> bool:
        ours = self._predecessor is None or self._predecessor.settled
        ready = self._worker is not None and self._worker.report.readiness is Readiness.READY
        return ours and ready and not self._stopping and self._published is None

    def _publish(self, now: float) -> None:
        if self._folder is None:
            return
        self._due.publish = now + PUBLISH_SECONDS
        try:
            self._published = self._folder.publish()
        except (OSError, Untrusted) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            if why != self._unpublished:
                _log.warning("an update will interrupt requests, for no agent can take over: %s",
                             why)  # fmt: skip
            self._unpublished = str(why)
        else:
            self._unpublished = ""
            self._watch(self._published, self._asked)

    def _asked(self) -> None:
        if self._folder is None or self._published is None:
            return
        serving = self._successor is None and not self._stopping
        found = self._folder.accept(self._published, self._sockets, serving=serving)
        if found is not None:
            self._successor = found
            self._watch(found.connection, self._heard_successor)
            _log.info("version %s prepares to take over", found.version)

    def _heard_successor(self) -> None:
        successor = self._successor
        if successor is None:
            return
        word = handover.hear(successor.connection)
        if word is None:
            return
        if word == b"ready" and successor.stage is Stage.OFFERED:
            self._give(successor)
        elif word == b"settled" and successor.stage is Stage.GIVEN:
            successor.stage, successor.deadline = Stage.SETTLED, float("inf")
            successor.settled = time.monotonic()
            self._drain()
            self._unpublish()
            _log.info("version %s serves", successor.version)
        elif word == b"bye":
            # It has handed over to another agent, so we take nothing back when it ends.
            self._unwatch(successor.connection)
        elif successor.stage is Stage.OFFERED:
            _log.warning("version %s gave up taking over", successor.version)
            self._drop_successor()
        else:
            _log.error("version %s has ended: this agent serves again", successor.version)
            self._take_back()

    def _is_elsewhere(self, successor: Successor) -> bool:
        """Whether pods are led to an address of ours, until it serves, that it has not."""
        ours = {str(each) for each in self._plan.addresses if not each.late}
        return bool(successor.addresses) and not ours <= successor.addresses

    def _give(self, successor: Successor) -> None:
        now = time.monotonic()
        successor.stage = Stage.GIVEN
        successor.deadline = now + handover.SETTLE_SECONDS
        self._retire(control.PAUSE if self._is_elsewhere(successor) else control.DRAIN)
        successor.say(b"yours")

    def _take_back(self) -> None:
        """Serve again, with a new worker beside the retired one."""
        self._drain()
        self._drop_successor()
        self._due.start = self._due.publish = 0.0

    def _drop_successor(self) -> None:
        if self._successor is not None:
            self._unwatch(self._successor.connection)
            self._successor.connection.close()
            self._successor = None

    def _unpublish(self) -> None:
        """Close our socket; its name belongs to the new agent now."""
        if self._published is not None:
            self._unwatch(self._published)
            self._published.close()
            self._published = None

    def _go_on_taking(self, predecessor: Predecessor, now: float) -> None:
        worker = self._worker
        if worker is None:
            return
        readiness = worker.report.readiness
        if not predecessor.said_ready and readiness is not Readiness.UNREADY:
            predecessor.said_ready = True
            predecessor.deadline = now + handover.ANSWER_SECONDS
            predecessor.say(b"ready")
        elif predecessor.said_ready and not predecessor.gave and now >= predecessor.deadline:
            _log.warning("the agent before does not answer: this one serves beside it")
            self._given(predecessor)
        elif predecessor.gave and not predecessor.settled and readiness is Readiness.READY:
            # Listen first, so that the next agent always finds one of us.
            self._publish(now)
            predecessor.settled = True
            predecessor.say(b"settled")
            _log.info("this agent serves")

    def _given(self, predecessor: Predecessor) -> None:
        predecessor.gave, predecessor.deadline = True, float("inf")
        if self._worker is not None:
            self._worker.tell(control.ACCEPT)

    def _heard_predecessor(self) -> None:
        predecessor = self._predecessor
        if predecessor is None:
            return
        word = handover.hear(predecessor.connection)
        if word is None:
            return
        if word == b"yours":
            self._given(predecessor)
        elif word == b"back":
            self._give_back(predecessor)
        else:
            # It ends, and the sockets are ours alone.
            _log.info("the agent before ends")
            self._unwatch(predecessor.connection)
            predecessor.connection.close()
            self._predecessor = None
            if self._worker is not None and not predecessor.gave:
                self._worker.tell(control.ACCEPT)

    def _give_back(self, predecessor: Predecessor) -> None:
        """Leave the listening sockets to the agent before, and try again later."""
        why = self._worker.report.detail if self._worker is not None else self._note
        _log.error("the agent before serves again, for this one was not ready in time: %s", why)
        self._unwatch(predecessor.connection)
        predecessor.connection.close()
        self._predecessor = None
        close_all(self._sockets)
        self._sockets = {}
        self._begun = False
        self._due.take = time.monotonic() + TAKEN_BACK_SECONDS
        self._note = "the agent before took the listeners back"
        self._retire()

    # Stopping.

    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGCHLD in numbers:
            self._reap()
        if signal.SIGHUP in numbers:
            for each in self._workers():
                each.signal(signal.SIGHUP)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        now = time.monotonic()
        successor = self._successor
        if successor is not None and successor.stage is Stage.OFFERED:
            # It is not ready, but there is no other: connections wait in the backlog.
            self._give(successor)
        if self._predecessor is not None and self._gave():
            self._predecessor.say(b"bye")
        if self._gave() or self._leave_to_predecessor():
            self._deadline = now + DRAIN_SECONDS
            self._drain()
            close_all(self._sockets)
            if successor is not None:
                # It must not take us for somebody who serves again when it ends itself.
                self._unwatch(successor.connection)
                successor.connection.close()
                successor.deadline = float("inf")
        elif self._plan.removes and self._worker is not None and self._predecessor is None:
            self._deadline = now + DRAIN_SECONDS
            self._due.close = now + REMOVAL_SECONDS
            self._worker.tell(control.LEAVE)
        else:
            self._end_workers(now)

    def _is_over(self) -> bool:
        """Whether this agent ends, and nobody is led to it any more."""
        worker = self._worker
        leaves = self._due.close < float("inf")
        return leaves and worker is not None and worker.report.readiness is Readiness.OVER

    def _accept_no_more(self, now: float) -> None:
        """Have kept connections answered once more if the rules are gone; end them otherwise."""
        if self._is_over():
            close_all(self._sockets)
            self._retire()
            self._due.close = now + LAST_ANSWERS_SECONDS
        else:
            self._due.close = float("inf")
            self._end_workers(now)

    def _end_workers(self, now: float) -> None:
        """Refuse connections, and have the requests under way finished."""
        self._deadline = now + STOP_SECONDS
        close_all(self._sockets)
        for each in self._workers():
            each.signal(signal.SIGTERM)

    def _leave_to_predecessor(self) -> bool:
        """Let the agent before serve again at once, if it is still there; return whether it is."""
        predecessor = self._predecessor
        if predecessor is None or not predecessor.gave:
            return False
        self._retire()
        self._unwatch(predecessor.connection)
        predecessor.connection.close()
        self._predecessor = None
        return True

    # Probes.

    def _probed(self) -> None:
        """Accept all that wait, so that nobody can keep the backlog full."""
        assert self._probe_socket is not None  # noqa: S101 - it is watched
        for _ in range(MOST_PROBES):
            try:
                connection, _ = self._probe_socket.accept()
            except OSError:
                return
            try:
                check_outsider(peer_of(connection).pid, "who asks the probe")
            except (Untrusted, OSError):
                connection.close()
                continue
            if len(self._probes) >= MOST_PROBES:
                connection.close()
                continue
            connection.setblocking(False)
            self._probes[connection] = _Probe(time.monotonic() + PROBE_SECONDS)
            # `_answer_probes` reads the question in the next turn.
            self._watch(connection, lambda: None)

    def _answer_probes(self, now: float) -> None:
        """Answer `live` at once, and `ready` as soon as it is true or the probe's time is over."""
        ready, text = self._readiness()
        for connection, probe in list(self._probes.items()):
            said = handover.hear(connection)
            probe.word = said or probe.word
            if probe.word == b"live":
                answer = "ok\n"
            elif probe.word and ready:
                answer = f"ok {text}\n"
            elif now >= probe.deadline or said == b"":
                answer = f"not ready: {text}\n"
            else:
                continue
            with suppress(OSError):
                connection.send(answer.encode()[:LARGEST_ANSWER])
            del self._probes[connection]
            self._unwatch(connection)
            connection.close()

    def _readiness(self) -> tuple[bool, str]:
        if left_over := self._left_over(time.monotonic()):
            return False, left_over
        if self._gave():
            return True, "the next agent serves"
        if self._worker is None:
            return False, self._note or "no worker runs"
        report = self._worker.report
        return report.readiness is Readiness.READY, report.detail

    # Descriptors.

    def _watch(self, found: socket.socket | int, call: Callable[[], None]) -> None:
        self._selector.register(found, selectors.EVENT_READ, call)

    def _unwatch(self, found: socket.socket) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(found)

    def _close_in_worker(self) -> None:
        """Close all files of the supervisor that a worker must not have."""
        for each in (self._probe_socket, self._published, *self._probes):
            if each is not None:
                each.close()
        for worker in self._workers():
            worker.close()
        for peer in (self._predecessor, self._successor):
            if peer is not None:
                peer.connection.close()
        for descriptor in self._pipe:
            os.close(descriptor)
        self._selector.close()

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        for each in self._workers():
            each.signal(signal.SIGKILL)
            os.waitpid(each.pid, 0)
        self._close_in_worker()
        close_all(self._sockets)
