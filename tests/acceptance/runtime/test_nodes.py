"""What may befall a node beside the agent: a full disk, no address, an image made by others.

What is lost is said, and pods are served as far as no promise is broken.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from podidentity_sandbox.node.cri.containerd import names_in
from podidentity_sandbox.world.api import ready
from tests.acceptance.runtime.alone import agent, log, log_folder, probed, until_said
from tests.acceptance.runtime.conftest import KINDS
from tests.acceptance.runtime.node import ROOT, SYSTEM, Node, Object, copied
from tests.kubernetes.nodes.test_programs import until

FILL = "dd if=/dev/zero of={}/fill bs=4096 2>/dev/null || :"
UNCOMPILED = "localhost/podidentity:uncompiled"


def serve_of(template: Object) -> Object:
    """Return the container `serve` of a template."""
    (serve,) = [each for each in template["spec"]["containers"] if each["name"] == "serve"]
    found: Object = serve
    return found


def test_on_a_full_hand_over_folder_the_agent_serves_and_says_what_an_update_will_cost(
    alone: tuple[Node, Object],
) -> None:
    node, template = alone
    place = "/run/podidentity"
    # Room for the folders that the kubelet makes, and for no lock and no socket.
    full = f"mount -t tmpfs -o nr_inodes=3,mode=0700 tmpfs {place}"
    node.on_node(f"mkdir -p {place} && {full} && mkdir {place}/serve {place}/net")
    try:
        with agent(node, template) as name:
            node.ready(name, namespace=SYSTEM)
            assert node.ask("app").status == 200
            lost = "no lock of the rules in /run/podidentity-node/net, two agents may meet: No"
            assert lost in "".join(log(node, name))
            lost = "an update will interrupt requests, for no agent can take over: No space"
            assert lost in "".join(log(node, name, "serve"))
    finally:
        node.on_node(f"umount {place}")


def test_on_a_full_disk_of_the_required_audit_log_there_is_no_token_until_there_is_room(
    alone: tuple[Node, Object],
) -> None:
    node, template = alone
    audited = copied(template)
    serve = serve_of(audited)
    serve["args"] += ["--audit-log=/audit/log", "--audit-required"]
    serve["volumeMounts"].append({"name": "audit", "mountPath": "/audit"})
    audited["spec"]["volumes"].append({"name": "audit", "hostPath": {"path": "/run/audit"}})
    disk = "mount -t tmpfs -o size=64k,mode=0700,uid=64912 tmpfs /run/audit"
    node.on_node(f"mkdir /run/audit && {disk}")
    try:
        with agent(node, audited) as name:
            node.ready(name, namespace=SYSTEM)
            assert node.ask("app").status == 200
            node.on_node(FILL.format("/run/audit"))
            # The last page of the file has room for some more.
            until(lambda: node.ask("app").status == 503)
            assert {node.ask("app").status for _ in range(5)} == {503}
            until_said(node, name, "the audit log cannot be written: No space left on device")
            node.on_node("rm /run/audit/fill")
            until(lambda: node.ask("app").status == 200)
            node.ready(name, namespace=SYSTEM)
            tokens = node.on_node('grep -c \'"decision":"granted"\' /run/audit/log')
            assert int(tokens) >= 2
    finally:
        node.on_node("umount /run/audit && rmdir /run/audit")


def test_where_the_disk_of_containers_logs_is_full_the_agent_starts_again_and_serves(
    alone: tuple[Node, Object],
) -> None:
    """Nobody is told: the runtime takes each line from the agent, and throws it away.

    So records of an audit log at stdout are lost there, required or not: the promise needs a file.
    """
    node, template = alone
    audited = copied(template)
    serve_of(audited)["args"] += ["--audit-log=-", "--audit-required"]
    with agent(node, audited) as name:
        node.ready(name, namespace=SYSTEM)
        folder = log_folder(node, name, "serve")
        node.on_node(f"mount -t tmpfs -o size=16k tmpfs {folder} && {FILL.format(folder)}")
        try:
            os.kill(node.program("serve"), signal.SIGKILL)
            # Until then workers of before may answer, and the kubelet calls them ready.
            until(lambda: node.restarts()["serve"] == 1)
            until(lambda: ready(node.get(name, SYSTEM)))
            assert {node.ask("app").status for _ in range(20)} == {200}
            assert node.on_node(f"cat {folder}/1.log") == ""
        finally:
            node.on_node(f"umount -l {folder}")


def test_a_node_whose_kubelet_reports_no_address_is_served(alone: tuple[Node, Object]) -> None:
    node, template = alone
    node.reboot(**KINDS["routed-cgroupfs-runc"], tells_address=False)
    try:
        node.ready("app")
        with agent(node, template) as name:
            node.ready(name, namespace=SYSTEM)
            assert not node.get(name, SYSTEM)["status"].get("podIP")
            path = f"/api/v1/nodes/{node.own.name}"
            assert node.api.request("GET", path)["status"].get("addresses", []) == []
            assert node.ask("app").status == 200
            assert probed(node, name).startswith("ok")
    finally:
        node.reboot(tells_address=True)
        node.ready("app")


@pytest.fixture(scope="module")
def uncompiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of an image with sources where ours has bytecode."""
    folder = tmp_path_factory.mktemp("image")
    words = ("--or-newest", "--no-bytecode", "--output", str(folder), "--name", UNCOMPILED)
    command = [sys.executable, "-m", "deploy.image", *words]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar")
    return archive


def test_an_image_without_bytecode_serves_only_later(
    alone: tuple[Node, Object], uncompiled: Path
) -> None:
    node, template = alone
    assert names_in(uncompiled) == {UNCOMPILED}
    node.on_node(f"ctr -n k8s.io images import {uncompiled}")
    used = {}
    for image in (serve_of(template)["image"], UNCOMPILED):
        other = copied(template)
        for container in other["spec"]["containers"]:
            container["image"] = image
        with agent(node, other) as name:
            node.ready(name, namespace=SYSTEM)
            used[image] = node.processor(name, namespace=SYSTEM)
            assert node.ask("app").status == 200
    ours, theirs = used.values()
    assert theirs > ours, "what it needs of a processor until it serves"
