"""A sandbox whose control plane is Kubernetes itself: its parts, its pods, its persons."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from podidentity_sandbox.cli import sandbox
from podidentity_sandbox.kubernetes.programs import PROGRAMS
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.environment import environment
from podidentity_sandbox.world.inspection import status
from podidentity_sandbox.world.lifecycle import Outcome
from podidentity_sandbox.world.requirements import version as version_in
from podidentity_sandbox.world.supervisor import REAL_PARTS
from tests.kubernetes.conftest import KUBERNETES, needs_kubernetes, order
from tests.root import WAYS
from tests.sandbox.world.places import Place, placed, traces

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "shop"},
    "spec": {
        "containers": [
            {"name": "main", "image": "any", "command": ["sh", "-c", "echo I am up; sleep 1000"]}
        ]
    },
}


def kubectl(plan: Plan, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubectl", *words],
        env=environment(plan, os.environ["PATH"]),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_kubernetes
@pytest.mark.net
def test_each_program_is_a_part_and_one_process(place: Place, plan: Plan) -> None:
    found = {part["name"]: part for part in status(place.folder()).parts}
    assert set(found) == {*PROGRAMS, "proxy", "azure", *(node.name for node in plan.nodes)}
    for name in PROGRAMS:
        assert found[name]["state"] == "ready"
        assert Path(f"/proc/{found[name]['pid']}/exe").resolve().parent == KUBERNETES
        assert found[name]["memory_kib"] > 10_000


@needs_kubernetes
@pytest.mark.net
def test_a_pod_runs_is_logged_and_entered_through_the_api_server(plan: Plan) -> None:
    version = json.loads(kubectl(plan, "version", "-o", "json").stdout)["serverVersion"]
    assert version["gitVersion"] == f"v{plan.kubernetes_version}"
    assert kubectl(plan, "apply", "-f", "-", stdin=json.dumps(POD)).returncode == 0
    ready = kubectl(plan, "wait", "--for=condition=Ready", "pod/shop", "--timeout=60s")
    assert ready.returncode == 0, ready.stderr
    assert kubectl(plan, "logs", "shop").stdout == "I am up\n"
    entered = kubectl(plan, "exec", "-i", "shop", "--", "sh", "-c", "cat; exit 7", stdin="through")
    assert (entered.stdout, entered.returncode) == ("through", 7)


@needs_kubernetes
@pytest.mark.net
def test_a_person_of_entra_is_known_by_the_object_id_and_has_no_right_by_it(plan: Plan) -> None:
    object_id = "6f9a2f36-0000-4000-8000-000000000001"
    token = plan.person_token(object_id)
    who = kubectl(
        plan, "auth", "whoami", "-o", "json", "--token", token, "--kubeconfig", anybody(plan)
    )
    assert json.loads(who.stdout)["status"]["userInfo"]["username"] == object_id
    forged = kubectl(
        plan, "auth", "whoami", "--token", f"{token[:-1]}x", "--kubeconfig", anybody(plan)
    )
    assert "Unauthorized" in forged.stderr
    pods = kubectl(plan, "get", "pods", "--token", token, "--kubeconfig", anybody(plan))
    assert f'User "{object_id}" cannot list resource "pods"' in pods.stderr


def anybody(plan: Plan) -> str:
    """Return a kubeconfig without a user."""
    path = plan.path / "anybody"
    found = kubectl(plan, "config", "view", "--raw", "-o", "json")
    path.write_text(json.dumps({**json.loads(found.stdout), "users": []}))
    return str(path)


@needs_kubernetes
@pytest.mark.net
def test_all_of_the_api_server_stands_still_while_it_is_paused(place: Place, plan: Plan) -> None:
    order(place, "pause", "kube-apiserver")
    late = kubectl(plan, "get", "nodes", "--request-timeout=1s")
    assert late.returncode == 1
    order(place, "resume", "kube-apiserver")
    assert kubectl(plan, "get", "nodes").returncode == 0


@needs_kubernetes
@pytest.mark.net
@pytest.mark.parametrize("part", ["kube-apiserver", "etcd"])
def test_objects_are_there_after_a_program_was_killed_and_started(
    place: Place, plan: Plan, part: str
) -> None:
    made = kubectl(plan, "create", "configmap", part, "--from-literal=a=b")
    assert made.returncode == 0, made.stderr
    order(place, "kill", part)
    order(place, "start", part)
    found = kubectl(plan, "get", "configmap", part, "-o", "jsonpath={.data.a}")
    assert (found.stdout, found.returncode) == ("b", 0), found.stderr


@needs_kubernetes
@pytest.mark.net
@pytest.mark.parametrize("mode", WAYS)
def test_nothing_remains_of_it(mode: str) -> None:
    with placed() as place:
        place.mode = mode
        place.up(parts=REAL_PARTS, kubernetes=str(KUBERNETES))
        left = traces(place)
        assert place.down() is Outcome.RUNNING
        assert left.seen() == []
        assert not place.base.exists()


def test_programs_that_are_missing_are_named_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "etcd").touch(mode=0o755)
    with pytest.raises(SandboxError, match="no program kube-apiserver, kube-controller-manager, "):
        version_in(tmp_path)


def test_a_version_is_refused_as_is_what_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        sandbox(["up", "--kubernetes", "1.33"])
    assert ended.value.code == 2
    assert "Directory '1.33' does not exist" in capsys.readouterr().err
