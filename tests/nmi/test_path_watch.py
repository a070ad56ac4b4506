from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from podidentity.core.data_path import PROOF_SECONDS, Hop, ProbeResult
from podidentity.core.resources import ObjectRef, Phase, Pod
from podidentity.nmi.path_watch import AGAIN, EVERY, LABELS, TOLD_AGAIN, PathWatch, probe_pod
from tests.fakes import FakeClock, pod

SYSTEM = "kube-system"
PROBE = replace(
    pod(addresses=("10.244.0.9",)), ref=ObjectRef(SYSTEM, "probe-1"), uid="u9", labels=LABELS
)


class FakeProber:
    """Gives the result that a test wants, and counts."""

    def __init__(self) -> None:
        self.accepting = True
        self.changes = 0
        self.result = ProbeResult(hop=Hop.PROVED, plane="bridge")
        self.probed: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    async def changed(self) -> None:
        await self._news.wait()

    def tell(self) -> None:
        """Say that something has changed."""
        self._news.set()
        self._news = asyncio.Event()

    async def probe(self, address: str, pod: str = "") -> ProbeResult:
        self.probed.append((address, pod))
        return self.result


class Place:
    def __init__(self, *, required: bool = True) -> None:
        self.clock = FakeClock()
        self.prober = FakeProber()
        self.pods: list[Pod] = [PROBE]
        self._news = asyncio.Event()
        self.broke: list[str] = []
        self.mended: list[str] = []
        self.watch = PathWatch(
            self.prober,
            self.clock,
            pod=lambda: probe_pod(self.pods, SYSTEM),
            pods_changed=self.pods_changed,
            required=required,
        )
        self.watch.broke, self.watch.mended = self.broke.append, self.mended.append

    async def pods_changed(self) -> None:
        await self._news.wait()

    def put(self, *pods: Pod) -> None:
        """Have these pods on the node, and the watch told."""
        self.pods = [*pods]
        self._news.set()
        self._news = asyncio.Event()

    async def rest(self) -> None:
        """Return when the watch waits for the time to pass, or for a change."""
        for _ in range(20):
            await asyncio.sleep(0)
        await self.clock.somebody_sleeps()

    async def pass_time(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self.clock.advance(AGAIN)
            await self.rest()

    def results(self, *hops: Hop) -> Callable[[], None]:
        """Have the next probes end so; the last one stays."""
        left = list(hops)

        def turn() -> None:
            self.prober.result = ProbeResult(hop=left.pop(0) if len(left) > 1 else left[0])

        turn()
        return turn


@asynccontextmanager
async def watching(*, required: bool = True) -> AsyncIterator[Place]:
    place = Place(required=required)
    task = asyncio.create_task(place.watch.run())
    try:
        await place.rest()
        yield place
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_it_probes_from_the_probe_pod_at_the_start_and_every_few_seconds() -> None:
    async with watching() as here:
        assert here.prober.probed == [("10.244.0.9", "u9")]
        assert (here.watch.problems(), here.watch.warnings()) == ((), ())
        assert (here.watch.hop, here.watch.plane) == (Hop.PROVED, "bridge")
        await here.pass_time(3 * EVERY)
        assert len(here.prober.probed) == 4


async def test_before_its_first_proof_it_is_a_problem() -> None:
    place = Place()
    (problem,) = place.watch.problems()
    assert "the first probe is under way" in problem


async def test_a_change_of_rules_or_links_is_probed_at_once_but_not_without_end() -> None:
    async with watching() as here:
        for _ in range(8):
            here.prober.changes += 1
            here.prober.tell()
            await here.pass_time(AGAIN / 2)
        assert 3 <= len(here.prober.probed) <= 9


async def test_a_bypass_is_a_problem_within_the_time_between_two_probes_and_until_it_ends() -> None:
    async with watching() as here:
        here.prober.result = ProbeResult(hop=Hop.IMDS)
        await here.pass_time(EVERY)
        assert "IMDS itself" in here.watch.problems()[0]
        assert here.watch.hop is Hop.IMDS
        assert len(here.broke) == 1
        await here.pass_time(EVERY)
        assert len(here.broke) == 1, "it is told once"
        await here.pass_time(TOLD_AGAIN)
        assert len(here.broke) == 2, "and again while it lasts"
        here.prober.result = ProbeResult(hop=Hop.PROVED)
        await here.pass_time(AGAIN)
        assert here.watch.problems() == ()
        assert len(here.mended) == 1


async def test_a_failure_that_is_not_seen_twice_is_none() -> None:
    async with watching() as here:
        here.prober.result = ProbeResult(hop=Hop.NO_ANSWER)
        await here.pass_time(EVERY)
        assert here.watch.problems() == ()
        here.prober.result = ProbeResult(hop=Hop.PROVED)
        await here.pass_time(AGAIN)
        assert (here.broke, here.watch.problems(), here.watch.warnings()) == ([], (), ())


async def test_an_evicted_probe_pod_is_a_warning_for_a_minute_and_then_a_problem() -> None:
    async with watching() as here:
        here.pods = [replace(PROBE, phase=Phase.FAILED)]
        await here.pass_time(EVERY)
        assert here.watch.problems() == ()
        assert "the probe pod kube-system/probe-1 is Failed" in here.watch.warnings()[0]
        await here.pass_time(PROOF_SECONDS)
        assert "the probe pod kube-system/probe-1 is Failed" in here.watch.problems()[0]
        assert here.watch.hop is Hop.NOT_SENT
        here.pods = [replace(PROBE, ref=ObjectRef(SYSTEM, "probe-2"), uid="u10")]
        await here.pass_time(AGAIN)
        assert here.watch.problems() == ()
        assert here.prober.probed[-1] == ("10.244.0.9", "u10")


async def test_a_probe_pod_that_cannot_be_scheduled_keeps_the_agent_from_being_ready() -> None:
    place = Place()
    place.pods = []
    task = asyncio.create_task(place.watch.run())
    await place.rest()
    (problem,) = place.watch.problems()
    assert "no probe pod of namespace kube-system is on this node" in problem
    task.cancel()


async def test_a_probe_pod_that_comes_is_used_at_once() -> None:
    place = Place()
    place.pods = []
    task = asyncio.create_task(place.watch.run())
    await place.rest()
    place.put(replace(PROBE, phase=Phase.PENDING))
    await place.rest()
    assert place.prober.probed == []
    place.put(PROBE)
    await place.rest()
    assert len(place.prober.probed) == 1
    assert place.watch.problems() == ()
    task.cancel()


async def test_a_broken_path_stays_a_problem_when_the_probe_pod_goes() -> None:
    async with watching() as here:
        here.prober.result = ProbeResult(hop=Hop.IMDS)
        await here.pass_time(EVERY)
        here.pods = []
        await here.pass_time(EVERY)
        assert "IMDS itself" in here.watch.problems()[0]


async def test_an_agent_that_does_not_accept_yet_needs_a_probe_pod_and_no_proof() -> None:
    place = Place()
    place.prober.accepting = False
    task = asyncio.create_task(place.watch.run())
    await place.rest()
    assert place.watch.problems() == ()
    place.pods = []
    assert place.watch.problems() == ("no probe pod of namespace kube-system is on this node",)
    place.pods = [PROBE]
    assert place.prober.probed == []
    place.prober.accepting = True
    place.prober.tell()
    await place.rest()
    assert len(place.prober.probed) == 1
    task.cancel()


async def test_under_a_manifest_without_a_probe_pod_it_warns_and_probes_nothing() -> None:
    async with watching(required=False) as here:
        await here.pass_time(2 * EVERY)
        assert (here.prober.probed, here.watch.problems()) == ([], ())
        assert "nothing proves" in here.watch.warnings()[0]


def test_a_pod_of_another_namespace_is_no_probe_pod_whatever_its_labels() -> None:
    theirs = replace(PROBE, ref=ObjectRef("tenant", "probe-1"))
    assert probe_pod([theirs], SYSTEM) == f"no probe pod of namespace {SYSTEM} is on this node"
    assert probe_pod([theirs, PROBE], SYSTEM) == PROBE


def test_of_two_probe_pods_it_is_the_newer_that_runs() -> None:
    old, new = (
        replace(PROBE, ref=ObjectRef(SYSTEM, name), started=begun)
        for name, begun in (("old", 1.0), ("new", 2.0))
    )
    assert probe_pod([new, old], SYSTEM) == new
    coming = replace(new, phase=Phase.PENDING, addresses=())
    assert probe_pod([old, coming], SYSTEM) == old
    assert probe_pod([coming], SYSTEM) == "the probe pod kube-system/new is Pending"
