from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from podidentity.cli import azure_access
from podidentity.cli.record import ANNOTATION
from podidentity.core.resources import BINDING_LABEL
from tests.cli.conftest import Ran
from tests.cli.scripted import CLIENT, IDENTITY, ScriptedArm, answer, pass_on
from tests.cli.world import CUSTOM, World

Run = Callable[..., Ran]


@pytest.fixture
def ns(world: World) -> Iterator[str]:
    name = world.namespace(f"n-{uuid.uuid4().hex[:8]}")
    yield name
    for plural in ("azureidentities", "azureidentitybindings"):
        world.send("DELETE", f"{CUSTOM}/namespaces/{name}/{plural}")


@pytest.fixture
def arm(world: World, monkeypatch: pytest.MonkeyPatch) -> ScriptedArm:
    """Azure as we script it, where the sandbox's own would not fail as wanted."""
    scripted = ScriptedArm(world.plan.scale_set_id)
    monkeypatch.setattr(azure_access, "azure", scripted.client)
    return scripted


def add(run: Run, ns: str, name: str = "orders", *more: str) -> Ran:
    return run("add", "--namespace", ns, "--name", name, "--identity-resource-id", IDENTITY, *more)


def identity(world: World, ns: str, name: str = "orders") -> Any:
    return world.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/{name}")


def binding(world: World, ns: str, name: str = "orders-binding") -> Any:
    return world.get(f"{CUSTOM}/namespaces/{ns}/azureidentitybindings/{name}")


def record(found: Any) -> Any:
    return json.loads(found["metadata"].get("annotations", {}).get(ANNOTATION, "[]"))


def attached(arm: ScriptedArm) -> bool:
    (ids,) = arm.blocks.values()
    return IDENTITY.lower() in {each.lower() for each in ids}


# ------------------------------------------------------------------ add


