"""One world for all tests of the commands; each test has a namespace of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from podidentity.adapters.kube import Kube
from podidentity.cli import main, path_check
from podidentity.manifests import aks_exceptions, crds
from podidentity.wire.kube import KubeError
from podidentity_sandbox.weather import CALM, Weather
from tests.cli.azure import Identity, made_identity, weather_of
from tests.cli.world import CUSTOM, World, running


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No NMI here answers a probe: `explain` waits for one for a moment only."""
    monkeypatch.setattr(path_check, "SECONDS", 0.1)


@pytest.fixture
def bare(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The world without NMI, this process being a person's shell in it."""
    for name, value in shared_world.environment.items():
        monkeypatch.setenv(name, value)
    yield shared_world
    for path in (DAEMON_SET, PROBE_SET):
        shared_world.delete(path)
    for each in (shared_world.get(f"{CUSTOM}/azurepodidentityexceptions") or {"items": []})[
        "items"
    ]:
        namespace, name = each["metadata"]["namespace"], each["metadata"]["name"]
        if (namespace, name) in _SHIPPED:
            path = f"{CUSTOM}/namespaces/{namespace}/azurepodidentityexceptions/{name}"
            shared_world.send("DELETE", path)
    no_admission_policies(shared_world)
    end_nmi(shared_world)


ADMISSION = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


def no_admission_policies(world: World) -> None:
    """Delete those that `enable` brings for everybody: NMI's own bear the name of their part."""
    for plural in PLURALS.values():
        selector = "app.kubernetes.io/name=podidentity,!app.kubernetes.io/component"
        world.delete(f"{ADMISSION}/{plural}", labelSelector=selector)


_SHIPPED = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in aks_exceptions()}
_DAEMON_SETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"
DAEMON_SET, PROBE_SET = (f"{_DAEMON_SETS}/{name}" for name in ("nmi", "podidentity-probe"))
EXCEPTION = f"{CUSTOM}/namespaces/kube-system/azurepodidentityexceptions/aks-addon-exception"
PODS = "/api/v1/namespaces/kube-system/pods"
_OURS = "app.kubernetes.io/component=nmi"
_OURS_AND_PROBES = "app.kubernetes.io/component in (nmi, probe)"


def nmi_pods(world: World, path: str = PODS) -> list[Any]:
    """Return the pods of NMI, also those that are being deleted, in the order of their nodes."""
    found = world.send("GET", path, labelSelector=_OURS)["items"]
    return sorted(found, key=lambda pod: pod["spec"]["nodeName"])


def end_nmi(world: World, path: str = PODS) -> None:
    """End the pods of NMI, as their kubelets would: a deleted pod stays until then."""
    for pod in world.send("GET", path, labelSelector=_OURS_AND_PROBES)["items"]:
        world.send("DELETE", f"{path}/{pod['metadata']['name']}", gracePeriodSeconds="0")


@pytest.fixture
def world(bare: World) -> World:
    """The world with the custom resources."""
    have_custom_resources(bare)
    return bare


KINDS = {each["spec"]["names"]["plural"] for each in crds()}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def have_custom_resources(world: World) -> None:
    """Make the custom resources that are not there yet."""
    served = {each["name"] for each in (world.get(CUSTOM) or {"resources": []})["resources"]}
    if served >= KINDS:
        return
    for crd in crds():
        if world.get(f"{CRDS}/{crd['metadata']['name']}") is None:
            world.send("POST", CRDS, crd)


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
def ns(world: World) -> Iterator[str]:
    name = world.namespace(f"n-{uuid.uuid4().hex[:8]}")
    yield name
    end(world, name)


def end(world: World, namespace: str) -> None:
    """Delete a namespace, and at once what other tests would see: lists of all stay short."""
    for plural in ("azureidentities", "azureidentitybindings"):
        world.delete(f"{CUSTOM}/namespaces/{namespace}/{plural}")
    world.delete(f"/api/v1/namespaces/{namespace}/pods", gracePeriodSeconds="0")
    world.delete(f"/api/v1/namespaces/{namespace}")


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
