from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from podidentity.cli.chain import LinkState
from podidentity.cli.pod_facts import SILENT, said_ready
from podidentity.core.resources import BINDING_LABEL
from tests.cli.azure import Identity
from tests.cli.binding import Run, add
from tests.cli.world import World


def nmi(world: World, node: int, name: str, *, ready: str) -> None:
    labels = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "nmi"}
    path = f"/api/v1/namespaces/kube-system/pods/{name}"
    if world.get(path) is None:
        world.pod("kube-system", name, labels, node=node)
    status = {"conditions": [{"type": "Ready", "status": ready}]}
    world.send("PATCH", f"{path}/status", {"status": status})


def test_explain_follows_the_chain_of_a_pod(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    nmi(world, 1, "nmi-by-hand", ready="False")
    ran = podidentity("explain", "pod", f"{ns}/a")
    assert ran.code == 1
    assert "nmi-by-hand on node" in ran.out
    assert "is not ready: not Ready" in ran.out
    nmi(world, 1, "nmi-by-hand", ready="True")
    ran = podidentity("explain", "pod", f"{ns}/a")
    assert ran.code == 0
    assert f"attached to scale set {world.plan.scale_set} by podidentity add" in ran.out
    assert "The pod may use: orders." in ran.out
    data = json.loads(podidentity("explain", "pod", f"{ns}/a", "-o", "json").out)
    assert data["entitled"] is True
    assert [link["link"] for link in data["chain"]] == [
        "pod",
        "binding",
        "identity",
        "permission",
        "machine",
        "nmi",
    ]
    world.send("DELETE", "/api/v1/namespaces/kube-system/pods/nmi-by-hand", gracePeriodSeconds="0")


def test_explain_asks_azure_when_told_to(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns, "orders", "--no-attach").code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    ran = podidentity("explain", "pod", f"{ns}/a")
    assert f"not known for scale set {world.plan.scale_set}; --azure asks Azure" in ran.out
    ran = podidentity("explain", "pod", f"{ns}/a", "--azure")
    assert ran.code == 1
    assert f"not attached to scale set {world.plan.scale_set}, according to Azure" in ran.out
    orders.attach()
    ran = podidentity("explain", "pod", f"{ns}/a", "--azure")
    assert f"attached to scale set {world.plan.scale_set}, according to Azure" in ran.out


def test_explain_says_that_the_binding_is_in_another_namespace(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    selector = f"only-{ns}"
    assert add(podidentity, orders.id, ns, "orders", "--binding-selector", selector).code == 0
    elsewhere = world.namespace(f"{ns}-elsewhere")
    world.pod(elsewhere, "a", {BINDING_LABEL: selector})
    ran = podidentity("explain", "pod", f"{elsewhere}/a")
    assert ran.code == 1
    assert "must be in the same namespace" in ran.out
    assert "No token (OtherNamespace)." in ran.out


def test_explaining_a_pod_that_is_not_there_fails(ns: str, podidentity: Run) -> None:
    ran = podidentity("explain", "pod", f"{ns}/nobody")
    assert ran.code == 1
    assert f"error: There is no pod {ns}/nobody. kubectl get pods" in ran.err


LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@pytest.mark.parametrize(
    ("silence", "state", "says"),
    [
        (-30.0, LinkState.HOLDS, "nmi is ready"),
        (SILENT - 0.1, LinkState.HOLDS, "nmi is ready"),
        (SILENT, LinkState.UNKNOWN, "silent for 20 s by this machine's clock; podidentity check"),
        ("", LinkState.HOLDS, "nmi is ready"),
        ("how long ago is not known", LinkState.HOLDS, "said last (how long ago is not known)"),
    ],
)
def test_that_nmi_is_ready_is_known_as_long_as_its_kubelet_says_so(
    silence: float | str, state: LinkState, says: str
) -> None:
    found = said_ready("nmi is ready", silence)
    assert (found.state, found.text.endswith(says) or says in found.text) == (state, True)


def test_explain_does_not_say_that_nmi_is_ready_where_its_node_has_been_silent(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    """The control plane takes 50 s to say so; `check --pod` gets no answer meanwhile."""
    assert add(podidentity, orders.id, ns).code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    nmi(world, 1, "nmi-by-hand", ready="True")
    node, states = world.plan.nodes[1].name, []
    for ago in (30.0, 0.0):
        renewed = (datetime.now(UTC) - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        world.send("POST", LEASES, {"metadata": {"name": node}, "spec": {"renewTime": renewed}})
        ran = podidentity("explain", "pod", f"{ns}/a", "-o", "json")
        chain = {each["link"]: each for each in json.loads(ran.out)["chain"]}
        states.append((ran.code, chain["nmi"]["state"], "silent for" in chain["nmi"]["text"]))
        world.send("DELETE", f"{LEASES}/{node}")
    world.send("DELETE", "/api/v1/namespaces/kube-system/pods/nmi-by-hand", gracePeriodSeconds="0")
    assert states == [(0, "?", True), (0, "ok", False)]
