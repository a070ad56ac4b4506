from __future__ import annotations

from tests.cli.binding import Run, add, attached, binding, identity, record
from tests.cli.scripted import CLIENT, IDENTITY, ScriptedArm, answer
from tests.cli.world import World


def test_delete_takes_back_what_add_gave(
    world: World, arm: ScriptedArm, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, ns).code == 0
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.err) == (0, "")
    role = f"rbac.authorization.k8s.io/podidentity-use-{CLIENT}"
    # The role goes with its last binding; other tests may still have one.
    assert ran.out.replace(f"clusterrole.{role} deleted\n", "").splitlines() == [
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
    assert "/theirs still names it and has no effect" in ran.err
    assert binding(world, ns, "theirs") is not None
    assert attached(arm)
