"""A container of the container runtime: made, started, watched and stopped by CRI."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from podidentity_sandbox.node.containers import (
    Container,
    PodResources,
    StartProgram,
    environment_of,
    log_folder,
)
from podidentity_sandbox.node.cri.client import Cri, CriRefusal
from podidentity_sandbox.node.cri.containerd import EXECUTE_ROOT, runtime_program
from podidentity_sandbox.node.cri.requests import Message, container_config
from podidentity_sandbox.node.cri.sandboxes import PodSandboxes
from podidentity_sandbox.node.environment import expand
from podidentity_sandbox.node.logs import Log
from podidentity_sandbox.node.processes import Process, StartFailed
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import ContainerSpec, Exec, PodSpec
from podidentity_sandbox.node.streams import readable

_PATIENCE = 15.0
"""Seconds beyond those of a call's own that the runtime may take."""
_LOOK = 0.05
_OUT_OF_MEMORY = "OOMKilled"
_PREFIX = "containerd://"


class RuntimeContainer(Container):
    """One container of a pod."""

    def __init__(
        self,
        spec: ContainerSpec,
        pod: PodSpec,
        services: Services,
        changed: Callable[[], None],
        *,
        cri: Cri,
        sandboxes: PodSandboxes,
    ) -> None:
        super().__init__(spec, pod, services, changed)
        self._cri = cri
        self._sandboxes = sandboxes
        self._id = ""
        self._before = ""
        """The run before, which the runtime keeps as the kubelet has it keep one."""
        self._why = ""
        self._watching: asyncio.Task[None] | None = None

    async def execute(self, argv: tuple[str, ...], fds: list[int], *, terminal: bool) -> Process:
        """Start another program beside the container's; raise StartFailed.

        By the runtime's own program, as its shim does it: so the caller's descriptors become the
        program's.
        """
        if self.running is None:
            raise StartFailed(f"container {self.spec.name} is not running")
        pid_file = _new_file()
        runtime = runtime_program(self._sandboxes.handler(self._pod))
        command = (runtime, "--root", EXECUTE_ROOT, "exec", "--pid-file", str(pid_file))
        child = await asyncio.create_subprocess_exec(
            *(*command, *(("--tty",) if terminal else ()), self._id, *argv),
            stdin=fds[0],
            stdout=fds[1],
            stderr=fds[2],
        )

        async def send(number: signal.Signals, _: bool) -> None:
            with suppress(OSError, ValueError):
                os.kill(int(pid_file.read_text()), number)
            with suppress(ProcessLookupError):
                child.send_signal(number)

        process = Process(child.pid, send)

        async def wait() -> None:
            code = await child.wait()
            pid_file.unlink(missing_ok=True)
            if not process.ended.done():
                process.ended.set_result(code if code >= 0 else 128 - code)

        # Kept by the process that it ends.
        process.waiting = asyncio.create_task(wait())
        return process

    async def ask(self, program: Exec, seconds: float) -> str | None:
        """Run a probe's or hook's program; return what it said if it fails, None if not."""
        request = {"container_id": self._id, "cmd": program.command, "timeout": round(seconds)}
        try:
            said = await self._cri.call("ExecSync", request, seconds=seconds + _PATIENCE)
        except CriRefusal as error:
            return str(error)
        if not said["exit_code"]:
            return None
        return base64.b64decode(said["stdout"] + said["stderr"]).decode(errors="replace")

    async def _prepared(self, resources: PodResources) -> StartProgram:
        pod, spec = self._pod, self.spec
        environment = await environment_of(spec, resources, self._services, {})
        sandbox = self._sandboxes.config(resources.network)
        config = container_config(
            spec,
            pod,
            run=self.state.restarts,
            environment=environment,
            command=[expand(word, environment) for word in spec.command],
            arguments=[expand(word, environment) for word in spec.arguments],
            binds=resources.volumes.binds(spec),
            spaces=sandbox["linux"]["security_context"]["namespace_options"],
        )
        return partial(self._launch, resources.network, sandbox, config)

    async def _launch(self, sandbox: str, sandbox_config: Message, config: Message) -> Process:
        if self._before:
            with suppress(CriRefusal):
                await self._cri.call("RemoveContainer", {"container_id": self._before})
        self._before = self._id
        folder = log_folder(self._pod, self._services) / self.spec.name
        folder.mkdir(parents=True, exist_ok=True)
        log = Log(folder / f"{self.state.restarts}.log")
        log.path.touch()
        self._logs = [*self._logs[-1:], log]
        request = {"pod_sandbox_id": sandbox, "config": config, "sandbox_config": sandbox_config}
        try:
            self._id = (await self._cri.call("CreateContainer", request))["container_id"]
            self._identity = _PREFIX + self._id
            await self._cri.call("StartContainer", {"container_id": self._id})
            process = await self._running()
        except CriRefusal as error:
            raise StartFailed(str(error)) from error
        self._watching = asyncio.create_task(self._watch_end(sandbox, process, log))
        return process

    async def _running(self) -> Process:
        asked = {"container_id": self._id, "verbose": True}
        said = await self._cri.call("ContainerStatus", asked)
        return Process(int(json.loads(said["info"]["info"])["pid"]), self._send)

    async def _send(self, number: signal.Signals, _: bool) -> None:
        """Send a signal to the container's first process, which this process can see."""
        if self._process is not None and not self._process.ended.done():
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _watch_end(self, sandbox: str, process: Process, log: Log) -> None:
        """Wait until the process has ended and the runtime knows it, also one that was away.

        The kernel tells of the end. Then the runtime is asked, a time or two: its stream of events
        (GetContainerEvents) is silent about what happened while it was away.
        """
        if process.pid:  # else it has ended already
            with suppress(ProcessLookupError):
                await _ended(process.pid)
        asked = {"container_id": self._id}
        while True:
            status = (await self._cri.call("ContainerStatus", asked))["status"]
            if status["state"] == "CONTAINER_EXITED":
                break
            await asyncio.sleep(_LOOK)
        killed = self._sandboxes.out_of_memory(sandbox, self._id)
        self._why = _OUT_OF_MEMORY if killed else status["reason"]
        log.closed = True
        process.ended.set_result(status["exit_code"])

    async def _terminate(self, process: Process, grace: float, hurry: asyncio.Event) -> None:
        stopping = asyncio.create_task(self._stop(grace))
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait({stopping, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not stopping.done():
            await self._stop(0)
        await stopping
        await process.wait()

    async def _stop(self, grace: float) -> None:
        request = {"container_id": self._id, "timeout": str(round(grace))}
        await self._cri.call("StopContainer", request, seconds=grace + _PATIENCE)

    async def _heard(self) -> None:
        pass  # it is in the log before the runtime says that the container has ended

    def _reason(self) -> str:
        return self._why if self._why == _OUT_OF_MEMORY else ""


def _new_file() -> Path:
    file, name = tempfile.mkstemp(dir="/run")
    os.close(file)
    return Path(name)


async def _ended(pid: int) -> None:
    """Return when a process that need not be a child has ended; raise ProcessLookupError."""
    fd = os.pidfd_open(pid)
    try:
        await readable(fd)
    finally:
        os.close(fd)
