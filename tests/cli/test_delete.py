from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from podidentity.cli import delete as delete_command
from podidentity.cli.azure_access import ATTACHED_TO
from podidentity.cli.objects import find
from podidentity.cli.output import CommandError
from podidentity.cli.use_roles import Roles
from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.resources import ResourceId
from podidentity.wire import rbac
from podidentity.wire.arm import ArmError
from podidentity.wire.kube import AZURE_IDENTITIES
from tests.cli.azure import Identity, attached
from tests.cli.binding import Run, add, binding, identity, record
from tests.cli.ids import IDENTITY
from tests.cli.world import CUSTOM, World
from tests.fakes import CLIENT, FakeKubeApi


def test_delete_takes_back_what_add_gave(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    before = attached(world)
    assert add(podidentity, orders.id, ns).code == 0
    assert attached(world) == before | {orders.id.lower()}
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.err) == (0, "")
    role = f"rbac.authorization.k8s.io/podidentity-use-{orders.client_id}"
    assert ran.out.splitlines() == [
        "azureidentitybinding.aadpodidentity.k8s.io/orders-binding deleted",
        f"detaching from scale set {world.plan.scale_set}",
        f"detached from scale set {world.plan.scale_set}",
        f"clusterrolebinding.{role}:{ns} deleted",
        f"clusterrole.{role} deleted",
        "azureidentity.aadpodidentity.k8s.io/orders deleted",
    ]
    assert identity(world, ns) is None
    assert binding(world, ns) is None
    assert attached(world) == before


def test_deleting_what_is_not_there_is_no_failure(ns: str, podidentity: Run) -> None:
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.out) == (0, "azureidentity.aadpodidentity.k8s.io/orders not found\n")


def test_a_binding_of_that_name_to_another_identity_is_kept(
    world: World, ns: str, podidentity: Run
) -> None:
    world.custom(ns, "azureidentities", "orders", {"clientID": CLIENT})
    spec = {"azureIdentity": "mail", "selector": "s"}
    world.custom(ns, "azureidentitybindings", "orders-binding", spec)
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "azureidentitybinding.aadpodidentity.k8s.io/orders-binding kept: it names another "
        "AzureIdentity",
        "azureidentity.aadpodidentity.k8s.io/orders deleted",
    ]
    assert binding(world, ns) is not None


@pytest.mark.parametrize(
    "spec",
    [{"clientID": CLIENT}, {"type": 0, "clientID": "nonsense"}, {"type": 9}],
    ids=["without an ARM id", "client id", "type"],
)
def test_what_names_no_managed_identity_is_deleted_and_its_record_told(
    world: World, ns: str, podidentity: Run, spec: dict[str, Any]
) -> None:
    for hosts in ((), (world.plan.scale_set_id, f"{world.plan.scale_set_id}-2")):
        world.custom(ns, "azureidentities", "orders", spec)
        write_record(world, ns, *hosts)
        ran = podidentity("delete", "--namespace", ns, "--name", "orders")
        assert (ran.code, ran.out) == (0, "azureidentity.aadpodidentity.k8s.io/orders deleted\n")
        one = world.plan.scale_set
        stays = (
            f"stays attached to scale set {one}, scale set {one}-2: it names no managed identity\n"
        )
        assert ran.err == (stays if hosts else "")


