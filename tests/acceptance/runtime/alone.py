"""One agent on the node, of no DaemonSet: made as a test wants it, and asked what it lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from podidentity_sandbox.node.client import ExecFailed
from podidentity_sandbox.world.api import ready
from tests.acceptance.runtime.node import SECONDS, SYSTEM, Node, Object, copied

Change = Callable[[Object, Object], None]
"""Changes the pod's spec, and that of its container `net`."""


def changed(template: Object, change: Change) -> Object:
    """Return a copy of the agent's template with a change of the container `net`."""
    copy = copied(template)
    (net,) = [each for each in copy["spec"]["containers"] if each["name"] == "net"]
    change(copy["spec"], net)
    return copy


@contextmanager
def agent(node: Node, template: Object) -> Iterator[str]:
    """Run one agent by this template, of no DaemonSet."""
    name = "nmi-alone"
    metadata = {**template["metadata"], "name": name, "namespace": SYSTEM}
    spec = {**template["spec"], "nodeName": node.own.name}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    node.api.request("POST", f"/api/v1/namespaces/{SYSTEM}/pods", pod)
    try:
        yield name
    finally:
        node.delete(name, namespace=SYSTEM)


def until_said(node: Node, agent: str, words: str, *, give_nothing_to: str = "") -> None:
    """Wait until an agent says these words: by its log, an event, or when it is asked again."""
    end = time.monotonic() + SECONDS
    while True:
        if give_nothing_to:
            assert node.ask(give_nothing_to).status != 200, "a token by a weaker proof"
        told = "\n".join([*node.events(agent, SYSTEM), *log(node, agent)])
        if words in told and not ready(node.get(agent, SYSTEM)):
            return
        if ready(node.get(agent, SYSTEM)) and words in (told := probed(node, agent)):
            assert not told.startswith("ok")
            return
        assert time.monotonic() < end, told
        time.sleep(0.2)


def probed(node: Node, agent: str) -> str:
    """Return what the probe of readiness says, as the kubelet asks for it."""
    (serve,) = [c for c in node.get(agent, SYSTEM)["spec"]["containers"] if c["name"] == "serve"]
    probe = serve["readinessProbe"]["exec"]["command"]
    try:
        return node.inside(agent, *probe, namespace=SYSTEM, container="serve")
    except ExecFailed as error:
        return str(error)


def log(node: Node, pod: str, container: str = "net") -> list[str]:
    """Return what a container of an agent has written in its runs."""
    return [file.read_text() for file in log_folder(node, pod, container).glob("*.log")]


def log_folder(node: Node, pod: str, container: str) -> Path:
    """Return where the logs of a container's runs are on the node."""
    uid = node.get(pod, SYSTEM)["metadata"]["uid"]
    return node.plan.path / "nodes" / node.own.name / f"{SYSTEM}_{pod}_{uid}" / container
