"""Whole processes of `podidentity mic`: memory, processor time, start, and a change of the leader.

    few     200 pods, all with one of 20 identities, in one namespace
    many    20,000 pods with the binding label, 5,000 of them with an identity, in 50 namespaces
            with 20 identities each

    change  the change of the leader alone, in the large cluster

One of the three a run; `bench.mic` starts it in `control_plane.ENTER`. It prints one object.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from bench.stage.control_plane import ControlPlane, Mic
from podidentity_sandbox.weather import CALM, Span, Weather, write

FEW, MANY, ASSIGNED = 200, 20_000, 5_000
_EVENTS = 100
"""Pods that come one by one when all has settled."""
_MISSING = 50
"""Records that are missing when a controller starts."""
_IDLE, _RECONCILE = 60.0, 60
"""Seconds in which nothing changes, and after which machines are read: three times as often as by
default, so that one falls into that time."""
_CHANGES = 3
"""Leaders that are killed, and that are updated."""
_SLOW = Weather(name="slow", times={**CALM.times, "scale-sets": Span(40, 40)})

Found = dict[str, float]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def few() -> Found:
    """Measure in a small cluster."""
    async with ControlPlane.up(namespaces=1) as plane:
        mic = await _begun(plane, FEW, FEW)
        found = {"memory": mic.memory("VmRSS")}
        found |= await _events(plane, mic, FEW)
        found |= await _beside_a_slow_set(plane)
        return found


async def many() -> Found:
    """Measure in a large cluster."""
    async with ControlPlane.up(namespaces=50) as plane:
        mic = await _begun(plane, MANY, ASSIGNED)
        found = await _events(plane, mic, MANY)
        before = mic.cpu()
        await asyncio.sleep(_IDLE)
        found["idle"] = 100 * (mic.cpu() - before) / _IDLE
        mic.end()
        found |= await _restarted(plane)
        found |= await _succeeded(plane)
        return found


async def change() -> Found:
    """Measure how soon another one leads, in a large cluster."""
    async with ControlPlane.up(namespaces=50) as plane:
        await _begun(plane, MANY, ASSIGNED)
        return await _succeeded(plane)


async def _begun(plane: ControlPlane, pods: int, assigned: int) -> Mic:
    """Have pods, and a controller that has assigned all from nothing."""
    began = time.monotonic()
    await plane.pods(range(pods), bound=lambda number: number < assigned)
    _tell(f"{pods} pods were made in {time.monotonic() - began:.0f} s")
    mic = plane.start("first", f"--identity-assignment-reconcile-interval={_RECONCILE}s")
    await plane.ready(mic)
    done = await plane.until(lambda: [*plane.states.values()].count("Assigned") >= assigned)
    _tell(
        f"{assigned} of {pods} pods Assigned from nothing: {done - mic.began:.1f} s, of which "
        f"{mic.cpu():.1f} s of the controller's processor time; {mic.memory('VmHWM'):.0f} MB"
    )
    await plane.idle(mic)
    return mic


async def _events(plane: ControlPlane, mic: Mic, first: int) -> Found:
    """Have pods come one by one whose identity is on their host, and controls between them.

    Such a pod is an object made and seen twice: the pod, which the controller sees, and its record.
    The control is twice an object that is made and seen without a controller.
    """
    took, control, before = [], [], mic.cpu()
    for number in range(first, first + _EVENTS):
        began = time.monotonic()
        await plane.pod(number, node=number % 60)
        took.append(await plane.until(_is_assigned(plane, number)) - began)
        control.append(await plane.hop(f"a-{number}") + await plane.hop(f"b-{number}"))
    used = (mic.cpu() - before) / _EVENTS * 1e3
    (p50, p99), (c50, c99) = (_quantiles(each) for each in (took, control))
    _tell(
        f"one more pod, made to record seen: p50 {p50:.1f} ms, p99 {p99:.1f} ms; two objects made "
        f"and seen without a controller: p50 {c50:.1f} ms, p99 {c99:.1f} ms; {used:.2f} ms of the "
        "controller's processor time"
    )
    return {"event": used, "p99": p99, "by_control": p50 / c50}


def _quantiles(took: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p99 in ms."""
    return statistics.median(took) * 1e3, statistics.quantiles(took, n=100)[-1] * 1e3


async def _beside_a_slow_set(plane: ControlPlane) -> Found:
    """Measure a pod on another node while the first one's scale set takes 40 s."""
    # Identities that no pod there has yet.
    alone = await _first_use(plane, 9_001, node=1, identity=18)
    write(plane.plan.path, _SLOW)
    await plane.pod(9_002, node=0, identity=17)
    await plane.until(lambda: "pod-9002" in plane.states)
    await asyncio.sleep(5)
    write(plane.plan.path, CALM)
    beside = await _first_use(plane, 9_003, node=2, identity=19)
    if _is_assigned(plane, 9_002)():
        sys.exit("the slow set was not slow")
    _tell(f"a pod alone {alone:.2f} s, beside a scale set that takes 40 s {beside:.2f} s")
    return {"alone": alone, "beside": beside}


async def _first_use(plane: ControlPlane, number: int, *, node: int, identity: int) -> float:
    began = time.monotonic()
    await plane.pod(number, node=node, identity=identity)
    return await plane.until(_is_assigned(plane, number)) - began


def _is_assigned(plane: ControlPlane, number: int) -> Callable[[], bool]:
    return lambda: plane.states.get(f"pod-{number}") == "Assigned"


async def _restarted(plane: ControlPlane) -> Found:
    """Start a controller where all is assigned but a few: it has settled when they are, too."""
    missing = [f"pod-{number}" for number in range(_MISSING)]
    await plane.drop_records(missing)
    await plane.until(lambda: not any(name in plane.states for name in missing))
    mic = plane.start("second")
    done = await plane.until(lambda: all(plane.states.get(name) == "Assigned" for name in missing))
    settled = done - mic.began
    _tell(f"started again and settled: {settled:.1f} s, {mic.cpu():.1f} s of processor time")
    await plane.idle(mic)
    return {"settled": settled, "peak": mic.memory("VmHWM")}


async def _succeeded(plane: ControlPlane) -> Found:
    """Kill leaders, and update leaders, while another controller is ready."""
    leader = plane.mics[-1]
    killed, updated = [], []
    for turn in range(2 * _CHANGES):
        standby = plane.start(f"standby-{turn}")
        await plane.ready(standby)
        await plane.idle(standby)
        number = MANY + 1_000 + turn
        if turn % 2:
            began = time.monotonic()
            leader.process.send_signal(signal.SIGTERM)
            while (await plane.lease())[0] == leader.name:
                pass
            await plane.pod(number, node=0, identity=0)
            updated.append(await plane.until(_is_assigned(plane, number)) - began)
            leader.process.wait(30)
        else:
            leader.end(signal.SIGKILL)
            _, ends = await plane.lease()
            await plane.pod(number, node=0, identity=0)
            seen = await plane.until(_is_assigned(plane, number))
            killed.append(seen + time.time() - time.monotonic() - ends)
        leader = standby
    _tell(f"first write after the lease ended: {[round(each, 2) for each in killed]} s")
    _tell(f"first write after SIGTERM: {[round(each, 2) for each in updated]} s")
    return {"killed": max(killed), "updated": statistics.median(updated)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run({"few": few, "many": many, "change": change}[sys.argv[1]]())))
