"""Reads the body of an HTTP answer, and no more of it than it may have.

A server may send without end. The bound is on the decompressed bytes, because those are kept.
`adapters.imds` counts by itself, so that a pod's first request enters few files.
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
