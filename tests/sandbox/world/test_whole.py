"""The world with its real parts: a pod runs in it, reaches Azure, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from podidentity_sandbox.cluster.controllers.nodes import GRACE
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.api import Api, Object, ready
from podidentity_sandbox.world.lifecycle import Outcome, down, up
from podidentity_sandbox.world.supervisor import REAL_PARTS
from tests.root import WAYS
from tests.sandbox.world.places import Place, gone, pid_of, traces

pytestmark = pytest.mark.net

PODS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: here, namespace: shop}
spec: {containers: [{name: main, image: any}]}
---
apiVersion: v1
kind: Pod
metadata: {name: there, namespace: shop}
spec: {containers: [{name: main, image: any, command: [sh, -c, echo I am up; sleep 1000]}]}
"""
TOKEN = (
    "http://169.254.169.254/metadata/identity/oauth2/token"
    "?api-version=2018-02-01&resource=https://vault.azure.net"
)


@pytest.fixture(params=WAYS)
def world(request: pytest.FixtureRequest, place: Place) -> tuple[Place, Plan]:
    place.mode = request.param
    return place, up(dataclasses.replace(place.options("default"), parts=REAL_PARTS))


def sandbox(place: Place, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `podidentity sandbox …` as a process, on the test's own folder."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from podidentity_sandbox.world import folder\n"
        "base = Path(sys.argv.pop(1))\n"
        "folder.base_folder = lambda: base\n"
        "from podidentity_sandbox.cli import sandbox\n"
        "sandbox()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(place.base), *words],
        env={"PATH": os.environ["PATH"]},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_pod_runs_reaches_azure_and_leaves_nothing(world: tuple[Place, Plan]) -> None:
    place, _ = world
    applied = sandbox(place, "apply", "--wait", "-f", "-", stdin=PODS)
    assert applied.stdout.split("\n")[:3] == [
        "namespace/shop created",
        "pod/here created",
        "pod/there created",
    ], applied.stderr

    said = sandbox(place, "exec", "-n", "shop", "here", "--", "sh", "-c", "hostname; exit 7")
    assert (said.stdout, said.returncode) == ("here\n", 7)
    echoed = sandbox(place, "exec", "-n", "shop", "here", "-i", "--", "cat", stdin="through")
    assert echoed.stdout == "through"
    not_read = sandbox(place, "exec", "-n", "shop", "here", "--", "cat", stdin="through")
    assert (not_read.stdout, not_read.returncode) == ("", 0)

    ask = ["curl", "-sf", "-m", "10", "-H", "Metadata:true", TOKEN]
    asked = sandbox(place, "exec", "-n", "shop", "here", "--", *ask)
    assert json.loads(asked.stdout)["token_type"] == "Bearer", asked

    assert sandbox(place, "logs", "-n", "shop", "pod/there").stdout == "I am up\n"
    names = sandbox(place, "get", "pods", "-n", "shop", "-o", "name").stdout
    assert names == "pod/here\npod/there\n"
    table = sandbox(place, "get", "pods", "-A").stdout.splitlines()
    assert table[0].split()[:4] == ["NAMESPACE", "NAME", "READY", "STATUS"]
    assert table[1].split()[:4] == ["shop", "here", "1/1", "Running"]

    left = traces(place, "default")
    assert down(place.folder("default")) is Outcome.RUNNING
    assert left.seen() == []


def test_objects_are_written_and_errors_are_in_kubectls_words(place: Place) -> None:
    up(dataclasses.replace(place.options("default"), parts=REAL_PARTS))
    made = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: v}}"
    said = [
        sandbox(place, "apply", "-f", "-", stdin=text).stdout.strip()
        for text in (made, made, made.replace("v}", "w}"))
    ]
    assert said == ["configmap/a created", "configmap/a unchanged", "configmap/a configured"]
    assert "k: w" in sandbox(place, "get", "cm", "a", "-o", "yaml").stdout
    failures = [
        (("get", "configmap", "b"), 'configmaps "b" not found'),
        (("get", "unicorns"), 'the server doesn\'t have a resource type "unicorns"'),
        (("exec", "nobody", "--", "true"), 'pods "nobody" not found'),
    ]
    for words, reason in failures:
        failed = sandbox(place, *words)
        assert (failed.returncode, reason in failed.stderr) == (1, True), failed.stderr
    unknown = sandbox(place, "apply", "-f", "-", stdin=made.replace("ConfigMap", "Unicorn"))
    assert 'no matches for kind "Unicorn" in version "v1"' in unknown.stderr


def test_pods_on_different_nodes_reach_each_other(world: tuple[Place, Plan]) -> None:
    place, plan = world
    pods = "\n---\n".join(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"on-{node.index}", "namespace": "default"},
                "spec": {"nodeName": node.name, "containers": [{"name": "main", "image": "any"}]},
            }
        )
        for node in plan.nodes
    )
    assert sandbox(place, "apply", "--wait", "-f", "-", stdin=pods).returncode == 0
    other = json.loads(sandbox(place, "get", "pod", "on-1", "-o", "json").stdout)["status"]["podIP"]
    script = f"import socket; socket.create_connection(({other!r}, 9), 60)"
    said = sandbox(place, "exec", "on-0", "--", "python3", "-c", script)
    assert "ConnectionRefusedError" in said.stderr  # an answer of the other pod's own kernel


def test_a_killed_kubelet_takes_its_pods_with_it_and_a_new_one_starts_them(
    world: tuple[Place, Plan],
) -> None:
    place, plan = world
    sandbox(place, "apply", "--wait", "-f", "-", stdin=PODS)
    found = json.loads(sandbox(place, "get", "pod", "there", "-n", "shop", "-o", "json").stdout)
    node = found["spec"]["nodeName"]
    inode = ("exec", "-n", "shop", "there", "--", "readlink", "/proc/self/ns/net")
    before = sandbox(place, *inode).stdout.strip()
    with ExitStack() as all_gone:
        for pid in processes_in(before):
            all_gone.enter_context(gone(pid))
        os.kill(pid_of(place, node, "default"), signal.SIGKILL)
    assert sandbox(place, "part", "start", node).stdout == f"{node} is ready\n"
    restarted = Api(plan).wait_for(
        "/api/v1/namespaces/shop/pods",
        ["there"],
        lambda pod: pod["status"].get("podIP") and ready(pod) and started_after(pod, found),
        250,
    )
    assert restarted == {}
    after = sandbox(place, *inode).stdout.strip()
    assert after.startswith("net:")
    assert after != before


def test_a_killed_node_is_not_ready_and_tainted_once_its_grace_is_over(place: Place) -> None:
    plan = up(dataclasses.replace(place.options("default"), parts=REAL_PARTS))
    node = plan.nodes[0].name

    def state(found: Object) -> tuple[str, int]:
        ready_ = [c for c in found["status"]["conditions"] if c["type"] == "Ready"]
        return ready_[0]["status"], len(found["spec"].get("taints", []))

    assert sandbox(place, "part", "kill", node).stdout == f"{node} is ended\n"
    path = "/api/v1/nodes"
    assert not Api(plan).wait_for(path, [node], lambda n: state(n) == ("Unknown", 2), GRACE * 5)


def started_after(pod: Object, earlier: Object) -> bool:
    (now,), (then,) = (each["status"]["containerStatuses"] for each in (pod, earlier))
    return bool(now["containerID"] != then["containerID"])


def processes_in(namespace: str) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if str((process / "ns/net").readlink()) == namespace:
                found.append(int(process.name))
    assert found
    return found
