"""Steady requests of clients that do not retry, and each failure with its moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from bench.stage.asking import Answer, Asker
from bench.stage.ground import BenchPod, Cgroups
from bench.stage.hands import Hands

_SENDERS = 50
_SECONDS = 15.0
"""Longer than any client waits, so that a lost request is seen as one."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no token."""

    began: float
    """When it was sent, in `perf_counter` seconds; its connection was opened just before if new."""
    ended: float
    """When it was known to have failed."""
    why: str
    pod: BenchPod
    port: int = 0
    """Of the pod's end of its connection; 0 where there was none yet."""
    opened: float = 0.0
    """When that connection was begun."""

    @property
    def is_reset(self) -> bool:
        """Whether the connection ended before the answer did."""
        return self.why.startswith(("ConnectionResetError", "BrokenPipeError", "EOFError"))

    def was_in(self, hands: Iterable[Hands]) -> bool:
        """Whether it failed because its connection was in the hands of who was killed."""
        client = self.pod.address, self.port
        return self.is_reset and any(each.held(client, self.opened) for each in hands)


@dataclass(slots=True)
class Traffic:
    """What was asked and what came of it."""

    heard: Callable[[BenchPod, float, Answer], None] = lambda *_: None
    """Called for each answer, with the moment when it was asked for."""
    requests: int = 0
    slowest: float = 0.0
    """Seconds."""
    failures: list[Failure] = field(default_factory=list)


async def steady(
    cgroups: Cgroups, pods: Sequence[BenchPod], *, rate: float, seconds: float
) -> Traffic:
    """Ask `rate` times a second; every second sender opens a new connection for each request."""
    traffic, end = Traffic(), perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(_SENDERS):
            pod = pods[number % len(pods)]
            group.create_task(
                send(
                    traffic,
                    cgroups,
                    pod,
                    keep=number % 2 == 0,
                    pace=_SENDERS / rate,
                    goes_on=lambda: perf_counter() < end,
                )
            )
            await asyncio.sleep(1 / rate)
    return traffic


async def send(
    traffic: Traffic,
    cgroups: Cgroups,
    pod: BenchPod,
    *,
    keep: bool,
    pace: float,
    goes_on: Callable[[], bool],
) -> None:
    """Ask each `pace` seconds, on one connection or on a new one each time, while it `goes_on`."""
    kept: Asker | None = None
    due = perf_counter()
    while goes_on():
        asker = kept or Asker(cgroups, pod)
        stays = await _ask(traffic, pod, asker, fresh=kept is None) and keep
        if not stays:
            asker.close()
        kept = asker if stays else None
        due = max(due + pace, perf_counter())
        await asyncio.sleep(due - perf_counter())
    if kept is not None:
        kept.close()


async def _ask(traffic: Traffic, pod: BenchPod, asker: Asker, *, fresh: bool) -> bool:
    """Ask once; return whether the connection may be used again."""
    began = perf_counter()
    traffic.requests += 1
    try:
        async with asyncio.timeout(_SECONDS):
            if fresh:
                await asker.connect()
            answer = await asker.ask()
    except (OSError, EOFError, TimeoutError) as error:
        why = f"{type(error).__name__} {error}"
        traffic.failures.append(Failure(began, perf_counter(), why, pod, asker.port, asker.opened))
        return False
    if answer.status != 200:
        why = f"status {answer.status}: {answer.body[:200]!r}"
        traffic.failures.append(Failure(began, perf_counter(), why, pod))
    traffic.heard(pod, began, answer)
    traffic.slowest = max(traffic.slowest, perf_counter() - began)
    return not answer.closes
