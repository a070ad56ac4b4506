"""Reads the body of an HTTP answer, and no more of it than it may have.

Whoever answers may send without end, and a small compressed body may be a large one: what counts is
the text that would be kept. (`adapters.imds` counts by itself: a pod's first request enters few
files.)
"""

from __future__ import annotations

import httpx2


class TooLong(Exception):
    """The answer is longer than it may be."""


async def body_of(response: httpx2.Response, most: int) -> bytes:
    """Return the body of an answer that is streamed; raise TooLong if it has over `most` bytes."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > most:
            raise TooLong
    return bytes(body)
