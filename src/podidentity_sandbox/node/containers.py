"""A container's life: started, watched, restarted after a while, stopped."""

from __future__ import annotations

import asyncio
import signal
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from podidentity_sandbox.node.environment import expand, fetch_references, variables
from podidentity_sandbox.node.launcher import Program, StartRequest
from podidentity_sandbox.node.logs import Log, LogRefused, RunLog, last_words
from podidentity_sandbox.node.probes import Report, probe_exec, probe_once, repeat_probe
from podidentity_sandbox.node.processes import LauncherClient, Process, StartFailed
from podidentity_sandbox.node.rootfs import Isolation
from podidentity_sandbox.node.security import rights
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import (
    ContainerRefused,
    ContainerSpec,
    Exec,
    PodSpec,
    Probe,
    memory_limit,
    pod_fields,
)
from podidentity_sandbox.node.status import (
    LONGEST_BACKOFF,
    ContainerState,
    restart_delay,
    restarts_after,
)
from podidentity_sandbox.node.streams import Console
from podidentity_sandbox.node.volumes import AUTHORITIES, PodVolumes
from podidentity_sandbox.plan import APISERVER_ADDRESS

# ---- From a container's spec to the request that starts it

_IDLE = ("sleep", "infinity")
_AUTHORITIES_VARIABLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodResources:
    """The part of a pod that its containers share."""

    pod: PodSpec
    address: str
    network: str
    """File of the pod's network namespace, "" for the node's; with a container runtime, the id of
    the pod's sandbox."""
    volumes: PodVolumes


async def start_request(
    container: ContainerSpec, resources: PodResources, services: Services
) -> StartRequest:
    """Return the request that starts a container; raise ContainerRefused."""
    may = rights(resources.pod.security, container.security)
    plan = services.plan
    given = {
        "PATH": services.search_path,
        "HOME": "/root",
        "HOSTNAME": resources.volumes.hostname,
        **dict.fromkeys(_AUTHORITIES_VARIABLES, AUTHORITIES),
    }
    environment = await environment_of(container, resources, services, given)
    if container.tty:
        environment.setdefault("TERM", "xterm")
    program = Program(
        argv=tuple(expand(word, environment) for word in container.program) or _IDLE,
        environment=tuple(environment.items()),
        directory=container.directory,
        uid=0 if plan.rootless else may.uid,
        gid=0 if plan.rootless else may.gid,
        groups=() if plan.rootless else may.groups,
        capabilities=may.capabilities,
        no_new_privileges=may.no_new_privileges,
        cgroups=_cgroups(container, resources.pod, services),
        terminal=container.tty,
        reaped=not container.program,
    )
    isolation = Isolation(
        hostname=resources.volumes.hostname,
        network=resources.network,
        binds=resources.volumes.binds(container),
        hidden=(plan.folder,),
        kept=services.kept,
        read_only_root=may.read_only_root,
        system_writable=may.privileged,
        rootless=plan.rootless,
    )
    return StartRequest(program=program, isolation=isolation)


def _cgroups(container: ContainerSpec, pod: PodSpec, services: Services) -> tuple[str, ...]:
    """Make the container's cgroups, in those of the pod, with their limits of memory."""
    try:
        limits = [memory_limit(each.resources) for each in pod.containers]
        own = memory_limit(container.resources)
    except ValueError as error:
        raise ContainerRefused("CreateContainerConfigError", str(error)) from error
    services.cgroups.make_pod(pod.cgroup, limits)
    return services.cgroups.make_container(f"{pod.cgroup}/{container.name}", own)


async def environment_of(
    container: ContainerSpec, resources: PodResources, services: Services, given: Mapping[str, str]
) -> dict[str, str]:
    """Return `given`, what every pod has, and the container's own variables.

    Raises ContainerRefused.
    """
    pod = resources.pod
    found = await fetch_references(container, pod.namespace, services.api)
    fields = pod_fields(pod.raw, pod_address=resources.address, host_address=services.node.address)
    server = {"KUBERNETES_SERVICE_HOST": APISERVER_ADDRESS, "KUBERNETES_SERVICE_PORT": "443"}
    return variables(container, fields, {**given, **server}, namespace=pod.namespace, found=found)


