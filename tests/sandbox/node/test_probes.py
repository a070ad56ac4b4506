from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from podidentity_sandbox.node.clock import Clock
from podidentity_sandbox.node.probes import repeat_probe
from podidentity_sandbox.node.spec import Probe


class CountedClock(Clock):
    """Counts what is slept, and takes no time for it."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def probe(successes: int, failures: int) -> Probe:
    return Probe(
        action=None,
        initial_delay=3,
        period=7,
        timeout=1,
        successes=successes,
        failures=failures,
        grace=None,
    )


@pytest.mark.parametrize(
    ("successes", "failures", "results", "reported"),
    [
        (1, 3, "ok", ["+1"]),
        (1, 3, "ok ok ok", ["+1"]),
        (2, 3, "ok ok", ["+2"]),
        (1, 3, "no no", []),
        (1, 3, "no no no", ["-3"]),
        (1, 3, "no no no no", ["-3", "-4"]),
        (1, 3, "no no ok no no", ["+3"]),
        (1, 1, "ok no ok", ["+1", "-2", "+3"]),
    ],
)
async def test_so_many_results_in_a_row_decide(
    successes: int, failures: int, results: str, reported: list[str]
) -> None:
    waiting, seen, asked = results.split(), [], 0
    over = asyncio.Event()

    async def once() -> str | None:
        nonlocal asked
        if not waiting:
            over.set()
            await asyncio.Event().wait()
        asked += 1
        return None if waiting.pop(0) == "ok" else ""

    async def report(well: bool, why: str) -> None:
        assert not why
        seen.append(f"{'+' if well else '-'}{asked}")

    clock = CountedClock()
    task = asyncio.create_task(repeat_probe(probe(successes, failures), once, clock, report))
    await over.wait()
    task.cancel()
    assert seen == reported
    assert clock.slept == [3] + [7] * asked
