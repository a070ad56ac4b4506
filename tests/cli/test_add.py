from __future__ import annotations

import pytest

from podidentity.cli import azure_access
from podidentity.core.resources import BINDING_LABEL
from tests.cli.binding import Run, add, attached, binding, identity, record
from tests.cli.scripted import CLIENT, IDENTITY, ScriptedArm, answer, pass_on
from tests.cli.world import World


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
