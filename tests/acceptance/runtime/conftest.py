"""The one node of these tests, in each kind that they run on; a kind begins with a reboot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from podidentity import __version__
from podidentity_sandbox.node.cri.containerd import missing
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.plan import Network
from tests.acceptance.runtime.node import (
    ROOT,
    SYSTEM,
    TOOLS,
    Node,
    Object,
    manifest_of,
    opened,
)
from tests.sandboxes import own

KINDS: dict[str, dict[str, Any]] = {
    "routed-cgroupfs-runc": {
        "network": Network.ROUTED,
        "driver": "cgroupfs",
        "handler": "runc",
        "runtime_driver": "",
        "own_netns_folder": False,
    },
    "bridge-systemd-crun": {
        "network": Network.BRIDGE,
        "driver": "systemd",
        "handler": "crun",
        "runtime_driver": "",
        "own_netns_folder": False,
    },
}
"""Azure CNI's shape and kubenet's; each driver; what makes the agent's own containers."""
ARCHIVE = ROOT / f"dist/image/podidentity-{__version__}.tar"
"""What ./scripts/image writes."""


@pytest.fixture(scope="session")
def machine() -> Iterator[Node]:
    """The node, of whichever kind."""
    lacks = missing(RuntimeOptions(tools=str(TOOLS)))
    assert not lacks, lacks
    assert ARCHIVE.exists(), f"{ARCHIVE} is not there: ./scripts/test --runtime builds it"
    with opened(own("runtime"), ARCHIVE, KINDS["routed-cgroupfs-runc"]) as node:
        yield node


@pytest.fixture(scope="session", params=KINDS)
def node(request: pytest.FixtureRequest, machine: Node) -> Node:
    """The node as one of the kinds, with the agent and two pods: one bound, one with no right."""
    wanted = KINDS[request.param]
    if not machine.is_set_up(**wanted):
        machine.reboot(**wanted)
    if not machine.agents():
        machine.enable()
    machine.agent()
    if not machine.api.request("GET", "/api/v1/namespaces/team/pods")["items"]:
        machine.start("app")
        machine.start("other", bound=False)
    machine.ready("app", "other")
    return machine


@pytest.fixture(autouse=True)
def cleaned(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails leaves no pod to the next one."""
    yield
    if "machine" in request.fixturenames:
        request.getfixturevalue("machine").clean()


@pytest.fixture(scope="module")
def alone(machine: Node) -> tuple[Node, Object]:
    """The node without the agent, and the pod that would be it."""
    machine.reboot(**KINDS["routed-cgroupfs-runc"])
    if not machine.agents():
        machine.enable()
    machine.agent()
    if not machine.api.request("GET", "/api/v1/namespaces/team/pods")["items"]:
        machine.start("app")
    machine.ready("app")
    made = manifest_of(machine)
    machine.place.run("kubectl", "delete", "daemonset", "nmi", "-n", SYSTEM, "--cascade=foreground")
    return machine, made["spec"]["template"]