# ---- The container

StartProgram = Callable[[], Coroutine[Any, Any, Process]]
"""Starts a container's program; raises StartFailed."""
_RUNTIME = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: {}: unknown"
)
"""The message of containerd and runc, with the reason."""
_REFUSED_SECONDS = 10.0
"""Seconds after which a container that cannot be made is tried again."""
_LEAST_GRACE = 2.0
"""Seconds that a program has after a hook, however long that took."""
_START_ERROR = 128
"""containerd's exit code of a container whose program could not be started."""


class Container(ABC):
    """One container of a pod; what starts its program is said by those who derive from it."""

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
        self._identity = ""
        """`containerID` of the latest run."""
        self._logs: list[Log] = []
        """Of the latest two runs."""

    @property
    def running(self) -> Process | None:
        process = self._process
        return process if process is not None and not process.ended.done() else None

    def log_of(self, *, previous: bool) -> Log:
        """Return the log of its present or latest run, or of the one before; raise LogRefused.

        Which is meant is the kubelet's rule validateContainerLogStatus, in its words:
        https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kubelet_pods.go
        """
        logs, state = self._logs, self.state
        if previous:
            ended = logs if state.running is None and state.terminated is None else logs[:-1]
            if state.last is None or not ended:
                what = f'previous terminated container "{self.spec.name}" in pod'
                raise LogRefused(f'{what} "{self._pod.name}" not found')
            return ended[-1]
        if not logs:
            what = f'container "{self.spec.name}" in pod "{self._pod.name}"'
            reason = (state.waiting or {}).get("reason", "")
            raise LogRefused(f"{what} is waiting to start: {reason}")
        return logs[-1]

    async def keep_running(self, resources: PodResources, policy: str) -> int:
        """Run it, and again as `policy` says; return the exit code when it is not to run again."""
        attempts = 0
        while True:
            began = datetime.now(UTC)
            code = await self._run(resources)
            if not restarts_after(policy, code):
                return code
            ran = (datetime.now(UTC) - began).total_seconds()
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
        await self._heard()
        self._ended(code)

    @abstractmethod
    async def execute(self, argv: tuple[str, ...], fds: list[int], *, terminal: bool) -> Process:
        """Start another program beside the container's; raise StartFailed."""

    @abstractmethod
    async def ask(self, program: Exec, seconds: float) -> str | None:
        """Run a probe's or hook's program; return what it said if it fails, None if not."""

    @abstractmethod
    async def _prepared(self, resources: PodResources) -> StartProgram:
        """Return what starts it; raise ContainerRefused."""

    @abstractmethod
    async def _terminate(self, process: Process, grace: float, hurry: asyncio.Event) -> None:
        """End its program: SIGTERM, and SIGKILL after `grace` seconds or when told to `hurry`."""

    @abstractmethod
    async def _heard(self) -> None:
        """Return when all that the latest run wrote is in its log."""

    @abstractmethod
    def _reason(self) -> str:
        """Return why the latest run ended, where its exit code does not say it; else ""."""

    async def _run(self, resources: PodResources) -> int:
        start = await self._request(resources)
        # There is no image to pull.
        image = f'Container image "{self.spec.image}" already present on machine'
        self._tell("Pulled", image)
        self._tell("Created", f"Created container: {self.spec.name}")
        try:
            process = await self._start(start)
        except StartFailed as error:
            return self._start_failed(str(error))
        self.state.run(self._identity, datetime.now(UTC))
        self.state.started = True
        self.state.ready = self.spec.readiness is None
        self._changed()
        self._tell("Started", f"Started container {self.spec.name}")
        code = await self._watch(process, resources)
        await self._heard()
        self._ended(code)
        self._changed()
        return code

    def _ended(self, code: int) -> None:
        # The file /dev/termination-log is not read here; nothing of ours writes it.
        falls_back = self.spec.termination_message_policy == "FallbackToLogsOnError"
        message = last_words(self._logs[-1].path) if code and falls_back and self._logs else ""
        self.state.end(code, datetime.now(UTC), reason=self._reason(), message=message)

    async def _start(self, start: StartProgram) -> Process:
        # Stopping the pod meanwhile waits for this, so that no program is forgotten.
        self._starting = asyncio.create_task(start())
        self._process = await asyncio.shield(self._starting)
        return self._process

    def _start_failed(self, why: str) -> int:
        self.state.identity = self._identity
        now = datetime.now(UTC)
        self.state.end(_START_ERROR, now, reason="StartError", message=why)
        if restarts_after(self._pod.restart_policy, _START_ERROR):
            self.state.wait("RunContainerError", why)
        self._changed()
        self._warn("Failed", f"Error: {why}")
        return _START_ERROR

    async def _request(self, resources: PodResources) -> StartProgram:
        """Return what starts it; ask again while it is refused, as a kubelet does."""
        while True:
            try:
                return await self._prepared(resources)
            except ContainerRefused as error:
                self.state.wait(error.reason, str(error))
                self._changed()
                self._warn("Failed", f"Error: {error}")
            await asyncio.sleep(_REFUSED_SECONDS)

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
        await asyncio.sleep(delay)

    async def _watch(self, process: Process, resources: PodResources) -> int:
        """Wait for the program's end, probing it; return its exit code."""
        probes = asyncio.gather(
            self._probe(self.spec.readiness, resources, self._judge_readiness),
            self._probe(self.spec.liveness, resources, partial(self._judge_liveness, process)),
        )
        try:
            return await process.wait()
        finally:
            probes.cancel()
            await asyncio.gather(probes, return_exceptions=True)

    async def _probe(self, probe: Probe | None, resources: PodResources, report: Report) -> None:
        if probe is not None:
            services = self._services
            once = partial(probe_once, probe, resources.address, services.probing, self.ask)
            await repeat_probe(probe, once, report)

    async def _judge_readiness(self, well: bool, why: str) -> None:
        if not well:
            self._warn("Unhealthy", f"Readiness probe failed: {why}")
        if self.state.ready != well:
            self.state.ready = well
            self._changed()

    async def _judge_liveness(self, process: Process, well: bool, why: str) -> None:
        if well or self.spec.liveness is None:
            return
        self._warn("Unhealthy", f"Liveness probe failed: {why}")
        said = f"Container {self.spec.name} failed liveness probe, will be restarted"
        self._tell("Killing", said)
        grace = self.spec.liveness.grace
        await self._end(process, self._pod.grace if grace is None else grace, asyncio.Event())

    async def _end(self, process: Process, grace: float, hurry: asyncio.Event) -> None:
        if grace > 0 and self.spec.pre_stop is not None:
            began = datetime.now(UTC)
            # executePreStopHook of pkg/kubelet/kuberuntime/kuberuntime_container.go
            if await self.ask(self.spec.pre_stop, grace) is not None:
                self._warn("FailedPreStopHook", "PreStopHook failed")
            took = (datetime.now(UTC) - began).total_seconds()
            grace = max(grace - took, _LEAST_GRACE)
        await self._terminate(process, grace, hurry)

    def _tell(self, reason: str, message: str) -> None:
        self._services.events.tell(self._pod, reason, message, container=self.spec.name)

    def _warn(self, reason: str, message: str) -> None:
        self._services.events.warn(self._pod, reason, message, container=self.spec.name)


