"""Reads the body of an HTTP answer, and no more of it than it may have; or says why there is none.

A server may send without end. The bound is on the decompressed bytes, because those are kept; they
come in parts of 1 MiB at most, however well they were compressed (httpx2, `MAX_DECODE_CHUNK_SIZE`).
`adapters.imds` counts by itself, so that a pod's first request enters few files.
"""

from __future__ import annotations

import os
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


def no_answer(error: BaseException) -> str:
    """Return why a request has no answer: the system's words where the client's hide them."""
    cause: BaseException | None = error
    while str(error) in _HIDING and cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)  # asyncio's words name the address
        below = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__
        cause = below or cause.__context__
    return str(error) or type(error).__name__


_HIDING = {"", "All connection attempts failed"}
"""Words of httpx2's errors, the latter anyio's, that do not tell "Connection refused"."""
