from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

import podidentity
from podidentity import build, manifests
from podidentity.adapters.kube import Kube
from podidentity.cli import main
from podidentity.cli.output import table
from podidentity.cli.version import (
    HEAD,
    RunningProgram,
    alike,
    build_in,
    differing,
    program_of,
    rows,
)
from podidentity.wire.kube import KubeError
from tests.cli.conftest import DAEMON_SET, PODS, Ran, nmi_pods
from tests.cli.world import World

Run = Callable[..., Ran]
DEPLOYMENTS = "/apis/apps/v1/namespaces/kube-system/deployments"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the record of a build, of a package that the command takes for its own."""
    monkeypatch.setattr(build, "RECORD", tmp_path / "build.json")
    return tmp_path / "build.json"


def said(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main.run(["version", "--client", *flags]) == 0
    return capsys.readouterr().out


def test_a_build_names_its_commit_and_itself(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.write_text('{"commit": "0123abc", "build": "release 7"}')
    assert json.loads(said(capsys, "-o", "json")) == {
        "version": podidentity.__version__,
        "commit": "0123abc",
        "build": "release 7",
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def test_a_person_reads_it_in_columns(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded.write_text('{"commit": "0123abc", "build": "release 7"}')
    rows = [line.split(maxsplit=1) for line in said(capsys).splitlines()]
    assert rows[:3] == [
        ["podidentity", podidentity.__version__],
        ["commit", "0123abc"],
        ["build", "release 7"],
    ]


def test_a_checkout_guesses_neither(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "-o", "json"))
    assert (found["commit"], found["build"]) == ("unknown", "unknown")


def running(program: str = "nmi", node: str = "a", **more: str) -> RunningProgram:
    made = {"version": "0.2.0", "commit": "0123abc", "image": "r/podidentity:0.2.0", **more}
    return RunningProgram(program=program, pod=f"kube-system/{program}-{node}", node=node, **made)


def test_nodes_of_the_same_build_are_a_row_and_another_build_is_another() -> None:
    old = {"version": "0.1.0", "commit": "unknown", "image": "r/podidentity:0.1.0"}
    found = [running(node="c"), running(node="b", **old), running(), running("mic", "b")]
    assert rows(found) == [
        ("mic", "0.2.0", "0123abc", "r/podidentity:0.2.0 on b"),
        ("nmi", "0.1.0", "unknown", "r/podidentity:0.1.0 on b"),
        ("nmi", "0.2.0", "0123abc", "r/podidentity:0.2.0 on a, c"),
    ]
    another = running(node="d", digest="sha256:1")
    assert len(alike([*found, another])) == 4, "a tag may have been moved"


def test_a_node_with_several_pods_of_a_build_is_named_once() -> None:
    found = [running(node=node) for node in ("a", "a", "b", "", "", "a")]
    (row,) = rows(found)
    assert row[-1] == "r/podidentity:0.2.0 on no node, a, b"


def test_on_80_columns_a_line_holds_builds_of_aks_with_their_nodes() -> None:
    found = [
        running(
            program,
            f"aks-nodepool1-12345678-vmss{number:06}",
            commit=f"{'0123abcdef' * 4}-dirty",
            image="somebodysregistry.azurecr.io/tools/podidentity:0.2.0",
        )
        for number in range(9)
        for program in ("nmi", "mic")
    ]
    lines = table(HEAD, rows(found), width=80).splitlines()
    assert max(map(len, lines)) <= 80, lines
    assert "0123abcdef01-dirty" in lines[1]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], ""),
        ([running(), running("mic", "b")], ""),
        ([running(version="unknown")], ""),
        (
            [running(version="0.1.0"), running(node="b"), running("mic", "b")],
            "Versions differ: 0.2.0 this command; 0.1.0 nmi on a; 0.2.0 mic on b, nmi on b. "
            "podidentity check says more.",
        ),
    ],
)
def test_versions_that_differ_are_named_with_their_nodes(
    found: list[RunningProgram], words: str
) -> None:
    assert differing("0.2.0", found) == words


@pytest.mark.parametrize(
    ("images", "version"),
    [
        (["r/podidentity:0.2.0", "r/podidentity:0.2.0"], "0.2.0"),
        (["r/podidentity:0.2.0", "r/podidentity:0.1.0"], "0.2.0 and 0.1.0"),
        (["r/podidentity:latest"], "unknown"),
        (["r/podidentity@sha256:0"], "unknown"),
    ],
)
def test_the_tag_of_the_image_tells_a_version_before_anybody_is_asked(
    images: list[str], version: str
) -> None:
    pod = {
        "metadata": {"namespace": "n", "name": "p"},
        "spec": {"nodeName": "a", "containers": [{"image": each} for each in images]},
        "status": {"containerStatuses": [{"imageID": "sha256:1"}]},
    }
    found = program_of("nmi", pod)
    assert (found.version, found.pod, found.digest) == (version, "n/p", "sha256:1")


@pytest.fixture
def mic(bare: World) -> World:
    """The world with MIC in two pods, which are ready."""
    deployment = manifests.mic(image="r/podidentity:0.1.0", extra_args=["--v=1"])[-1]
    template = deployment["spec"]["template"]
    template["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"] = 8081
    deployment["spec"]["replicas"] = 0
    bare.send("POST", DEPLOYMENTS, deployment)
    for number, node in enumerate(bare.plan.nodes[:2]):
        meta = {"name": f"mic-{number}", **template["metadata"]}
        spec = {**template["spec"], "serviceAccountName": "default", "nodeName": node.name}
        bare.send("POST", PODS, {"metadata": meta, "spec": spec})
        said_ready(bare, meta["name"])
    return bare


def said_ready(world: World, pod: str) -> None:
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    world.send("PATCH", f"{PODS}/{pod}/status", {"status": status})


def answers(monkeypatch: pytest.MonkeyPatch, told: bytes) -> list[str]:
    """Have each pod answer so behind the API server; return the paths that are asked."""
    asked: list[str] = []

    async def passed_on(_: Kube, path: str) -> bytes:
        asked.append(path)
        return told

    monkeypatch.setattr(Kube, "passed_on", passed_on)
    return asked


def test_a_pod_of_mic_says_its_own_commit_at_the_port_of_its_probe(
    mic: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, b'{"ready": true, "build": {"version": "0.1.9", "commit": "c0"}}')
    ran = podidentity("version", "-o", "json")
    assert [
        (each["program"], each["version"], each["commit"], each["node"])
        for each in json.loads(ran.out)["cluster"]["programs"]
    ] == [("mic", "0.1.9", "c0", node.name) for node in mic.plan.nodes[:2]]
    assert asked == [f"{PODS}/mic-0:8081/proxy/readyz"], "those of one image are of one build"


@pytest.mark.usefixtures("mic")
def test_who_may_not_ask_a_pod_is_told_the_right_and_sees_all_else(
    podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_: Kube, path: str) -> bytes:
        raise KubeError(f"no: {path}", status=403)

    monkeypatch.setattr(Kube, "passed_on", refused)
    ran = podidentity("version", "-o", "json")
    assert (ran.code, "MIC's commit is not known" in ran.err) == (0, True)
    assert "you need the right to get pods/proxy in kube-system" in ran.err
    found = json.loads(ran.out)["cluster"]["programs"][0]
    assert (found["version"], found["commit"]) == ("0.1.0", "unknown")


@pytest.mark.parametrize("said", [b"", b"[]", b"{}", b'{"build": 1}', b'{"build": ["v"]}'])
def test_what_names_no_build_is_of_an_unknown_one(said: bytes) -> None:
    assert build_in(said) == {}


def test_both_sides_are_shown_and_a_pod_of_nmi_says_its_own_commit(
    bare: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = podidentity("version")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Neither NMI nor MIC is in the cluster.")
    assert podidentity("enable", "--no-wait", "--image=r/podidentity:0.1.0").code == 0
    pods = nmi_pods(bare)
    for pod in pods:
        said_ready(bare, pod["metadata"]["name"])
    asked = answers(monkeypatch, b'{"build": {"version": "0.1.7", "commit": "fedcba9"}}')
    ran = podidentity("version", "-o", "json")
    found = json.loads(ran.out)
    assert found["version"] == podidentity_version()
    assert [
        (each["program"], each["version"], each["commit"], each["node"])
        for each in found["cluster"]["programs"]
    ] == [("nmi", "0.1.7", "fedcba9", pod["spec"]["nodeName"]) for pod in pods]
    assert len(asked) == 1, "those of one image are of one build"
    assert "warning: Versions differ: " in ran.err
    assert bare.get(DAEMON_SET)["spec"]["template"]["spec"]["containers"][0]["image"] in ran.out


def podidentity_version() -> str:
    return podidentity.__version__


@pytest.mark.parametrize("output", ["table", "json"])
def test_where_no_cluster_can_be_asked_it_says_what_it_is_itself_and_fails(
    podidentity: Run, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")
    ran = podidentity("version", "-o", output)
    assert (ran.code, podidentity_version() in ran.out) == (1, True)
    assert ran.err.startswith("error: ")
    assert "podidentity version --client" in ran.err
    if output == "json":
        assert json.loads(ran.out)["cluster"]["error"]
