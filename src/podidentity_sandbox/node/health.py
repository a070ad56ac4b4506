"""A container's probes while its program runs: first startup, then readiness and liveness.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from podidentity_sandbox.node import probes
from podidentity_sandbox.node.console import Console
from podidentity_sandbox.node.processes import Process, StartFailed
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import ContainerSpec, Exec, HttpGet, Probe, TcpSocket
from podidentity_sandbox.node.status import ContainerState

_MOST_SAID = 10 * 1024
"""Bytes of a program's output that an event shows: maxReadLength of pkg/probe/exec."""
Execute = Callable[[tuple[str, ...], list[int]], Awaitable[Process]]
"""Starts a program beside a container's; raises StartFailed."""
Report = Callable[[bool, str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What is probed, and what follows from it."""

    spec: ContainerSpec
    state: ContainerState
    address: str
    changed: Callable[[], None]
    """Called when the state is another."""
    warn: Callable[[str, str], None]
    tell: Callable[[str, str], None]
    """Report an event: reason and message."""
    end: Callable[[float | None], Awaitable[None]]
    """Ends the program, in so many seconds or those of the pod: it will be started again."""
    execute: Execute


async def watch_over(patient: Patient, services: Services) -> None:
    """Probe until cancelled."""
    spec = patient.spec
    if spec.startup is not None:
        await _start_up(patient, spec.startup, services)
        patient.state.started = True
        patient.state.ready = spec.readiness is None
        patient.changed()
    follow: list[Coroutine[Any, Any, None]] = []
    if spec.readiness is not None:
        follow.append(_follow(patient, spec.readiness, services, partial(_readiness, patient)))
    if spec.liveness is not None:
        alive = partial(_mortal, patient, "liveness", spec.liveness)
        follow.append(_follow(patient, spec.liveness, services, alive))
    await asyncio.gather(*follow)


async def _start_up(patient: Patient, probe: Probe, services: Services) -> None:
    """Return when the startup probe has succeeded."""
    up = asyncio.Event()

    async def report(well: bool, why: str) -> None:
        if well:
            up.set()
        else:
            await _mortal(patient, "startup", probe, well, why)

    following = asyncio.create_task(_follow(patient, probe, services, report))
    try:
        await up.wait()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _readiness(patient: Patient, well: bool, why: str) -> None:
    if not well:
        patient.warn("Unhealthy", f"Readiness probe failed: {why}")
    if patient.state.ready != well:
        patient.state.ready = well
        patient.changed()


async def _mortal(patient: Patient, kind: str, probe: Probe, well: bool, why: str) -> None:
    if well:
        return
    name = patient.spec.name
    patient.warn("Unhealthy", f"{kind.capitalize()} probe failed: {why}")
    patient.tell("Killing", f"Container {name} failed {kind} probe, will be restarted")
    await patient.end(probe.grace)


async def _follow(patient: Patient, probe: Probe, services: Services, report: Report) -> None:
    once = partial(_once, patient, probe, services)
    await probes.follow(probe, once, services.clock, report)


async def _once(patient: Patient, probe: Probe, services: Services) -> str | None:
    match probe.action:
        case HttpGet() as get:
            return await probes.ask(services.probing, get, patient.address, probe.timeout)
        case TcpSocket() as target:
            return await probes.connect(target, patient.address, probe.timeout)
        case Exec() as program:
            # Not to be cancelled half way: its program would run and nobody know it.
            run = asyncio.create_task(run_beside(patient.execute, program, probe.timeout))
            return await asyncio.shield(run)
        case None:
            return "the sandbox serves httpGet, tcpSocket and exec probes"


async def run_beside(execute: Execute, program: Exec, seconds: float) -> str | None:
    """Run the program; return what it said if it fails, which may be nothing; None if not."""
    console, said = Console(stdin=False, tty=False), b""

    async def hear(_: int, data: bytes) -> None:
        nonlocal said
        said = (said + data)[:_MOST_SAID]

    try:
        process = await execute(program.command, console.child)
    except StartFailed as error:
        console.close()
        return str(error)
    console.started()
    hearing = asyncio.create_task(console.run(process.ended, hear))
    try:
        async with asyncio.timeout(seconds):
            code = await process.wait()
        await hearing
    except TimeoutError:
        shown = " ".join(program.command)
        return f'command timed out: "{shown}" timed out after {seconds:g}s'
    finally:
        if not process.ended.done():
            await process.signal(signal.SIGKILL, group=True)
        await asyncio.shield(hearing)
    return None if code == 0 else said.decode(errors="replace")
