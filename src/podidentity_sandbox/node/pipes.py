"""The ends of a program's pipes and terminals, read and written without holding up the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

_CHUNK = 65536


async def chunks(fd: int, ended: asyncio.Future[int]) -> AsyncIterator[bytes]:
    """Yield what comes through `fd` until it is closed, or all has come when its program `ended`.

    Not only until it is closed: a program that it left behind may hold it open for ever.
    """
    os.set_blocking(fd, False)
    while True:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            if ended.done():
                return
            await _either(fd, ended)
            continue
        except OSError:  # EIO: the last program has closed its terminal
            return
        if not data:
            return
        yield data


async def write(fd: int, data: bytes, ended: asyncio.Future[int]) -> bool:
    """Write all of it; say whether somebody may still read what comes next."""
    os.set_blocking(fd, False)
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            if ended.done():
                return False
            await _either(fd, ended, writing=True)
        except OSError:  # nobody reads any more
            return False
    return True


async def _either(fd: int, ended: asyncio.Future[int], *, writing: bool = False) -> None:
    """Wait until `fd` is ready or the program has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def settle(_: object = None) -> None:
        if not ready.done():
            ready.set_result(None)

    (loop.add_writer if writing else loop.add_reader)(fd, settle)
    ended.add_done_callback(settle)
    try:
        await ready
    finally:
        ended.remove_done_callback(settle)
        (loop.remove_writer if writing else loop.remove_reader)(fd)
