"""The world with its real parts: a pod runs in it, reaches Azure, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from podidentity_sandbox.world.lifecycle import Outcome
from podidentity_sandbox.world.supervisor import REAL_PARTS
from tests.root import WAYS
from tests.sandbox.world.places import COMMAND, Place, traces

pytestmark = pytest.mark.net

PODS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: here, namespace: shop}
spec: {nodeName: aks-nodepool1-12345678-vmss000000, containers: [{name: main, image: any}]}
---
apiVersion: v1
kind: Pod
metadata: {name: there, namespace: shop}
spec:
  nodeName: aks-nodepool1-12345678-vmss000001
  containers: [{name: main, image: any, command: [sh, -c, echo I am up; sleep 1000]}]
"""
TOKEN = (
    "http://169.254.169.254/metadata/identity/oauth2/token"
    "?api-version=2018-02-01&resource=https://vault.azure.net"
)


def real(place: Place) -> None:
    place.up("default", parts=REAL_PARTS)


def sandbox(place: Place, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `podidentity sandbox …` as a process, on the test's own folder."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND, str(place.base), "", *words],
        env={"PATH": os.environ["PATH"]},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mode", WAYS)
def test_pods_run_reach_azure_and_each_other_and_leave_nothing(place: Place, mode: str) -> None:
    place.mode = mode
    real(place)
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

    there = json.loads(sandbox(place, "get", "pod", "there", "-n", "shop", "-o", "json").stdout)
    address = there["status"]["podIP"]
    script = f"import socket; socket.create_connection(({address!r}, 9), 60)"
    refused = sandbox(place, "exec", "-n", "shop", "here", "--", "python3", "-c", script)
    assert "ConnectionRefusedError" in refused.stderr  # an answer of the other pod's own kernel

    assert sandbox(place, "logs", "-n", "shop", "pod/there").stdout == "I am up\n"
    names = sandbox(place, "get", "pods", "-n", "shop", "-o", "name").stdout
    assert names == "pod/here\npod/there\n"
    table = sandbox(place, "get", "pods", "-A").stdout.splitlines()
    assert table[0].split()[:4] == ["NAMESPACE", "NAME", "READY", "STATUS"]
    assert table[1].split()[:4] == ["shop", "here", "1/1", "Running"]

    left = traces(place, "default")
    assert place.down("default") is Outcome.RUNNING
    assert left.seen() == []


def test_objects_are_written_and_errors_are_in_kubectls_words(place: Place) -> None:
    real(place)
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
