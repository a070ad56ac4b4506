"""Assembles the program `net`: it closes IMDS, opens the socket for `serve`, and redirects pods.

IMDS is closed first of all: else each pod of the node reaches the real metadata service. Pods are
redirected as soon as `serve` listens. What they send until then is dropped, so that it is sent
again, or answered by the NMI whose place this one takes; a closed port would be an answer.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podidentity import __version__
from podidentity.adapters.clock import SystemClock
from podidentity.core.attestation import AttestationMode
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.connecting import Connecting
from podidentity.kernel.interception import Interception, InterceptionError
from podidentity.kernel.namespaces import NamespaceKey
from podidentity.kernel.source_guard import NOT_GUARDED_YET, SourceGuard
from podidentity.local_sockets import keep_names, listen
from podidentity.net.liveness import LivenessSocket
from podidentity.net.path_probe import PathProber
from podidentity.net.plan import NetPlan
from podidentity.net.rules_lock import RulesLock, prepare
from podidentity.net.server import NetServer
from podidentity.supervisor.privileges import capabilities
from podidentity.telemetry.process import keep_small
from podidentity.wire.net import State

if TYPE_CHECKING:
    from podidentity.core.ports import Clock

CHECK_SECONDS = 1.0
"""Between two checks of the state that is reported to `serve`; repairs do not wait for them."""

SHORT_CHECK_SECONDS = 0.1
"""The same while another agent has the rules lock, or the rules are not set yet: a hand-over, or
the readiness of this agent, waits for the result."""
RETRY_SECONDS = 1.0
"""Between two attempts to set rules that could not be set."""
LISTENER_SECONDS = 30.0
"""Longest time that the redirection waits for `serve` to listen. After it the rules are there, and
watched, whether anybody listens or not."""
LOOK_SECONDS = 0.05
"""Between two looks whether it listens."""
STRANGER_SECONDS = 0.25
"""Between two looks whether another user's program listens in its place."""
_STRANGER = (
    "a program of user {user} listens at {where}, where only NMI may: pods are not led there and"
    " get no token. End that program; on the node ss -ltnp 'sport = :{port}' names it"
)
LAST_SECONDS = 85.0
"""Longest time that `serve` may need to end, and less than its pod has."""

_NEEDED = {
    AttestationMode.ADDRESS: ("NET_ADMIN",),
    AttestationMode.NAMESPACE: ("NET_ADMIN", "SYS_ADMIN"),
    AttestationMode.KERNEL: ("NET_ADMIN", "SYS_ADMIN", "DAC_READ_SEARCH"),
}
_NUMBERS = {"DAC_READ_SEARCH": 2, "NET_ADMIN": 12, "SYS_ADMIN": 21}
"""linux/capability.h."""

_log = logging.getLogger("podidentity.net")


async def run(plan: NetPlan, begun: Callable[[], None] = lambda: None) -> None:
    """Guard the node and answer `serve` until SIGTERM or SIGINT; call `begun` once it does.

    If the rules cannot be set, it tells `serve` why and tries again. Raises InterceptionError,
    OSError or ValueError if it cannot begin.
    """
    clock, redirect, mode = SystemClock(), plan.redirect, plan.attestation
    lacking = lacking_capabilities(capabilities(), mode)
    if lacking:
        _log.error("%s", lacking)
    async with AsyncExitStack() as stack:
        guard = _guard_of(plan, clock)
        stack.callback(guard.interception.close)
        lock = RulesLock(_lock_folder(plan), clock, install=guard.begin, leave=guard.end)
        if lock.begin():
            guard.start()
        inspector = _inspector(plan, stack)
        if mode is not AttestationMode.ADDRESS:
            guard.sources = lambda: SourceGuard(
                inspector.networks, redirect, clock, bridges=plan.guards_bridges
            )
            guard.tell(inspector)
        if lock.holds:
            guard.guard_sources()
        server = _serve(plan, inspector, guard, lock, stack)
        gc.collect()
        gc.freeze()
        begun()
        if lock.holds:
            await guard.begin()
        connecting = Connecting(redirect.imds, clock)
        reporter = Reporter(guard, connecting, lock, inspector, server, clock, mode, lacking)
        end = partial(end_in_order, server, guard, lock, reporter.tell, removes=plan.removes)
        if await _until_told_to_stop(
            end, guard.run, inspector.follow, lock.run, reporter.run, partial(keep_small, clock)
        ):
            guard.remove()
        else:
            _log.info("stopped; the interception stays")


