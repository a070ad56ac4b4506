"""A container's probes, as a kubelet makes them: from the node, or by a program in the container.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
Messages are those of pkg/probe of Kubernetes, around those of Go's network library.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from podidentity_sandbox.node.clock import Clock
from podidentity_sandbox.node.processes import Process, StartFailed
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import ContainerSpec, Exec, HttpGet, Probe, TcpSocket
from podidentity_sandbox.node.status import ContainerState
from podidentity_sandbox.node.streams import Console


async def probe_http(
    session: aiohttp.ClientSession, get: HttpGet, address: str, seconds: float
) -> str | None:
    """Ask for the page; return why that fails, None if it does not."""
    host = get.host or address
    url = f"{get.scheme}://{host}:{get.port}/{get.path.lstrip('/')}"
    try:
        async with session.get(
            url,
            headers=list(get.headers),
            timeout=aiohttp.ClientTimeout(total=seconds),
            allow_redirects=False,
        ) as response:
            if 200 <= response.status < 400:
                return None
            return f"HTTP probe failed with statuscode: {response.status}"
    except TimeoutError:
        return f'Get "{url}": context deadline exceeded'
    except aiohttp.ClientConnectorError as error:
        return f'Get "{url}": {_refused(host, get.port, error.os_error)}'
    except (aiohttp.ClientError, OSError) as error:
        return f'Get "{url}": {error}'


async def probe_tcp(target: TcpSocket, address: str, seconds: float) -> str | None:
    """Connect; return why that fails, None if it does not."""
    host = target.host or address
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, target.port)
    except TimeoutError:
        return f"dial tcp {host}:{target.port}: i/o timeout"
    except OSError as error:
        return _refused(host, target.port, error)
    writer.close()
    return None


def _refused(host: str, port: int, error: OSError) -> str:
    # asyncio puts words of its own around the kernel's.
    why = os.strerror(error.errno) if error.errno else str(error)
    return f"dial tcp {host}:{port}: connect: {why.lower()}"


async def repeat_probe(
    probe: Probe,
    once: Callable[[], Awaitable[str | None]],
    clock: Clock,
    report: Callable[[bool, str], Awaitable[None]],
) -> None:
    """Probe for ever; report each time that enough results in a row agree, and each failure then.

    Args:
        probe: how often, and how many results count.
        once: makes one probe, as `ask`.
        clock: the time between.
        report: gets whether it is well, and why not.
    """
    good = bad = 0
    await clock.sleep(probe.initial_delay)
    while True:
        problem = await once()
        if problem is None:
            good, bad = good + 1, 0
            if good == probe.successes:
                await report(True, "")
        else:
            good, bad = 0, bad + 1
            if bad >= probe.failures:
                await report(False, problem)
        await clock.sleep(probe.period)


# ---- The probes of a running container: readiness and liveness

_MOST_SAID = 10 * 1024
"""Bytes of a program's output that an event shows: maxReadLength of pkg/probe/exec."""
Execute = Callable[[tuple[str, ...], list[int]], Awaitable[Process]]
"""Starts a program beside a container's; raises StartFailed."""
Report = Callable[[bool, str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedContainer:
    """A probed container, and the effects of its probes."""

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
    run: Callable[[Exec, float], Awaitable[str | None]]
    """Runs a probe's program, for so many seconds at most; returns what it said if it fails."""


async def run_probes(probed: ProbedContainer, services: Services) -> None:
    """Probe until cancelled."""
    spec = probed.spec
    follow: list[Coroutine[Any, Any, None]] = []
    if spec.readiness is not None:
        follow.append(_follow(probed, spec.readiness, services, partial(_readiness, probed)))
    if spec.liveness is not None:
        alive = partial(_restart_if_failed, probed, spec.liveness)
        follow.append(_follow(probed, spec.liveness, services, alive))
    await asyncio.gather(*follow)


async def _readiness(probed: ProbedContainer, well: bool, why: str) -> None:
    if not well:
        probed.warn("Unhealthy", f"Readiness probe failed: {why}")
    if probed.state.ready != well:
        probed.state.ready = well
        probed.changed()


async def _restart_if_failed(probed: ProbedContainer, probe: Probe, well: bool, why: str) -> None:
    if well:
        return
    name = probed.spec.name
    probed.warn("Unhealthy", f"Liveness probe failed: {why}")
    probed.tell("Killing", f"Container {name} failed liveness probe, will be restarted")
    await probed.end(probe.grace)


async def _follow(
    probed: ProbedContainer, probe: Probe, services: Services, report: Report
) -> None:
    once = partial(_probe_once, probed, probe, services)
    await repeat_probe(probe, once, services.clock, report)


async def _probe_once(probed: ProbedContainer, probe: Probe, services: Services) -> str | None:
    match probe.action:
        case HttpGet() as get:
            return await probe_http(services.probing, get, probed.address, probe.timeout)
        case TcpSocket() as target:
            return await probe_tcp(target, probed.address, probe.timeout)
        case Exec() as program:
            # Not to be cancelled half way: its program would run and nobody know it.
            run = asyncio.ensure_future(probed.run(program, probe.timeout))
            return await asyncio.shield(run)
        case None:
            return "the sandbox serves httpGet, tcpSocket and exec probes"


async def probe_exec(execute: Execute, program: Exec, seconds: float) -> str | None:
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