def test_add_makes_identity_and_binding_and_attaches(
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    ran = add(podidentity, ns)
    assert (ran.code, ran.err) == (0, "")
    role = f"rbac.authorization.k8s.io/podidentity-use-{CLIENT}"
    assert ran.out.replace(f"{role} unchanged", f"{role} created").splitlines() == [
        f"identity orders has the client id {CLIENT}",
        f"clusterrole.{role} created",
        f"clusterrolebinding.{role}:{ns} created",
        "azureidentity.aadpodidentity.k8s.io/orders created",
        f"attaching to scale set {world.plan.scale_set}",
        f"attached to scale set {world.plan.scale_set}",
        "azureidentitybinding.aadpodidentity.k8s.io/orders-binding created",
        f"Pods of namespace {ns} labelled {BINDING_LABEL}=orders may use it.",
    ]
    found = identity(world, ns)
    assert found["spec"] == {
        "type": 0,
        "resourceID": IDENTITY,
        "clientID": CLIENT,
        "objectID": "22222222-2222-2222-2222-222222222222",
    }
    assert record(found) == [world.plan.scale_set_id]
    assert binding(world, ns)["spec"] == {"azureIdentity": "orders", "selector": "orders"}
    assert attached(arm)


@pytest.mark.usefixtures("arm")
def test_add_may_be_repeated(ns: str, podidentity: Run) -> None:
    assert add(podidentity, ns).code == 0
    ran = add(podidentity, ns)
    assert ran.code == 0
    assert "azureidentity.aadpodidentity.k8s.io/orders unchanged" in ran.out
    assert "already" in ran.out
    assert "azureidentitybinding.aadpodidentity.k8s.io/orders-binding unchanged" in ran.out
    ran = add(podidentity, ns, "orders", "--binding-selector", "other")
    assert "azureidentitybinding.aadpodidentity.k8s.io/orders-binding configured" in ran.out


def test_with_client_id_and_no_attach_it_asks_nothing_of_azure(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_access, "azure", None)
    ran = add(podidentity, ns, "orders", "--client-id", CLIENT.upper(), "--no-attach")
    assert (ran.code, ran.err) == (0, "")
    assert identity(world, ns)["spec"]["clientID"] == CLIENT
    assert record(identity(world, ns)) == []
    assert binding(world, ns)["spec"]["selector"] == "orders"


def test_what_others_attached_is_not_recorded_as_ours(
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    arm.blocks[world.plan.scale_set_id.lower()].add(IDENTITY)
    assert add(podidentity, ns).code == 0
    assert record(identity(world, ns)) == []
    assert podidentity("delete", "--namespace", ns, "--name", "orders").code == 0
    assert attached(arm)


def test_a_run_that_fails_half_way_entitles_nobody_and_can_be_repeated(
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    no = answer(403, {"error": {"code": "AuthorizationFailed", "message": "no"}})
    arm.script = [pass_on, pass_on, pass_on, no]
    ran = add(podidentity, ns)
    assert ran.code == 1
    assert "error: Cannot attach orders to scale set" in ran.err
    assert binding(world, ns) is None
    assert record(identity(world, ns)) == [world.plan.scale_set_id]
    assert add(podidentity, ns).code == 0
    assert attached(arm)
    assert binding(world, ns) is not None
    assert record(identity(world, ns)) == [world.plan.scale_set_id]


def test_an_unknown_identity_is_said_to_be_unknown(
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    arm.script = [answer(404, {"error": {"code": "ResourceNotFound", "message": "not there"}})]
    ran = add(podidentity, ns)
    assert ran.code == 1
    assert ran.err == (
        "error: Cannot look up the identity orders. Azure says ResourceNotFound: not there. "
        f"Check the id: az identity show --ids {IDENTITY}\n"
    )
    assert identity(world, ns) is None


@pytest.mark.usefixtures("arm")
def test_a_client_id_that_is_not_the_identitys_is_refused(
    world: World, ns: str, podidentity: Run
) -> None:
    ran = add(podidentity, ns, "orders", "--client-id", CLIENT.replace("1", "3"))
    assert ran.code == 1
    assert f"has the client id {CLIENT}" in ran.err
    assert identity(world, ns) is None


@pytest.mark.usefixtures("arm")
def test_a_name_that_stands_for_another_identity_is_not_taken_over(
    world: World, ns: str, podidentity: Run
) -> None:
    spec = {"clientID": CLIENT, "resourceID": f"{IDENTITY}2"}
    world.custom(ns, "azureidentities", "orders", spec)
    ran = add(podidentity, ns)
    assert ran.code == 1
    assert "exists and names another identity" in ran.err
    assert identity(world, ns)["spec"] == spec
    world.custom(ns, "azureidentitybindings", "other-binding", {"azureIdentity": "mine"})
    ran = add(podidentity, ns, "other")
    assert ran.code == 1
    assert "names AzureIdentity 'mine'" in ran.err
    assert identity(world, ns, "other") is None


@pytest.mark.usefixtures("arm")
def test_a_namespace_that_is_not_there_is_named(podidentity: Run) -> None:
    ran = add(podidentity, "nowhere", "orders", "--client-id", CLIENT, "--no-attach")
    assert ran.code == 1
    assert 'namespaces "nowhere" not found' in ran.err
    assert "Create the namespace first." in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--identity-resource-id", "/x", "--namespace", "a", "--name", "b"],
        ["--identity-resource-id", IDENTITY, "--namespace", "A", "--name", "b"],
        ["--identity-resource-id", IDENTITY, "--namespace", "a", "--name", "b" * 64],
        ["--identity-resource-id", IDENTITY, "--namespace", "a"],
        ["--identity-resource-id", IDENTITY, "--namespace", "a", "--name", "b", "--client-id=x"],
    ],
)
def test_wrong_values_are_wrong_usage(arguments: list[str], podidentity: Run) -> None:
    assert podidentity("add", *arguments).code == 2


# ------------------------------------------------------------------ delete


def test_delete_takes_back_what_add_gave(
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, ns).code == 0
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.err) == (0, "")
    role = f"rbac.authorization.k8s.io/podidentity-use-{CLIENT}"
    assert ran.out.removesuffix(f"clusterrole.{role} deleted\n").splitlines() == [
        "azureidentitybinding.aadpodidentity.k8s.io/orders-binding deleted",
        f"clusterrolebinding.{role}:{ns} deleted",
        f"detaching from scale set {world.plan.scale_set}",
        f"detached from scale set {world.plan.scale_set}",
        "azureidentity.aadpodidentity.k8s.io/orders deleted",
    ]
    assert identity(world, ns) is None
    assert binding(world, ns) is None
    assert not attached(arm)
    assert len(*arm.blocks.values()) == 1


def test_deleting_what_is_not_there_is_no_failure(ns: str, podidentity: Run) -> None:
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.out) == (0, "azureidentity.aadpodidentity.k8s.io/orders not found\n")


