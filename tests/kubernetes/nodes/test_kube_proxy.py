"""kube-proxy in nftables mode beside NMI: it writes its rules by the node's own nft."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest

from tests.acceptance.runtime.node import SERVED
from tests.kernel.old_nft import old_nft as old_nft
from tests.kernel.readers import LIBRARIES
from tests.kubernetes.conftest import needs_kubernetes
from tests.kubernetes.nodes.node import RealNode
from tests.kubernetes.nodes.test_programs import until
from tests.root import needs_root

pytestmark = [needs_kubernetes, needs_root, pytest.mark.net]

SERVE = """
import socket
serving = socket.create_server(("", 8080))
while True:
    asking, _ = serving.accept()
    asking.sendall(b"served")
    asking.close()
"""
CONNECT = """
import socket, sys
print(socket.create_connection((sys.argv[1], 80), 1).recv(64).decode())
"""


@pytest.fixture(params=["1.0.6", "of the machine"])
def nft(node: RealNode, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The node's nft, of this version, since kube-proxy started; NMI has written its rules."""
    node.agent()
    if request.param == "of the machine":
        yield node.on_node("nft --version")
        return
    folder, script, program = request.getfixturevalue("old_nft"), tmp_path / "nft", which("nft")
    environment = f"LD_LIBRARY_PATH={folder}/{LIBRARIES}"
    script.write_text(f'#!/bin/sh\n{environment} exec {folder}/usr/sbin/nft "$@"\n')
    script.chmod(0o755)
    with without_kube_proxy(node):
        node.on_node(shlex.join(["mount", "--bind", str(script), str(program)]))
    yield node.on_node("nft --version")
    with without_kube_proxy(node):
        node.on_node(f"umount {program}")


@contextmanager
def without_kube_proxy(node: RealNode) -> Iterator[None]:
    """Begin without kube-proxy's rules; old nft crashes on what newer nft wrote for it."""
    node.order("kill", service="kube-proxy")
    this_machines = ["nsenter", "-t", str(node.pid), "--net", "nft"]
    for family in ("ip", "ip6"):
        subprocess.run([*this_machines, "delete", "table", family, "kube-proxy"], check=True)
    yield
    node.order("start", service="kube-proxy")


def test_a_service_that_is_made_after_nmi_started_is_reached_by_its_address(
    nodes: list[RealNode], node: RealNode, nft: str
) -> None:
    # Between pods of one bridge answers would pass kube-proxy by: the machine has no br_netfilter.
    (other,) = [each for each in nodes if each is not node]
    name = f"service-{nft.split()[1]}-{node.own.index}".replace(".", "-")
    container = {"command": ["python3", "-ISc", SERVE], "ports": [{"containerPort": 8080}]}
    other.ready(other.start(name, bound=False, labels={"app": name}, container=container))
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": SERVED},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    services = f"/api/v1/namespaces/{SERVED}/services"
    made = node.api.request("POST", services, service)
    try:
        connect = ("python3", "-ISc", CONNECT, made["spec"]["clusterIP"])
        until(lambda: node.inside("app", *connect) == "served\n")
        assert {"table ip podid", "table ip kube-proxy"} <= set(
            node.on_node("nft list tables").splitlines()
        ), nft
    finally:
        node.api.request("DELETE", f"{services}/{name}")
        node.drop(name)
