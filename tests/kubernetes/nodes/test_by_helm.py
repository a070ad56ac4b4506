"""The chart, installed and upgraded by Helm itself on real nodes, with the image itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.values import CHART
from podidentity_sandbox.kubernetes.nodes import TRUST
from podidentity_sandbox.world.environment import environment
from tests.acceptance.runtime.node import IMAGE, SECONDS, SYSTEM
from tests.deploy.helm import RELEASE, TAKE_OVER, begun, finish
from tests.kubernetes.conftest import needs_kubernetes
from tests.kubernetes.nodes.load import KEPT, NONCE, RATE, Load
from tests.kubernetes.nodes.node import RealNode
from tests.root import needs_root

pytestmark = [needs_kubernetes, needs_root, pytest.mark.net]
DAEMON_SET = f"{RELEASE}-nmi"


def helm(node: RealNode, action: str, *words: str, **values: Any) -> str:
    """Have Helm do this with our release; return what it printed."""
    where = (f"--kubeconfig={node.plan.kubeconfig}", f"--namespace={SYSTEM}")
    words = (*words, *where, f"--timeout={SECONDS:.0f}s")
    return finish(begun(action, RELEASE, *words, values=values or None))


def put(node: RealNode, action: str, *words: str, **nmi: Any) -> None:
    """Install the chart, or upgrade to it."""
    repository, _, tag = IMAGE.rpartition(":")
    (cgroups,) = environment(node.plan, "")["PODIDENTITY_NMI_ARGS"].split()
    helm(
        node,
        action,
        str(CHART),
        "--wait",
        *words,
        operationMode="managed",
        image={"repository": repository, "tag": tag, "imagePullPolicy": "Never"},
        nmi={"extraArgs": [cgroups], **nmi},
        proxy={"secretName": TRUST},
        startupTaint={"enabled": True},
    )


@pytest.fixture(scope="module", autouse=True)
def release(nodes: list[RealNode]) -> Iterator[None]:
    """Ours as a release of Helm, in place of that of `enable`, which comes back afterwards."""
    node = nodes[0]
    node.place.run("podidentity", "disable")
    put(node, "install", *TAKE_OVER)
    yield
    helm(node, "uninstall", "--wait")
    node.enable(IMAGE, "--startup-taint", "--proxy-secret", TRUST)


def test_with_the_image_itself_an_install_gives_a_token_and_helm_test_says_how(
    nodes: list[RealNode],
) -> None:
    for node in nodes:
        node.share()
        assert node.ask("app").status == 200
    said = helm(nodes[0], "test", "--logs").splitlines()
    for node in nodes:
        (line,) = {line for line in said if line.startswith(node.own.name)}
        network = node.own.network.value
        assert line.split()[1:] == ["ready", network, "nftables", "kernel", "proved"]


def test_a_restart_and_an_upgrade_under_load_cost_none_of_14_000_requests(
    nodes: list[RealNode],
) -> None:
    loads = [
        Load(node, f"load-{kind}-{node.own.index}", 50, 600, program)
        for node in nodes
        for kind, program in (("new", RATE), ("kept", KEPT))
    ]
    began, before = time.monotonic(), {node.agent() for node in nodes}
    nodes[0].place.run("kubectl", "rollout", "restart", f"daemonset/{DAEMON_SET}", "-n", SYSTEM)
    wait = ("rollout", "status", f"daemonset/{DAEMON_SET}", "-n", SYSTEM)
    nodes[0].place.run("kubectl", *wait, f"--timeout={SECONDS:.0f}s")
    between = {node.agent() for node in nodes}
    put(nodes[0], "upgrade", podAnnotations={"upgraded": "yes"})
    after = {node.agent() for node in nodes}
    assert len(before | between | after) == 6
    time.sleep(max(0.0, began + 71 - time.monotonic()))
    told = [load.enough() for load in loads]
    assert [failure for each in told for failure in each["failures"]] == []
    assert sum(each["answers"]["200"] for each in told) >= 14_000
    assert nodes[0].leaked(NONCE) == 0
