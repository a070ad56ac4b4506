"""Probes, as a kubelet makes them: from the node, or by a program in the container.

Words are those of pkg/probe of Kubernetes, around what Go's network library says.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import aiohttp

from podidentity_sandbox.node.clock import Clock
from podidentity_sandbox.node.spec import HttpGet, Probe, TcpSocket


async def ask(
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


async def connect(target: TcpSocket, address: str, seconds: float) -> str | None:
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


async def follow(
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