# ---- A container that is a program of this machine


class ProgramContainer(Container):
    """A container whose program the launcher starts."""

    def __init__(
        self,
        spec: ContainerSpec,
        pod: PodSpec,
        services: Services,
        changed: Callable[[], None],
        *,
        launcher: LauncherClient,
    ) -> None:
        super().__init__(spec, pod, services, changed)
        self._launcher = launcher
        self._program: Program | None = None
        self._hearing: asyncio.Task[None] | None = None
        """Ends when all that the latest run wrote is in its log."""
        self._ended_before = 0
        """Processes that earlier runs lost for want of memory."""

    async def execute(self, argv: tuple[str, ...], fds: list[int], *, terminal: bool) -> Process:
        """Start another program beside the container's; raise StartFailed."""
        if self.running is None or self._program is None:
            raise StartFailed(f"container {self.spec.name} is not running")
        environment = self._program.environment + ((("TERM", "xterm"),) if terminal else ())
        program = replace(
            self._program, argv=argv, environment=environment, terminal=terminal, reaped=False
        )
        request = StartRequest(program=program, beside=self.running.pid)
        return await asyncio.shield(asyncio.create_task(self._launcher.start(request, fds)))

    async def ask(self, program: Exec, seconds: float) -> str | None:
        """Run a probe's or hook's program; return what it said if it fails, None if not."""
        return await probe_exec(partial(self.execute, terminal=False), program, seconds)

    async def _prepared(self, resources: PodResources) -> StartProgram:
        request = await start_request(self.spec, resources, self._services)
        self._ended_before = self._ended_for_memory()
        self._identity = f"sandbox://{uuid.uuid4().hex}"
        return partial(self._launch, request)

    async def _launch(self, request: StartRequest) -> Process:
        pod = self._pod
        if self._services.plan.rootless and rights(pod.security, self.spec.security).uid:
            self._warn("RunAsUser", "this sandbox runs without root: its only user is 0")
        folder = log_folder(pod, self._services) / self.spec.name
        log = RunLog(folder, self.state.restarts)
        self._logs = [*self._logs[-1:], log]
        self._program = request.program
        console = Console(stdin=self.spec.stdin, tty=self.spec.tty)
        try:
            process = await self._launcher.start(request, console.child)
        except StartFailed as error:
            console.close()
            log.close()
            raise StartFailed(_RUNTIME.format(error)) from error
        console.started()
        self._hearing = asyncio.create_task(_hear(console, log, process))
        return process

    async def _terminate(self, process: Process, grace: float, hurry: asyncio.Event) -> None:
        # What idles in place of an image has nothing to bring to an end.
        if self.spec.program and grace > 0 and not process.ended.done():
            await process.signal(signal.SIGTERM)
            waits: list[asyncio.Task[Any]] = [
                asyncio.create_task(process.wait()),
                asyncio.create_task(hurry.wait()),
                asyncio.create_task(asyncio.sleep(grace)),
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        await process.signal(signal.SIGKILL)
        await process.wait()

    async def _heard(self) -> None:
        if self._hearing is not None:
            await asyncio.shield(self._hearing)

    def _reason(self) -> str:
        """Say OOMKilled whenever the kernel ended one of its processes for want of memory.

        Even if the program went on and ended otherwise: containerd's handler of TaskOOM.
        https://github.com/containerd/containerd/blob/main/internal/cri/server/events.go
        """
        return "OOMKilled" if self._ended_for_memory() > self._ended_before else ""

    def _ended_for_memory(self) -> int:
        return self._services.cgroups.out_of_memory(f"{self._pod.cgroup}/{self.spec.name}")


async def _hear(console: Console, log: RunLog, process: Process) -> None:
    try:
        await console.run(process.ended, log.write)
    finally:
        log.close()


def log_folder(pod: PodSpec, services: Services) -> Path:
    """Return the folder of a pod's logs; each container has its own in it."""
    folder = services.plan.path / "nodes" / services.node.name
    return folder / f"{pod.namespace}_{pod.name}_{pod.uid}"