def test_an_identity_stays_attached_while_another_needs_it(
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, ns, "first").code == 0
    assert add(podidentity, ns, "second").code == 0
    ran = podidentity("delete", "--namespace", ns, "--name", "first")
    assert f"kept attached: AzureIdentity {ns}/second needs it, too" in ran.out
    assert attached(arm)
    assert record(identity(world, ns, "second")) == [world.plan.scale_set_id]
    assert podidentity("delete", "--namespace", ns, "--name", "second").code == 0
    assert not attached(arm)


def test_the_record_goes_to_whoever_needs_the_identity_still(
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, ns, "first").code == 0
    world.custom(
        ns, "azureidentities", "by-hand", {"clientID": CLIENT, "resourceID": IDENTITY.upper()}
    )
    assert podidentity("delete", "--namespace", ns, "--name", "first").code == 0
    assert record(identity(world, ns, "by-hand")) == [world.plan.scale_set_id]
    assert attached(arm)


def test_a_failure_to_detach_keeps_the_record(
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, ns).code == 0
    arm.script = [answer(403, {"error": {"code": "AuthorizationFailed", "message": "no"}})]
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 1
    assert binding(world, ns) is None
    assert record(identity(world, ns)) == [world.plan.scale_set_id]
    assert podidentity("delete", "--namespace", ns, "--name", "orders").code == 0
    assert not attached(arm)


def test_a_machine_that_is_gone_needs_no_detaching(
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, ns).code == 0
    arm.blocks.clear()
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 0
    assert f"scale set {world.plan.scale_set} is gone" in ran.out
    assert identity(world, ns) is None


def test_bindings_of_others_are_left_and_named(
    world: World, ns: str, arm: ScriptedArm, podidentity: Run
) -> None:
    assert add(podidentity, ns).code == 0
    spec = {"azureIdentity": "orders", "selector": "s"}
    world.custom(ns, "azureidentitybindings", "theirs", spec)
    ran = podidentity("delete", "--namespace", ns, "--name", "orders", "--keep-attached")
    assert ran.code == 0
    assert "/theirs still names it and entitles nobody" in ran.err
    assert binding(world, ns, "theirs") is not None
    assert attached(arm)


# ------------------------------------------------------------------ list


@pytest.mark.usefixtures("arm")
def test_list_shows_identities_with_who_may_use_them(
    world: World, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, ns).code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"})
    world.pod(ns, "b", {BINDING_LABEL: "orders"})
    world.pod(ns, "stranger")
    world.custom(ns, "azureidentities", "broken", {"clientID": "x"})
    world.custom(ns, "azureidentities", "free", {"clientID": CLIENT})
    world.custom(ns, "azureidentitybindings", "dangling", {"azureIdentity": "no", "selector": "s"})
    world.custom(ns, "azureidentitybindings", "empty", {"azureIdentity": "free", "selector": ""})
    ran = podidentity("list", "--namespace", ns)
    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == [
        "NAMESPACE",
        "NAME",
        "CLIENT",
        "ID",
        "SELECTOR",
        "PODS",
        "PERMITTED",
        "STATE",
    ]
    assert lines[1][:6] == [ns, "broken", "-", "-", "0", "?"]
    assert lines[2] == [ns, "free", CLIENT, "-", "0", "all", "no", "binding"]
    assert lines[3] == [ns, "orders", CLIENT, "orders", "2", "all", "bound"]
    assert f"AzureIdentityBinding {ns}/empty cannot be used: spec.selector is empty." in ran.out
    assert f"AzureIdentityBinding {ns}/dangling names AzureIdentity 'no'" in ran.out
    data = json.loads(podidentity("list", "--namespace", ns, "-o", "json").out)
    (orders,) = [each for each in data["identities"] if each["name"] == "orders"]
    assert orders == {
        "namespace": ns,
        "name": "orders",
        "type": 0,
        "resourceID": IDENTITY,
        "clientID": CLIENT,
        "objectID": "22222222-2222-2222-2222-222222222222",
        "selectors": ["orders"],
        "pods": ["a", "b"],
        "permitted": ["*"],
        "usable": True,
        "state": "bound",
    }
    assert len(data["problems"]) == 2