async def end_in_order(
    server: NetServer, guard: Guard, lock: RulesLock, tell: Callable[[], None], *, removes: bool
) -> bool:
    """Return when `serve` has ended, or its time is over, and whether the rules are to go then.

    With `removes` those that lead pods here go before: until `tell` has told it that they are gone
    `serve` answers, so that no request meets a closed port. None go where another agent has them,
    or takes them back from this one.
    """
    lock.take_no_more()
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_SECONDS):
            if removes:
                await server.none_follows()
                if lock.holds and not lock.goes_back:
                    await guard.release()
                    tell()
            # `serve` may have to prove a caller for requests that it has already.
            await server.no_clients()
    return removes and lock.holds and not lock.goes_back


def lacking_capabilities(held: int, mode: AttestationMode) -> str:
    """Return the capabilities that `net` lacks, with the next step; "" if it lacks none.

    `held` is the set of its capabilities, as bits.
    """
    lacking = [f"CAP_{name}" for name in _NEEDED[mode] if not held >> _NUMBERS[name] & 1]
    if not lacking:
        return ""
    return (
        f"net lacks {' and '.join(lacking)}: add that to securityContext.capabilities.add of "
        "container net, or run it as root of the node"
    )


def _users(plan: NetPlan) -> frozenset[int]:
    """Return the users of `serve`: a manifest with one container has it stay root."""
    return frozenset({plan.serve_user, os.geteuid()})


def _guard_of(plan: NetPlan, clock: Clock) -> Guard:
    interception = Interception(plan.redirect, clock)
    return Guard(interception, clock, closes=plan.closes, users=_users(plan))


def _inspector(plan: NetPlan, stack: AsyncExitStack) -> ConnectionInspector:
    redirect = plan.redirect
    inspector = ConnectionInspector.open(
        plan.attestation,
        netns_dirs=plan.netns_dirs,
        cgroup_root=plan.cgroup_root,
        listener=redirect.listener,
        imds=redirect.imds,
        node_listener=redirect.node_listener,
    )
    stack.callback(inspector.close)
    return inspector


def _serve(
    plan: NetPlan,
    inspector: ConnectionInspector,
    guard: Guard,
    lock: RulesLock,
    stack: AsyncExitStack,
) -> NetServer:
    server = NetServer(
        inspector,
        PathProber(plan.redirect, inspector.bound_socket, guard.plane_of),
        version=__version__,
        uids=_users(plan),
        accepting=lock.accepting,
    )
    stack.callback(server.close)
    runtime = plan.socket.parent
    with suppress(OSError):
        # `serve` may write to it, so that a taken worker could answer the kubelet's probe for us.
        keep_names(runtime)
    server.start(listen(plan.socket))
    stack.callback(LivenessSocket(runtime).close)
    _log.info("guarding node %s, asked at %s", plan.node, plan.socket)
    _log.info("callers are proved by --attestation=%s", plan.attestation)
    if plan.attestation is not AttestationMode.ADDRESS:
        for problem in inspector.problems():
            _log.error("callers cannot be proved: %s", problem)
    return server


def _lock_folder(plan: NetPlan) -> Path | None:
    if plan.handover_folder is not None:
        prepare(plan.handover_folder, group=plan.serve_user)
    return plan.lock_folder


