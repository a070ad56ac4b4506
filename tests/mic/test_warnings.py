"""What keeps MIC from its work in Azure: as the controller knows it, and as events tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from podidentity.core.resources import ObjectRef, Pod
from podidentity.mic.calls import (
    Failure,
    Fault,
    Obstacle,
    PatchHost,
    ReadHost,
    Trouble,
)
from podidentity.mic.warnings import OwnWarnings, told
from podidentity.wire.events import COMPONENT_OF_MIC, MicReason
from podidentity.wire.kube import EVENTS, KubeError
from tests.fakes import FakeKubeApi, ImpatientClock
from tests.mic.simulator import HOSTS
from tests.mic.test_controller import Course, cluster, pod

OWN = Pod(ref=ObjectRef("kube-system", "mic-0"), uid="u-mic-0", labels={})
THROTTLED = Trouble(Obstacle.THROTTLED, "writes of subscription s1", 1_700_000_000.0)
BARRED = Trouble(Obstacle.HOST, "pool: the node resource group is locked.")


def troubles(world: Course) -> list[Trouble]:
    return list(world.mics[0].controller.troubles(world.now))


def failing(kind: type, failure: Failure, until: float) -> Course:
    """Return a world in which calls of that kind fail, at that time."""
    world = Course(*cluster(pod(2.0)))
    world.answers[kind] = lambda _: failure
    world.run_until(until)
    return world


def test_nothing_is_told_where_all_is_well() -> None:
    world = Course(*cluster(pod(2.0)))
    world.run_until(100.0)
    assert troubles(world) == []


def test_a_subscription_that_throttles_is_told_with_the_time_until_it_is_over() -> None:
    world = failing(PatchHost, Failure(kind=Fault.THROTTLED, retry_after=60.0), 20.0)
    [found] = troubles(world)
    assert (found.obstacle, found.what) == (Obstacle.THROTTLED, "writes of subscription s1")
    [at] = [at for at, each in world.calls if isinstance(each, PatchHost)]
    assert found.until == pytest.approx(at + 60.0, abs=0.2)
    del world.answers[PatchHost]
    world.run_until(100.0)
    assert troubles(world) == []


def test_a_subscription_without_an_answer_is_told_once_not_by_each_of_its_hosts() -> None:
    world = failing(ReadHost, Failure(kind=Fault.UNREACHABLE), 30.0)
    assert troubles(world) == [Trouble(Obstacle.SILENT, "reads of subscription s1")]
    del world.answers[ReadHost]
    world.run_until(150.0)
    assert troubles(world) == []


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (Failure(kind=Fault.DENIED, message="The group is locked."), "The group is locked."),
        (Failure(kind=Fault.FORBIDDEN), "forbidden"),
        (Failure(kind=Fault.FAILED), "tries in a row have failed"),
    ],
    ids=["denied", "forbidden", "failed"],
)
def test_a_host_that_cannot_be_changed_is_told_with_the_reason_until_it_can(
    failure: Failure, says: str
) -> None:
    world = failing(PatchHost, failure, 60.0)
    [found] = troubles(world)
    assert found.obstacle is Obstacle.HOST
    assert found.what.startswith(f"{HOSTS[0].name}: ")
    assert says in found.what
    del world.answers[PatchHost]
    world.run_until(4000.0)
    assert troubles(world) == []


def test_a_text_says_what_it_is_and_after_a_semicolon_what_to_do() -> None:
    found = told([THROTTLED, BARRED])
    assert found[MicReason.AZURE_THROTTLES].partition("; ")[0] == (
        "Azure throttles MIC: writes of subscription s1 until 22:13:20 UTC"
    )
    assert (
        "pool: the node resource group is locked; MIC tries" in found[MicReason.HOSTS_NOT_CHANGED]
    )


def test_of_many_hosts_some_are_named_and_the_others_counted() -> None:
    text = told(Trouble(Obstacle.HOST, f"pool-{number}") for number in range(12))
    assert "pool-4 and 7 more; " in text[MicReason.HOSTS_NOT_CHANGED]


class Scene(FakeKubeApi):
    """MIC's own warnings, on a clock that jumps."""

    def __init__(self, *, leading: bool = True) -> None:
        self.troubles: list[Trouble] = [THROTTLED]
        self.written: list[tuple[float, str, Mapping[str, Any]]] = []
        self.away = False
        self.clock = ImpatientClock()
        self.warnings = OwnWarnings(
            self, self.clock, OWN, leading=lambda: leading, troubles=lambda: self.troubles
        )

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        if self.away:
            raise KubeError("away")
        self.written.append((self.clock.monotonic(), path, body))
        return b"{}"

    async def run(self, seconds: float) -> None:
        """Let so many seconds pass."""
        task = asyncio.create_task(self.warnings.run())
        ends = self.clock.monotonic() + seconds
        while self.clock.monotonic() < ends:  # noqa: ASYNC110 - the clock jumps at each turn
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_lasts_is_told_once_a_minute_on_mics_own_pod() -> None:
    scene = Scene()
    await scene.run(125.0)
    assert len(scene.written) == 2
    (first, path, body), (second, _, other) = scene.written
    assert second - first >= 60.0
    assert path == EVENTS.path("kube-system")
    about = body["involvedObject"]
    assert (about["kind"], about["name"], about["uid"]) == ("Pod", "mic-0", "u-mic-0")
    assert (body["type"], body["reason"]) == ("Warning", "AzureThrottles")
    assert body["source"]["component"] == COMPONENT_OF_MIC
    assert body["metadata"]["name"] != other["metadata"]["name"]


async def test_what_is_over_soon_is_not_told() -> None:
    scene = Scene()
    await scene.run(5.0)
    scene.troubles = []
    await scene.run(10.0)
    scene.troubles = [THROTTLED]
    await scene.run(5.0)
    assert scene.written == []


async def test_who_does_not_lead_tells_nothing() -> None:
    scene = Scene(leading=False)
    await scene.run(60.0)
    assert scene.written == []


async def test_an_api_server_that_is_away_ends_nothing() -> None:
    scene = Scene()
    scene.away = True
    await scene.run(30.0)
    scene.away = False
    await scene.run(90.0)
    assert len(scene.written) == 1