def test_an_empty_list_is_a_sentence(ns: str, podidentity: Run) -> None:
    ran = podidentity("list", "--namespace", ns)
    assert (ran.code, ran.out) == (0, f"There is no AzureIdentity in namespace {ns}.\n")
    data = json.loads(podidentity("list", "--namespace", ns, "-o", "json").out)
    assert data == {"identities": [], "problems": []}


# ------------------------------------------------------------------ explain


def nmi(world: World, node: int, name: str, *, ready: str) -> None:
    labels = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "nmi"}
    path = f"/api/v1/namespaces/kube-system/pods/{name}"
    if world.get(path) is None:
        world.pod("kube-system", name, labels, node=node)
    status = {"conditions": [{"type": "Ready", "status": ready}]}
    world.send("PATCH", f"{path}/status", {"status": status})


@pytest.mark.usefixtures("arm")
def test_explain_follows_the_chain_of_a_pod(world: World, ns: str, podidentity: Run) -> None:
    assert add(podidentity, ns).code == 0
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
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, ns, "orders", "--no-attach").code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    ran = podidentity("explain", "pod", f"{ns}/a")
    assert f"whether scale set {world.plan.scale_set} has it, --azure asks" in ran.out
    ran = podidentity("explain", "pod", f"{ns}/a", "--azure")
    assert ran.code == 1
    assert f"not attached to scale set {world.plan.scale_set}, as Azure says" in ran.out
    arm.blocks[world.plan.scale_set_id.lower()].add(IDENTITY.upper())
    ran = podidentity("explain", "pod", f"{ns}/a", "--azure")
    assert f"attached to scale set {world.plan.scale_set}, as Azure says" in ran.out


@pytest.mark.usefixtures("arm")
def test_explain_says_that_the_binding_is_in_another_namespace(
    world: World, ns: str, podidentity: Run
) -> None:
    selector = f"only-{ns}"
    assert add(podidentity, ns, "orders", "--binding-selector", selector).code == 0
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


# ------------------------------------------------------------------ the cluster


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["explain", "pod", "default/x"], ["enable"], ["disable"]],
    ids=lambda value: value[0],
)
def test_an_api_server_that_is_away_is_named(
    arguments: list[str], podidentity: Run, tmp_path: Any
) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: c}}],"
        " clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]}"
    )
    ran = podidentity(*arguments, "--kubeconfig", str(kubeconfig))
    assert ran.code == 1
    assert "https://127.0.0.1:1 cannot be asked" in ran.err
    assert "Check --kubeconfig and --context." in ran.err


def test_a_kubeconfig_that_is_missing_is_named(podidentity: Run) -> None:
    ran = podidentity("list", "--kubeconfig", "/no/such/file")
    assert ran.code == 1
    assert "/no/such/file" in ran.err


def test_an_unknown_context_is_named(world: World, podidentity: Run) -> None:
    ran = podidentity("list", "--kubeconfig", str(world.plan.kubeconfig), "--context", "moon")
    assert ran.code == 1
    assert "moon" in ran.err
