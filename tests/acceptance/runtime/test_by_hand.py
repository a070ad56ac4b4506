"""A person brings such a sandbox up as the documentation says, and looks into it.

Before the others: a machine has one such node at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.node.cri.pause import SHELL
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.cgroups import roots_of
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.acceptance.runtime.node import TOOLS
from tests.docs.blocks import ROOT, blocks_of
from tests.sandboxes import own

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "app", "namespace": "default"},
    "spec": {"containers": [{"name": "main", "image": SHELL, "command": ["sleep", "infinity"]}]},
}


def test_the_documented_commands_bring_up_a_sandbox_with_containers() -> None:
    page = blocks_of(ROOT / "docs/reference/sandbox.md")
    (block,) = [each for each in page if each.mark == "run=runtime"]
    name = own("by-hand")

    def run(script: str, given: str = "") -> str:
        environment = {**os.environ, "PODIDENTITY_SANDBOX": name}
        ran = subprocess.run(
            ["bash", "-euc", script],
            input=given,
            cwd=ROOT,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    try:
        said = run(block.text)
        assert "containerd runs the pods" in said
        run("podidentity sandbox apply --wait -f -", json.dumps(POD))
        shown = 'eval "$(podidentity sandbox env)"; kubectl get pod app -o json'
        (status,) = json.loads(run(shown))["status"]["containerStatuses"]
        assert status["containerID"].startswith("containerd://")
        assert run("podidentity sandbox exec app -- cat /etc/hostname") == "app\n"
    finally:
        bring_down(name)


def test_a_node_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    name = own("broken")
    for each in TOOLS.iterdir():
        if each.name != "pause.tar":
            (tmp_path / each.name).symlink_to(each)
    with pytest.raises(SandboxError, match=r"(?s)ended with 1.*pause\.tar"):
        bring_up(name, Shape(nodes=1), runtime=RuntimeOptions(tools=str(tmp_path)))
    folder = Folder.of(name).path
    assert not folder.exists()
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    assert [root for root in roots_of(folder) if root.exists()] == []
    commands = (each.read_bytes() for each in Path("/proc").glob("[0-9]*/cmdline"))
    assert not any(str(folder).encode() in each for each in commands)
