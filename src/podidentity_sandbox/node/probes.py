"""A container's probes, as a kubelet makes them: from the node, or by a program in the container.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
Messages are those of pkg/probe of Kubernetes, around those of Go's network library.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import aiohttp

from podidentity_sandbox.node.processes import Process, StartFailed
from podidentity_sandbox.node.spec import Exec, HttpGet, Probe, TcpSocket
from podidentity_sandbox.node.streams import Console

Report = Callable[[bool, str], Awaitable[None]]


async def probe_http(
    session: aiohttp.ClientSession, get: HttpGet, address: str, seconds: float
) -> str | None:
    """Ask for the page; return why that fails, None if it does not."""
    host = get.host or address
    url = f"{get.scheme.lower()}://{host}:{get.port}/{get.path.lstrip('/')}"
    try:
        async with session.get(
            url,
            headers=[(each.name, each.value) for each in get.http_headers],
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
    report: Report,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Probe for ever; report each time that enough results in a row agree, and each failure then.

    Args:
        probe: how often, and how many results count.
        once: makes one probe, as `ask`.
        report: gets whether it is well, and why not.
        sleep: waits so many seconds.
    """
    good = bad = 0
    await sleep(probe.initial_delay)
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
        await sleep(probe.period)


# ---- By whichever way the probe says

_MOST_SAID = 10 * 1024
"""Bytes of a program's output that an event shows: maxReadLength of pkg/probe/exec."""
Execute = Callable[[tuple[str, ...], list[int]], Awaitable[Process]]
"""Starts a program beside a container's; raises StartFailed."""


async def probe_once(
    probe: Probe,
    address: str,
    session: aiohttp.ClientSession,
    ask: Callable[[Exec, float], Awaitable[str | None]],
) -> str | None:
    """Probe a container at `address`; return why that fails, None if it does not.

    `ask` runs a program in it, for so many seconds at most; returns what it said if it fails.
    """
    match probe.action:
        case HttpGet() as get:
            return await probe_http(session, get, address, probe.timeout)
        case TcpSocket() as target:
            return await probe_tcp(target, address, probe.timeout)
        case Exec() as program:
            # Not to be cancelled half way: its program would run and nobody know it.
            return await asyncio.shield(asyncio.ensure_future(ask(program, probe.timeout)))
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