def test_no_service_account_is_looked_for_but_that_of_a_subject_of_its_own(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def looked_for(*_: object) -> None:
        raise AssertionError("its rights are needed for that")

    monkeypatch.setattr(delete_command, "remove_account", looked_for)
    world.custom(ns, "azureidentities", "orders", {"clientID": CLIENT})
    assert podidentity("delete", "--namespace", ns, "--name", "orders").code == 0


def test_an_identity_stays_attached_while_another_needs_it(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns, "first").code == 0
    assert add(podidentity, orders.id, ns, "second").code == 0
    elsewhere = world.plan.scale_set_id.replace(world.plan.node_group, "of-others")
    write_record(world, ns, elsewhere, name="second")
    ran = podidentity("delete", "--namespace", ns, "--name", "first")
    assert f"kept attached: AzureIdentity {ns}/second needs it, too" in ran.out
    assert orders.attached()
    assert record(identity(world, ns, "second")) == sorted([elsewhere, world.plan.scale_set_id])
    assert podidentity("delete", "--namespace", ns, "--name", "second").code == 0
    assert not orders.attached()


def test_the_record_goes_to_whoever_needs_the_identity_still(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns, "first").code == 0
    spec = {"clientID": orders.client_id, "resourceID": orders.id.upper()}
    world.custom(ns, "azureidentities", "by-hand", spec)
    assert podidentity("delete", "--namespace", ns, "--name", "first").code == 0
    assert record(identity(world, ns, "by-hand")) == [world.plan.scale_set_id]
    assert orders.attached()


def test_a_failure_to_detach_keeps_the_record(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    orders.weather("arm=[{effect: denied, kind: PATCH *}]")
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 1
    assert "DenyAssignmentAuthorizationFailed" in ran.err
    assert binding(world, ns) is None
    assert record(identity(world, ns)) == [world.plan.scale_set_id]
    assert orders.attached()
    orders.weather()
    assert podidentity("delete", "--namespace", ns, "--name", "orders").code == 0
    assert not orders.attached()


def test_what_an_add_attached_that_did_not_come_to_its_grant_is_detached(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    role = f"podidentity-use-{orders.client_id}"
    world.delete(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{role}:{ns}")
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.err) == (0, "")
    assert not orders.attached()


def test_who_may_not_see_grants_detaches_nothing_and_is_told_the_right(
    world: World, orders: Identity, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert add(podidentity, orders.id, ns).code == 0

    async def not_permitted(_: object) -> None:
        return None

    monkeypatch.setattr(Roles, "read", not_permitted)
    ran = podidentity("delete", "--namespace", ns, "--name", "orders", "--timeout", "60")
    why = f"whether it was granted is not known: you need {Roles.RIGHT}. To detach it: az vmss "
    assert f"stays attached to scale set {world.plan.scale_set}: {why}" in ran.err
    assert "detaching" not in ran.out
    assert orders.attached()


def test_a_machine_that_is_gone_needs_no_detaching(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    write_record(world, ns, world.plan.scale_set_id, f"{world.plan.scale_set_id}-of-old")
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 0
    assert f"scale set {world.plan.scale_set}-of-old is gone" in ran.out
    assert f"detached from scale set {world.plan.scale_set}\n" in ran.out
    assert identity(world, ns) is None
    assert not orders.attached()


def test_bindings_of_others_are_left_and_named(
    world: World, ns: str, orders: Identity, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    spec = {"azureIdentity": "orders", "selector": "s"}
    world.custom(ns, "azureidentitybindings", "theirs", spec)
    ran = podidentity("delete", "--namespace", ns, "--name", "orders", "--keep-attached")
    assert ran.code == 0
    assert "/theirs still names it and has no effect" in ran.err
    assert binding(world, ns, "theirs") is not None
    assert orders.attached()


def write_record(world: World, ns: str, *hosts: str, name: str = "orders") -> None:
    """Write the record that `add` would write, as whoever may change an AzureIdentity can."""
    annotations = {"metadata": {"annotations": {ATTACHED_TO: json.dumps(hosts)}}}
    world.send("PATCH", f"{CUSTOM}/namespaces/{ns}/azureidentities/{name}", annotations)


def written_by_its_owner(world: World, ns: str, resource_id: str) -> None:
    """Write an AzureIdentity and its record as a tenant may."""
    world.custom(ns, "azureidentities", "orders", {"clientID": CLIENT, "resourceID": resource_id})
    write_record(world, ns, world.plan.scale_set_id)


def test_a_record_that_a_tenant_wrote_detaches_no_identity_that_was_not_granted_to_him(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    """Such as that of the kubelets, with the Azure rights of whoever deletes."""
    orders.attach()
    written_by_its_owner(world, ns, orders.id)
    assert podidentity("grant", "--namespace", ns, "--identity", CLIENT).code == 0
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 0, ran.err
    assert f"namespace {ns} was not granted {orders.client_id}" in ran.err
    assert f"az vmss identity remove --resource-group {world.plan.node_group}" in ran.err
    assert identity(world, ns) is None
    assert orders.attached()


def test_a_record_that_a_tenant_wrote_changes_no_machine_of_another_group(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    elsewhere = world.plan.scale_set_id.replace(world.plan.node_group, "of-others")
    assert add(podidentity, orders.id, ns).code == 0
    write_record(world, ns, elsewhere)
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 0, ran.err
    assert "no node of this cluster is in its resource group" in ran.err
    assert "detaching" not in ran.out


def test_of_an_identity_that_a_machine_has_no_more_nobody_is_told_that_it_stays(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    written_by_its_owner(world, ns, orders.id)
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.err) == (0, "")
    assert identity(world, ns) is None


class Machine:
    """What Azure says of a machine; nothing can be detached from it."""

    def __init__(self, found: HostIdentities | ArmError) -> None:
        self._found = found

    async def host(self, host: Host) -> HostIdentities:
        del host
        if isinstance(self._found, ArmError):
            raise self._found
        return self._found


def detach_from(machine: Any, roles: Roles) -> None:
    """Detach an identity as `delete` does, of namespace `shop`."""
    host = Host.parse(
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm"
    )
    asyncio.run(
        delete_command._detach_granted(machine, ResourceId.parse(IDENTITY), "shop", roles, host)
    )


def test_an_identity_whose_client_id_azure_does_not_say_stays_whatever_roles_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = Machine(HostIdentities(user={ResourceId.parse(IDENTITY).folded: IDENTITY}))
    detach_from(machine, Roles([rbac.role("")], []))
    said = "stays attached to virtual machine vm: namespace shop was not granted it, so it may be"
    assert said in capsys.readouterr().err


def test_a_machine_that_azure_does_not_show_is_not_taken_for_one_that_is_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(CommandError, match="Cannot read the identities of virtual machine vm"):
        detach_from(Machine(ArmError("Denied", "not yours", status=403)), Roles([], []))
    detach_from(Machine(ArmError("ResourceNotFound", "gone", status=404)), Roles([], []))
    assert capsys.readouterr().out == "virtual machine vm is gone\n"


def test_an_object_that_is_nested_without_end_is_found_as_any_other() -> None:
    """Else whoever nests his AzureIdentity keeps everybody from deleting it by podidentity."""
    nested = "[" * 9_000 + "]" * 9_000

    class Server(FakeKubeApi):
        async def get(self, path: str) -> bytes:
            assert path.endswith("/namespaces/shop/azureidentities/orders")
            meta = f'{{"name": "orders", "namespace": "shop", "managedFields": {nested}}}'
            return f'{{"metadata": {meta}, "spec": {{"x": {nested}}}}}'.encode()

    server: Any = Server()
    found = asyncio.run(find(server, AZURE_IDENTITIES, "shop", "orders"))
    assert found is not None
    assert found["metadata"]["name"] == "orders"
    assert json.dumps(found)


def test_a_permission_that_is_about_to_be_granted_has_its_role_and_nobody_holds_it() -> None:
    role, of_another = rbac.role(CLIENT), rbac.Grantee("elsewhere", "web")
    held = rbac.binding(CLIENT, of_another, rbac.Giver.GRANT)
    assert Roles([role], []).prepared(CLIENT)
    assert not Roles([role], [held]).prepared(CLIENT)
    assert not Roles([], []).prepared(CLIENT)
