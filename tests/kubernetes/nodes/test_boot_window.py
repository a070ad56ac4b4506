"""The moment before NMI is ready: on a real node that starts again, and on one that is new.

NMI is held back meanwhile: the controllers, which make its pod, stand still.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from podidentity.manifests import STARTUP_TAINT
from podidentity_sandbox.world.api import ApiError
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.inspection import ask as order
from tests.acceptance.runtime.node import SERVED, SYSTEM, Object
from tests.kubernetes.conftest import needs_kubernetes
from tests.kubernetes.nodes.node import RealNode
from tests.kubernetes.nodes.test_programs import until
from tests.root import needs_root

pytestmark = [needs_kubernetes, needs_root, pytest.mark.net]

# Asks again and again, by a nonce, from its first moment on; prints each status, or `none`.
RESTLESS = """
import socket, sys, time
request = (
    "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
    f" HTTP/1.1\\r\\nHost: 169.254.169.254\\r\\nMetadata: true\\r\\nX-Nonce: {sys.argv[1]}\\r\\n"
    "Connection: close\\r\\n\\r\\n"
).encode()
while True:
    try:
        with socket.create_connection(("169.254.169.254", 80), 1) as asking:
            asking.sendall(request)
            print(asking.recv(65536)[9:12].decode() or "none", flush=True)
    except OSError:
        print("none", flush=True)
    time.sleep(0.1)
"""


def restless(name: str) -> Object:
    return {"command": ["python3", "-ISc", RESTLESS, name]}


def said(node: RealNode, pod: str) -> list[str]:
    """Return what a restless pod was answered since its container started."""
    return node.place.run("kubectl", "logs", pod, "-n", SERVED).split()


@contextmanager
def without_nmi(node: RealNode) -> Iterator[None]:
    """Switch the node off and on without NMI, which comes when this ends."""
    control = Folder(node.plan.name, node.plan.path.parent).control
    order(control, {"op": "pause", "part": "kube-controller-manager"})
    try:
        node.order("kill")
        for pod in node.agents():
            forget(node, f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}")
        yield
    finally:
        order(control, {"op": "resume", "part": "kube-controller-manager"})


def forget(node: RealNode, path: str) -> None:
    """Take an object away at once, though its node is switched off."""
    with suppress(ApiError):
        node.api.request("DELETE", f"{path}?gracePeriodSeconds=0")


def test_a_node_that_starts_again_is_open_until_nmi_serves_and_by_the_node_unit_closed(
    node: RealNode,
) -> None:
    name = f"restless-{node.own.index}"
    node.ready(node.start(name, container=restless(name)))
    until(lambda: "200" in said(node, name))
    assert node.leaked(name) == 0
    with without_nmi(node):
        node.order("start")
        until(lambda: node.leaked(name) > 0)
    until(lambda: "200" in said(node, name))
    before = node.leaked(name)
    (command,) = re.findall(
        r"^ExecStart=(.*)$", node.place.run("podidentity", "node-unit"), re.MULTILINE
    )
    script = node.plan.boot_script(node.own)
    script.write_text(f"{shlex.join(shlex.split(command))}\n")
    try:
        runs = restarts(node, name)
        with without_nmi(node):
            node.order("start")
            until(lambda: restarts(node, name) > runs and "none" in said(node, name))
            assert "200" not in said(node, name)
        until(lambda: "200" in said(node, name))
        assert node.leaked(name) == before
    finally:
        script.unlink()
    node.agent()


def restarts(node: RealNode, pod: str) -> int:
    (state,) = node.get(pod)["status"]["containerStatuses"]
    return int(state["restartCount"])


def test_a_new_node_with_the_start_up_taint_gets_no_pod_of_a_tenant_before_nmi_serves(
    nodes: list[RealNode],
) -> None:
    node = nodes[1]
    selected = {"nodeName": None, "nodeSelector": {"kubernetes.io/hostname": node.own.name}}
    with without_nmi(node):
        for pod in node.api.request("GET", "/api/v1/pods")["items"]:
            if pod["spec"].get("nodeName") == node.own.name:
                where = pod["metadata"]
                forget(node, f"/api/v1/namespaces/{where['namespace']}/pods/{where['name']}")
        forget(node, f"/api/v1/nodes/{node.own.name}")
        forget(node, f"/apis/storage.k8s.io/v1/csinodes/{node.own.name}")
        node.order("start")
        made = node.api.request("GET", f"/api/v1/nodes/{node.own.name}")
        assert STARTUP_TAINT in {each["key"] for each in made["spec"]["taints"]}
        node.start("barred", container=restless("barred"), **selected)
        everything = [{"operator": "Exists"}]
        node.start("tolerant", container=restless("tolerant"), tolerations=everything, **selected)
        until(lambda: node.leaked("tolerant") > 0)
        assert node.get("barred")["status"]["phase"] == "Pending"
    node.ready("barred")
    until(lambda: "200" in said(node, "barred"))
    assert node.leaked("barred") == 0
    node.share()
