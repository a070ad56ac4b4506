"""Reads the body of an HTTP answer, and no more of it than it may have.

A server may send without end. The bound is on the decompressed bytes, because those are kept; they
come in parts of 1 MiB at most, however well they were compressed (httpx2, `MAX_DECODE_CHUNK_SIZE`).
`adapters.imds` counts by itself, so that a pod's first request enters few files.
"""

from __future__ import annotations

from io import BytesIO

import httpx2


class TooLong(Exception):
    """The answer is longer than it may be."""


async def body_of(response: httpx2.Response, most: int) -> bytes:
    """Return the body of an answer that is streamed; raise TooLong if it has over `most` bytes."""
    body = BytesIO()
    async for part in response.aiter_bytes():
        if body.tell() + len(part) > most:
            raise TooLong
        body.write(part)
    # Without a copy: an answer may take half of the memory that there is.
    return body.getvalue()
