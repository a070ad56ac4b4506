"""A container's life: started, watched, restarted after a while, stopped."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from podidentity_sandbox.node.console import Console
from podidentity_sandbox.node.health import Patient, run_beside, watch_over
from podidentity_sandbox.node.logs import RunLog
from podidentity_sandbox.node.orders import (
    Surroundings,
    order_beside,
    order_for,
    runs_as_other_than_root,
)
from podidentity_sandbox.node.processes import Process, StartFailed
from podidentity_sandbox.node.programs import Order, Program
from podidentity_sandbox.node.refusals import ContainerRefused
from podidentity_sandbox.node.runs import Run, log_of
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import ContainerSpec, Exec, PodSpec, Sleep
from podidentity_sandbox.node.status import (
    LONGEST_BACKOFF,
    ContainerState,
    restart_delay,
    restarts_after,
)

_RUNTIME = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: {}: unknown"
)
"""Words of containerd and runc around the reason."""
_REFUSED_SECONDS = 10.0
"""Seconds after which a container that cannot be made is tried again."""
_LEAST_GRACE = 2.0
"""Seconds that a program has after a hook, however long that took."""
_START_ERROR = 128
"""containerd's exit code of a container whose program could not be started."""


class Container:
    """One container of a pod."""

    def __init__(
        self, spec: ContainerSpec, pod: PodSpec, services: Services, changed: Callable[[], None]
    ) -> None:
        self.spec = spec
        self.state = ContainerState()
        self._pod = pod
        self._services = services
        self._changed = changed
        self._process: Process | None = None
        self._starting: asyncio.Task[Process] | None = None
        self._program: Program | None = None
        self._runs: list[Run] = []
        self._ended_before = 0
        """Processes that earlier runs lost for want of memory."""

    @property
    def running(self) -> Process | None:
        """The process of its program, if there is one."""
        process = self._process
        return process if process is not None and not process.ended.done() else None

    @property
    def console(self) -> Console:
        """The standard streams of its program, which is running."""
        return self._runs[-1].console

    def log_of(self, *, previous: bool) -> RunLog:
        """Return the log of its present or latest run, or of the one before; raise LogRefused."""
        return log_of(self.spec.name, self._pod.name, self.state, self._runs, previous=previous)

    async def keep_running(self, around: Surroundings, policy: str) -> int:
        """Run it, and again as `policy` says; return the exit code when it is not to run again."""
        attempts = 0
        while True:
            began = self._services.clock.now()
            code = await self._run(around)
            if not restarts_after(policy, code):
                return code
            ran = (self._services.clock.now() - began).total_seconds()
            attempts = 1 if ran > 2 * LONGEST_BACKOFF else attempts + 1
            await self._back_off(restart_delay(attempts))
            self.state.restarts += 1

    async def stop(self, grace: float, hurry: asyncio.Event) -> None:
        """End it: SIGTERM, and SIGKILL after `grace` seconds or when told to `hurry`."""
        if self._starting is not None:
            with suppress(StartFailed):
                self._process = await self._starting
        if self._process is None or self._process.ended.done():
            return
        self._tell("Killing", f"Stopping container {self.spec.name}")
        await self._end(self._process, grace, hurry)
        code = await self._process.wait()
        await self._runs[-1].heard()
        self._ended(code)

    async def execute(self, argv: tuple[str, ...], fds: list[int], *, terminal: bool) -> Process:
        """Start another program beside the container's; raise StartFailed."""
        if self.running is None or self._program is None:
            raise StartFailed(f"container {self.spec.name} is not running")
        order = order_beside(self._program, self.running.pid, argv, terminal=terminal)
        return await asyncio.shield(asyncio.create_task(self._services.launcher.start(order, fds)))

    async def _run(self, around: Surroundings) -> int:
        """Run it once; return its exit code."""
        clock = self._services.clock
        order = await self._order(around)
        self._ended_before = self._ended_for_memory()
        # There is no image to pull.
        image = f'Container image "{self.spec.image}" already present on machine'
        self._tell("Pulled", image)
        identity = f"sandbox://{uuid.uuid4().hex}"
        self._tell("Created", f"Created container: {self.spec.name}")
        try:
            process = await self._start(order)
        except StartFailed as error:
            return self._start_failed(_RUNTIME.format(error), identity)
        self.state.run(identity, clock.now())
        self.state.started = self.spec.startup is None
        self.state.ready = self.state.started and self.spec.readiness is None
        self._changed()
        self._tell("Started", f"Started container {self.spec.name}")
        code = await self._watch(process, around)
        await self._runs[-1].heard()
        self._ended(code)
        self._changed()
        return code

    def _ended(self, code: int) -> None:
        """Note how a run ended.

        Its reason is OOMKilled whenever the kernel ended one of its processes for want of memory,
        even if the program went on and ended otherwise: containerd's handler of TaskOOM.
        https://github.com/containerd/containerd/blob/main/internal/cri/server/events.go
        """
        reason = "OOMKilled" if self._ended_for_memory() > self._ended_before else ""
        self.state.end(code, self._services.clock.now(), reason=reason)

    def _ended_for_memory(self) -> int:
        return self._services.cgroups.out_of_memory(self._pod.uid, self.spec.name)

    async def _start(self, order: Order) -> Process:
        if self._services.plan.rootless and runs_as_other_than_root(self.spec, self._pod):
            self._warn("RunAsUser", "this sandbox runs without root: its only user is 0")
        # Whoever stops the pod meanwhile waits for this, so that no program is forgotten.
        self._starting = asyncio.create_task(self._launch(order))
        self._process = await asyncio.shield(self._starting)
        self._program = order.program
        return self._process

    async def _launch(self, order: Order) -> Process:
        pod = self._pod
        folder = self._services.plan.path / "nodes" / self._services.node.name
        folder = folder / f"{pod.namespace}_{pod.name}_{pod.uid}" / self.spec.name
        log = RunLog(folder, self.state.restarts, self._services.clock)
        run = Run(Console(stdin=self.spec.stdin, tty=self.spec.tty), log)
        self._runs = [*self._runs[-1:], run]
        return await run.start(order, self._services.launcher)

    def _start_failed(self, why: str, identity: str) -> int:
        self.state.identity = identity
        now = self._services.clock.now()
        self.state.end(_START_ERROR, now, reason="StartError", message=why)
        if restarts_after(self._pod.restart_policy, _START_ERROR):
            self.state.wait("RunContainerError", why)
        self._changed()
        self._warn("Failed", f"Error: {why}")
        return _START_ERROR

    async def _order(self, around: Surroundings) -> Order:
        """Return the order that starts it; ask again while it is refused, as a kubelet does."""
        while True:
            try:
                return await order_for(self.spec, around, self._services)
            except ContainerRefused as error:
                self.state.wait(error.reason, str(error))
                self._changed()
                self._warn("Failed", f"Error: {error}")
            await self._services.clock.sleep(_REFUSED_SECONDS)

    async def _back_off(self, delay: float) -> None:
        if not delay:
            return
        name, pod = self.spec.name, self._pod
        which = f"{pod.name}_{pod.namespace}({pod.uid})"
        where = f"{name} pod={which}"
        message = f"back-off {delay:.0f}s restarting failed container={where}"
        self.state.wait("CrashLoopBackOff", message)
        self._changed()
        self._warn("BackOff", f"Back-off restarting failed container {name} in pod {which}")
        await self._services.clock.sleep(delay)

    async def _watch(self, process: Process, around: Surroundings) -> int:
        """Wait for the program's end, probing it; return its exit code."""
        patient = Patient(
            spec=self.spec,
            state=self.state,
            address=around.address,
            changed=self._changed,
            warn=self._warn,
            tell=self._tell,
            end=partial(self._end_of_probe, process),
            execute=partial(self.execute, terminal=False),
        )
        watcher = asyncio.create_task(watch_over(patient, self._services))
        try:
            return await process.wait()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _end_of_probe(self, process: Process, grace: float | None) -> None:
        await self._end(process, self._pod.grace if grace is None else grace, asyncio.Event())

    async def _end(self, process: Process, grace: float, hurry: asyncio.Event) -> None:
        if grace > 0 and self.spec.pre_stop is not None:
            began = self._services.clock.now()
            await self._pre_stop(self.spec.pre_stop, grace, hurry)
            took = (self._services.clock.now() - began).total_seconds()
            grace = max(grace - took, _LEAST_GRACE)
        # What idles in place of an image has nothing to bring to an end.
        if self.spec.command and grace > 0 and not process.ended.done():
            await process.signal(signal.SIGTERM)
            waits: list[asyncio.Task[Any]] = [
                asyncio.create_task(process.wait()),
                asyncio.create_task(hurry.wait()),
                asyncio.create_task(self._services.clock.sleep(grace)),
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        await process.signal(signal.SIGKILL)
        await process.wait()

    async def _pre_stop(self, hook: Exec | Sleep, grace: float, hurry: asyncio.Event) -> None:
        """Run a hook: executePreStopHook of pkg/kubelet/kuberuntime/kuberuntime_container.go."""
        if isinstance(hook, Sleep):
            waiting = asyncio.create_task(hurry.wait())
            sleeping = asyncio.create_task(self._services.clock.sleep(min(hook.seconds, grace)))
            await asyncio.wait([waiting, sleeping], return_when=asyncio.FIRST_COMPLETED)
            for each in (waiting, sleeping):
                each.cancel()
            return
        if await run_beside(partial(self.execute, terminal=False), hook, grace) is not None:
            self._warn("FailedPreStopHook", "PreStopHook failed")

    def _tell(self, reason: str, message: str) -> None:
        self._services.events.tell(self._pod, reason, message, container=self.spec.name)

    def _warn(self, reason: str, message: str) -> None:
        self._services.events.warn(self._pod, reason, message, container=self.spec.name)
