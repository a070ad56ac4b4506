"""One world for all tests of the commands, which is as new before each of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from podidentity.adapters.kube import Kube
from podidentity.cli import main, path_check
from podidentity.manifests import crds
from podidentity.wire.kube import KubeError
from podidentity_sandbox.weather import CALM, Weather
from tests.cli.azure import Identity, made_identity, weather_of
from tests.cli.world import CUSTOM, World, running
from tests.kubernetes.control_plane import wait_until


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world"), definitions=crds()) as world:
        yield world


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No NMI here answers a probe: `explain` waits for one for a moment only."""
    monkeypatch.setattr(path_check, "SECONDS", 0.1)


@pytest.fixture
def bare(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world as new, this process being a person's shell in it."""
    for name, value in shared_world.environment.items():
        monkeypatch.setenv(name, value)
    shared_world.put_back()
    return shared_world


_DAEMON_SETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"
DAEMON_SET, PROBE_SET = (f"{_DAEMON_SETS}/{name}" for name in ("nmi", "podidentity-probe"))
EXCEPTION = f"{CUSTOM}/namespaces/kube-system/azurepodidentityexceptions/aks-addon-exception"
PODS = "/api/v1/namespaces/kube-system/pods"
_OURS = "app.kubernetes.io/component=nmi"
_OURS_AND_PROBES = "app.kubernetes.io/component in (nmi, probe)"


def nmi_pods(world: World, path: str = PODS) -> list[Any]:
    """Return the pods of NMI, also those that are being deleted, in the order of their nodes.

    It waits until each node has one.
    """
    found: list[Any] = []
    nodes = {node.name for node in world.plan.nodes}

    def scheduled() -> bool:
        found[:] = world.send("GET", path, labelSelector=_OURS)["items"]
        return {pod["spec"].get("nodeName") for pod in found} == nodes

    wait_until(scheduled)
    return sorted(found, key=lambda pod: pod["spec"]["nodeName"])


def settled_daemon_set(world: World) -> Any:
    """Return NMI's DaemonSet when the controller has no more to write into any one's status."""
    nodes = len(world.plan.nodes)
    names = ("currentNumberScheduled", "updatedNumberScheduled", "numberUnavailable")

    def settled() -> bool:
        found = [each["status"] for each in world.send("GET", "/apis/apps/v1/daemonsets")["items"]]
        return all([status.get(name) for name in names] == [nodes] * 3 for status in found)

    wait_until(settled)
    return world.get(DAEMON_SET)


def end_nmi(world: World, path: str = PODS) -> None:
    """End the pods of NMI, as their kubelets would: a deleted pod stays until then."""
    for pod in world.send("GET", path, labelSelector=_OURS_AND_PROBES)["items"]:
        world.delete(f"{path}/{pod['metadata']['name']}", gracePeriodSeconds="0")


@pytest.fixture
def world(bare: World) -> World:
    """The same."""
    return bare


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def podidentity(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command line in this process."""

    def run(*arguments: str) -> Ran:
        code = main.run(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def ns(world: World) -> str:
    return world.namespace(f"n-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def sky(world: World) -> Iterator[Callable[[Weather], None]]:
    """Put a weather in force; afterwards it is calm again."""
    with weather_of(world) as put:
        yield put


@pytest.fixture
def orders(world: World, sky: Callable[[Weather], None]) -> Identity:
    """A managed identity of this test, and machines that change at once.

    How a command waits for them is told in tests/adapters/test_arm.py and test_in_weather.py.
    """
    sky(CALM)
    found = made_identity(world)
    found.weather()
    return found


def one_object_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each command delete one object, and refuse it the next: so each ends half-way."""
    real = Kube.delete
    had_theirs: list[Kube] = []

    async def delete(kube: Kube, path: str, **only: str) -> bytes:
        if kube in had_theirs:
            # Not 500, after which a deletion waits and is tried again.
            raise KubeError("refused", status=403)
        answer = await real(kube, path, **only)
        had_theirs.append(kube)
        return answer

    monkeypatch.setattr(Kube, "delete", delete)


def runs_refused(podidentity: Callable[..., Ran], *line: str) -> int:
    """Run a command again until it is not refused; return how often it was."""
    refusals = 0
    while (ran := podidentity(*line)).code:
        assert "refused" in ran.err, ran.err
        refusals += 1
    return refusals
