"""httpGet probes, from the node as a kubelet makes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp

from podidentity_sandbox.node.clock import Clock
from podidentity_sandbox.node.spec import Probe


async def ask(session: aiohttp.ClientSession, probe: Probe, address: str) -> str:
    """Make one probe; return "" if it succeeds, else why not."""
    url = f"{probe.scheme}://{probe.host or address}:{probe.port}/{probe.path.lstrip('/')}"
    try:
        async with session.get(
            url,
            headers=list(probe.headers),
            timeout=aiohttp.ClientTimeout(total=probe.timeout),
            allow_redirects=False,
        ) as response:
            if 200 <= response.status < 400:
                return ""
            return f"HTTP probe failed with statuscode: {response.status}"
    except TimeoutError:
        return f'Get "{url}": context deadline exceeded'
    except aiohttp.ClientConnectorError as error:
        return f'Get "{url}": {error.os_error.strerror}'
    except (aiohttp.ClientError, OSError) as error:
        return f'Get "{url}": {error}'


async def follow(
    probe: Probe,
    once: Callable[[], Awaitable[str]],
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
        good, bad = (0, bad + 1) if problem else (good + 1, 0)
        if good == probe.successes:
            await report(True, "")
        elif bad >= probe.failures:
            await report(False, problem)
        await clock.sleep(probe.period)