class Guard:
    """Sets and repairs the rules of the node while this agent has the rules lock."""

    def __init__(
        self,
        interception: Interception,
        clock: Clock,
        *,
        closes: bool = False,
        users: frozenset[int] = frozenset({0}),
    ) -> None:
        """With `closes` the rules that close IMDS stay when the others are removed.

        Pods are led to a listener of these `users` only, of which `serve` is one.
        """
        self.interception = interception
        self._closes = closes
        self._users = users
        self._stranger = ""
        """Who listens in the place of `serve`."""
        self.sources: Callable[[], SourceGuard] | None = None
        """Creates the source guard; None if callers are not proved."""
        self._source_guard: SourceGuard | None = None
        self._repairing: asyncio.Task[None] | None = None
        self.removed = False
        """Whether the rules that lead pods here were removed."""
        self.waiting = False
        """Whether they are not set yet, because nobody listened when this agent began."""
        self._last_known: tuple[str, ...] = (NOT_GUARDED_YET,)
        """What was wrong with the sources when they were guarded last."""
        self._clock = clock
        self._failure = ""
        """Why the rules could not be set at the last attempt."""
        self._wanted, self._unwanted, self._ended = (asyncio.Event() for _ in range(3))
        self._ended.set()

    def start(self) -> None:
        """Close IMDS, and set the other rules if `serve` listens where they lead; else `run` does.

        After an error the reason is in `interception_problems`.
        """
        user = self.interception.listener_user()
        self.waiting = user not in self._users
        if self.waiting:
            self._close(user)
        else:
            self.install()

    def install(self) -> None:
        self._try(self.interception.install)

    def _close(self, user: int | None) -> None:
        """Close IMDS, and lead pods no more to the listener of another user, if there is one."""
        where = self.interception.listener
        said = "" if user is None else _STRANGER.format(user=user, where=where, port=where.port)
        if said and (said != self._stranger or self._failure):
            _log.error("%s", said)
            self._try(partial(self.interception.release, closed=True))
        else:
            self._try(self.interception.close_imds)
        self._stranger = said

    def _try(self, change: Callable[[], None]) -> None:
        try:
            change()
        except InterceptionError as error:
            if str(error) != self._failure:
                _log.error("%s", error)
            self._failure = str(error)
        else:
            self._failure = ""

    def guard_sources(self) -> None:
        """Bind pods' addresses to their ports, if the other rules are set; adopt earlier bindings.

        Do this before the first report to `serve`: it ends kept connections when it learns that
        sources are not guarded, and this `net` may be one that was restarted.
        """
        if self.sources is not None and not self._failure:
            self._source_guard = self._source_guard or self.sources()
            self._source_guard.refresh()

    async def begin(self) -> None:
        """Start to set and repair the rules, in the place of those that stand."""
        self._ended.clear()
        self._unwanted.clear()
        self._wanted.set()
        self.removed = False

    async def end(self) -> None:
        await self._stop_repairing()
        self.interception.yield_rules()

    async def _stop_repairing(self) -> None:
        self._wanted.clear()
        self._unwanted.set()
        await self._ended.wait()

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            guarding = asyncio.create_task(self._guard())
            unwanted = asyncio.create_task(self._unwanted.wait())
            try:
                await asyncio.wait({guarding, unwanted}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                unwanted.cancel()
                await _end(guarding)
                self._close_sources()
            self._ended.set()

    async def release(self) -> None:
        """Remove the rules that lead pods here, and repair them no more.

        Sources are guarded until `run` ends: connections that are open need it to be proved. After
        an error, which is logged, the rules are as they were.
        """
        self._wanted.clear()
        if self._repairing is None:
            await self._stop_repairing()
        else:
            await _end(self._repairing)
        try:
            await asyncio.to_thread(self.interception.release, closed=self._closes)
        except InterceptionError as error:
            _log.error("%s", error)
        else:
            self._say_removed()

    def remove(self) -> None:
        """Remove all rules, after `run` has ended."""
        if self.sources is not None:
            sources = self.sources()
            sources.remove()
            sources.close()
        for left in self.interception.remove(closed=self._closes):
            _log.warning("left to do: %s", left)
        if not self.removed:
            self._say_removed()

    def _say_removed(self) -> None:
        self.removed = True
        now = (
            "pods reach nobody until another NMI leads them to itself"
            if self._closes
            else "pods reach the real metadata service"
        )
        _log.warning("the interception is removed: %s", now)

    def interception_problems(self) -> tuple[str, ...]:
        return (*filter(None, (self._stranger, self._failure)), *self.interception.problems())

    def bound_to(self, address: str) -> NamespaceKey | None:
        """Return the only namespace that can send from an address; None if it is not known."""
        return None if self._source_guard is None else self._source_guard.bound_to(address)

    def tell(self, inspector: ConnectionInspector) -> None:
        inspector.bound_to = self.bound_to
        inspector.guarded = lambda: not self.source_problems()

    def plane_of(self, address: str) -> str:
        return "" if self._source_guard is None else self._source_guard.plane_of(address)

    @property
    def changes(self) -> int:
        """A number that grows with each repair, and each change of the node's links."""
        guard = self._source_guard
        return self.interception.repairs + (guard.repairs + guard.moves if guard else 0)

    def source_problems(self) -> tuple[str, ...]:
        """Return the reasons why a pod may be able to send from another's address.

        While another agent guards, these are what was known last. `serve` ends the connections that
        pods keep where sources are not guarded; and whether the other agent guards them is unknown.
        """
        if self.sources is None:
            return ()
        if self._source_guard is not None:
            return self._source_guard.problems()
        return self._last_known

    def warnings(self) -> tuple[str, ...]:
        more = () if self._source_guard is None else self._source_guard.warnings()
        return (*self.interception.warnings(), *more)

    async def _guard(self) -> None:
        await self._set()
        try:
            async with asyncio.TaskGroup() as group:
                self._repairing = group.create_task(self._repair())
                self.guard_sources()
                if self._source_guard is not None:
                    group.create_task(self._source_guard.run())
        finally:
            self._repairing = None

    async def _set(self) -> None:
        """Set the rules once `serve` listens, or late."""
        await self._listener()
        while True:
            await asyncio.to_thread(self.install)
            if not self._failure:
                break
            await self._clock.sleep(RETRY_SECONDS)
        self.waiting = False

    async def _repair(self) -> None:
        while True:
            repairing = asyncio.create_task(self.interception.guard())
            watching = asyncio.create_task(self._until_stranger())
            try:
                await asyncio.wait({repairing, watching}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(watching)
                await _end(repairing)
            self.waiting = True
            await self._set()

    async def _until_stranger(self) -> None:
        while self.interception.listener_user() in {None, *self._users}:
            await self._clock.sleep(STRANGER_SECONDS)

    async def _listener(self) -> None:
        """Return when `serve` listens where the rules lead, or late if nobody does.

        IMDS is closed until then.
        """
        begun = self._clock.monotonic()
        where = self.interception.listener
        said = False
        while (user := self.interception.listener_user()) not in self._users:
            if not said:
                _log.info("pods are redirected when serve listens at %s; IMDS is closed", where)
                said = True
            if user is None and self._clock.monotonic() >= begun + LISTENER_SECONDS:
                _log.warning("nobody listens at %s: pods are redirected, and refused", where)
                break
            await asyncio.to_thread(self._close, user)
            await self._clock.sleep(LOOK_SECONDS)
        self._stranger = ""

    def _close_sources(self) -> None:
        if self._source_guard is not None:
            self._last_known = self._source_guard.problems()
            self._source_guard.close()
            self._source_guard = None


@dataclass(frozen=True, slots=True)
class Reporter:
    """Reports the state to `serve`."""

    guard: Guard
    connecting: Connecting
    lock: RulesLock
    inspector: ConnectionInspector
    server: NetServer
    clock: Clock
    mode: AttestationMode
    lacking: str
    """The capabilities that are missing."""

    async def run(self) -> None:
        while True:
            self.tell()
            settled = self.lock.holds and not self.guard.waiting
            await self.clock.sleep(CHECK_SECONDS if settled else SHORT_CHECK_SECONDS)

    def tell(self) -> None:
        self.server.tell(self._state())

    def _state(self) -> State:
        holds = self.lock.holds
        interception = self.connecting.problems()
        if holds:
            interception = (*interception, *self.guard.interception_problems())
        if self.lock.problem:
            interception = (*interception, self.lock.problem)
        proving = self.mode is not AttestationMode.ADDRESS
        attestation = self.inspector.problems() if proving else ()
        if self.lacking:
            attestation = (self.lacking, *attestation)
        warnings = self.guard.warnings() if holds else ()
        if self.lock.warning:
            warnings = (*warnings, self.lock.warning)
        return State(
            interception=interception,
            attestation=attestation,
            sources=self.guard.source_problems(),
            warnings=warnings,
            closed_by=self.guard.interception.closed_by,
            repairs=self.guard.interception.repairs,
            dropped_resets=self.guard.interception.dropped_resets,
            proof=self.mode,
            guards=holds,
            changes=self.guard.changes,
            removed=self.guard.removed,
        )


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end; raise the error that had ended it before."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _until_told_to_stop(
    end: Callable[[], Awaitable[bool]], *tasks: Callable[[], Coroutine[Any, Any, None]]
) -> bool:
    """Run tasks until told to stop, and `end` while they still run; return its result."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task()) for task in tasks]
        await told.wait()
        found = await end()
        for task in running:
            task.cancel()
    return found
