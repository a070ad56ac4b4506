"""How much memory an answer takes, however it is sent."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import httpx2
import pytest

from podidentity.bounded_answers import TooLong, body_of

MIB = 1 << 20
LONG = bytes(64 * MIB)
ONCE = gzip.compress(LONG, 1)


class Sent(httpx2.AsyncByteStream):
    """A body in parts of 64 KiB, as of a socket."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), MIB // 16):
            yield self.body[start : start + MIB // 16]


async def read(body: bytes, encoding: str, most: int) -> tuple[bytes | None, int]:
    """Return what is read of a body, None if it is too long, and how much memory that took."""
    stream = Sent(body)
    head = {"Content-Encoding": encoding}
    request = httpx2.Request("GET", "http://server")
    answer = httpx2.Response(200, headers=head, stream=stream, request=request)
    tracemalloc.start()
    try:
        found: bytes | None = await body_of(answer, most)
    except TooLong:
        found = None
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return found, peak


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("identity", LONG),
        ("gzip", ONCE),
        ("deflate", zlib.compress(LONG, 1)),
        ("gzip, gzip", gzip.compress(ONCE)),
    ],
)
async def test_what_unpacks_to_more_than_it_may_is_unpacked_no_further(
    encoding: str, body: bytes
) -> None:
    found, peak = await read(body, encoding, MIB)
    assert found is None
    assert peak < 8 * MIB


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_an_answer_of_exactly_its_limit_is_read_and_is_in_memory_once(encoding: str) -> None:
    body = LONG if encoding == "identity" else ONCE
    found, peak = await read(body, encoding, len(LONG))
    assert found == LONG
    assert peak < 1.5 * len(LONG)
    assert (await read(body, encoding, len(LONG) - 1))[0] is None
