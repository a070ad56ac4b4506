from __future__ import annotations

import asyncio
import ctypes

import pytest

from podidentity.telemetry import process
from podidentity.telemetry.process import EVERY_SECONDS, SETTLED_SECONDS, give_back, keep_small
from tests.fakes import FakeClock


def test_memory_that_was_freed_between_what_is_in_use_is_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    give_back()
    blocks = [libc.malloc(64 << 10) for _ in range(512)]
    for each in blocks:
        ctypes.memset(each, 1, 64 << 10)
    full = process.memory_bytes()
    for each in blocks[:-1]:
        libc.free(each)
    give_back()
    assert full - process.memory_bytes() > 24 << 20
    libc.free(blocks[-1])


async def test_free_memory_is_given_back_after_the_start_and_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, times = FakeClock(), []
    monkeypatch.setattr(process, "give_back", lambda: times.append(clock.monotonic()))
    task = asyncio.create_task(keep_small(clock))
    await clock.somebody_slept(SETTLED_SECONDS, 1)
    clock.advance(SETTLED_SECONDS)
    for number in (1, 2):
        await clock.somebody_slept(EVERY_SECONDS, number)
        clock.advance(EVERY_SECONDS)
    await clock.somebody_slept(EVERY_SECONDS, 3)
    task.cancel()
    assert times == [SETTLED_SECONDS + EVERY_SECONDS * each for each in range(3)]
