from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from podidentity.adapters.arm import Arm
from podidentity.cli import delete as delete_command
from podidentity.cli.azure_access import ATTACHED_TO
from podidentity.cli.cluster_rights import Places, singles
from podidentity.cli.detachment import AT_ONCE, Recorded, fate_of
from podidentity.cli.needed_rights import COMMANDS
from podidentity.cli.objects import find
from podidentity.cli.use_roles import Roles
from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.resources import ObjectRef, ResourceId
from podidentity.wire import rbac
from podidentity.wire.arm import ArmError
from podidentity.wire.kube import AZURE_IDENTITIES
from podidentity_sandbox.world.blueprint import write_kubeconfig
from tests.cli.azure import Identity, attached, operator
from tests.cli.binding import Run, add, binding, identity, record
from tests.cli.conftest import Ran
from tests.cli.ids import IDENTITY
from tests.cli.operators import holding
from tests.cli.world import CUSTOM, World
from tests.fakes import CLIENT, FakeKubeApi

PERSON = "8c0ffee0-0000-4000-8000-000000000002"
CLUSTER_ROLES = "clusterroles.rbac.authorization.k8s.io"


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


def test_no_service_account_is_looked_for_but_that_of_a_subject_of_its_own(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def looked_for(*_: object) -> None:
        raise AssertionError("its rights are needed for that")

    monkeypatch.setattr(delete_command, "remove_account", looked_for)
    world.custom(ns, "azureidentities", "orders", {"clientID": CLIENT})
    assert podidentity("delete", "--namespace", ns, "--name", "orders").code == 0


def test_what_an_add_attached_that_did_not_come_to_its_grant_is_detached(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    role = f"podidentity-use-{orders.client_id}"
    world.delete(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{role}:{ns}")
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.err) == (0, "")
    assert not orders.attached()


def test_an_identity_stays_attached_while_another_needs_it(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns, "first").code == 0
    assert add(podidentity, orders.id, ns, "second").code == 0
    elsewhere = world.plan.scale_set_id.replace(world.plan.node_group, "of-others")
    recorded(world, ns, "second", [elsewhere])
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


def test_a_machine_that_is_gone_needs_no_detaching(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    hosts = [world.plan.scale_set_id, f"{world.plan.scale_set_id}-of-old"]
    annotations = {"metadata": {"annotations": {ATTACHED_TO: json.dumps(hosts)}}}
    world.send("PATCH", f"{CUSTOM}/namespaces/{ns}/azureidentities/orders", annotations)
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


# What stays attached is not forgotten


def stays(ran: Ran, world: World, ns: str, identity_id: str) -> bool:
    """Whether a `delete` ended before the record went, and said what stays, where, and the ways."""
    where = f"--resource-group {world.plan.node_group} --name {world.plan.scale_set}"
    subscription = f"--subscription {world.plan.subscription_id}"
    assert ran.code == 1, (ran.out, ran.err)
    assert f"stays attached to scale set {world.plan.scale_set}: " in ran.err
    assert f"az vmss identity remove {where} {subscription} --identities {identity_id}\n" in ran.err
    assert f"error: AzureIdentity {ns}/orders was kept" in ran.err
    assert "--keep-attached" in ran.err
    assert "azureidentity.aadpodidentity.k8s.io/orders deleted" not in ran.out
    return bool(record(identity(world, ns)) == [world.plan.scale_set_id])


def detach_by_hand(identity_of: Identity) -> None:
    """Run the command that was printed."""
    body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {identity_of.id: None}}}
    path = identity_of.world.plan.scale_set_id
    operator(identity_of.world, lambda azure: azure.arm("PATCH", path, body))


def test_who_may_not_see_what_is_granted_loses_no_record(
    world: World, orders: Identity, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    needs = COMMANDS["delete"].of(["revoke", "detach"]).cluster
    rights = singles(needs, Places(pods=(ns,)))
    left = [each for each in rights if (each.resource, each.verb) != (CLUSTER_ROLES, "list")]
    assert len(left) == len(rights) - 1
    with monkeypatch.context() as shell, holding(world, PERSON, left):
        shell.setenv("KUBECONFIG", str(write_kubeconfig(world.plan, PERSON)))
        ran = podidentity("delete", "--namespace", ns, "--name", "orders")
        assert stays(ran, world, ns, orders.id)
        assert f"you need {Roles.RIGHT}" in ran.err
        assert "podidentity rights delete lists all that the command needs" in ran.err
        assert "clusterrolebinding" not in ran.out, "the permission, too, is as it was"
        kept = podidentity("delete", "--namespace", ns, "--name", "orders", "--keep-attached")
    assert kept.code == 0, kept.err
    assert identity(world, ns) is None
    assert orders.attached()


@pytest.mark.parametrize("revoked", [True, False])
def test_what_was_not_granted_or_not_any_more_stays_recorded_until_somebody_has_detached_it(
    world: World, orders: Identity, ns: str, podidentity: Run, revoked: bool
) -> None:
    where = ("--namespace", ns, "--name", "orders")
    if revoked:
        assert add(podidentity, orders.id, ns).code == 0
        revoke = ("--namespace", ns, "--identity", orders.client_id)
        assert podidentity("revoke", *revoke).code == 0
    else:
        assert add(podidentity, orders.id, ns, "orders", "--no-grant").code == 0
    assert stays(podidentity("delete", *where), world, ns, orders.id)
    assert orders.attached()
    detach_by_hand(orders)
    ran = podidentity("delete", *where)
    assert (ran.code, ran.err) == (0, "")
    assert f"not attached to scale set {world.plan.scale_set} any more" in ran.out
    assert identity(world, ns) is None


def test_a_grant_that_comes_back_lets_it_be_detached(
    orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns, "orders", "--no-grant").code == 0
    assert podidentity("delete", "--namespace", ns, "--name", "orders").code == 1
    grant = ("--namespace", ns, "--identity", orders.client_id)
    assert podidentity("grant", *grant).code == 0
    assert podidentity("delete", "--namespace", ns, "--name", "orders").code == 0
    assert not orders.attached()


@pytest.fixture
def without_nodes(world: World) -> Iterator[None]:
    """No node is there, as where the only pool of a resource group has none for a while."""
    nodes = world.get("/api/v1/nodes")["items"]
    for each in nodes:
        assert world.delete(f"/api/v1/nodes/{each['metadata']['name']}")
    yield
    for each in nodes:
        metadata = {key: each["metadata"][key] for key in ("name", "labels")}
        body = {"metadata": metadata, "spec": {"providerID": each["spec"]["providerID"]}}
        world.send("POST", "/api/v1/nodes", body)


def test_a_machine_of_a_group_that_has_no_node_today_stays_recorded(
    world: World, orders: Identity, ns: str, podidentity: Run, request: pytest.FixtureRequest
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    request.getfixturevalue("without_nodes")
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert stays(ran, world, ns, orders.id)
    assert "no node of this cluster is in its resource group" in ran.err
    detach_by_hand(orders)
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 0, ran.err


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure shows no machine."""

    async def host(_arm: Arm, _host: Host) -> HostIdentities:
        raise ArmError("AuthorizationFailed", "not yours", status=403)

    monkeypatch.setattr(Arm, "host", host)


def test_a_machine_that_azure_does_not_show_is_not_taken_for_one_that_is_gone(
    world: World, orders: Identity, ns: str, podidentity: Run, request: pytest.FixtureRequest
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    request.getfixturevalue("unseen")
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 1
    assert f"Cannot read the identities of scale set {world.plan.scale_set}" in ran.err
    assert record(identity(world, ns)) == [world.plan.scale_set_id]


def test_a_machine_of_others_that_azure_does_not_show_is_taken_to_have_the_identity(
    world: World, orders: Identity, ns: str, podidentity: Run, request: pytest.FixtureRequest
) -> None:
    """So who may not read it learns what stays, and how it is detached."""
    assert add(podidentity, orders.id, ns).code == 0
    request.getfixturevalue("without_nodes")
    request.getfixturevalue("unseen")
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert stays(ran, world, ns, orders.id)
    assert f"namespace {ns} was not granted it, so it may be of others" in ran.err


def test_an_identity_whose_client_id_azure_does_not_say_stays_whatever_roles_there_are() -> None:
    host = Host.parse(
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm"
    )
    ours = Recorded(ObjectRef("shop", "orders"), ResourceId.parse(IDENTITY), (host,))
    fate = fate_of(ours, "", [], Roles([rbac.role("")], []), near=True)
    assert fate.why == "namespace shop was not granted it, so it may be of others"


def test_what_cannot_be_read_can_be_mended_and_so_keeps_its_record(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    path = f"{CUSTOM}/namespaces/{ns}/azureidentities/orders"
    world.send("PATCH", path, {"spec": {"resourceID": f"{orders.id}/more"}})
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 1
    assert f"stays attached to scale set {world.plan.scale_set}" in ran.err
    assert "spec.resourceID must match" in ran.err
    assert "--keep-attached" in ran.err
    world.send("PATCH", path, {"spec": {"resourceID": orders.id}})
    assert podidentity("delete", "--namespace", ns, "--name", "orders").code == 0
    assert not orders.attached()


def test_a_record_beside_no_managed_identity_is_named_and_goes(
    world: World, ns: str, podidentity: Run
) -> None:
    """What was attached is not known from here: no run could ever detach it."""
    spec = {"type": 1, "tenantID": "contoso.com", "clientID": CLIENT}
    secret = {"clientPassword": {"name": "s", "namespace": ns}}
    world.custom(ns, "azureidentities", "orders", {**spec, **secret})
    recorded(world, ns, "orders", [world.plan.scale_set_id])
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 0, ran.err
    said = f"stays attached to scale set {world.plan.scale_set}: it names no managed identity"
    assert said in ran.err
    assert identity(world, ns) is None


# A tenant may write any AzureIdentity, and the record of attached hosts in it


def recorded(world: World, ns: str, name: str, hosts: list[str]) -> None:
    """Write the record of attached hosts into an AzureIdentity, as its owner may."""
    annotations = {"metadata": {"annotations": {ATTACHED_TO: json.dumps(hosts)}}}
    world.send("PATCH", f"{CUSTOM}/namespaces/{ns}/azureidentities/{name}", annotations)


def written_by_its_owner(
    world: World, ns: str, resource_id: str, hosts: list[str], name: str = "orders"
) -> None:
    """Write an AzureIdentity as a tenant may: with the record that `add` would write."""
    world.custom(ns, "azureidentities", name, {"clientID": CLIENT, "resourceID": resource_id})
    recorded(world, ns, name, hosts)


def test_a_record_that_a_tenant_wrote_detaches_no_identity_that_was_not_granted_to_him(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    """Such as that of the kubelets, with the Azure rights of whoever deletes."""
    orders.attach()
    written_by_its_owner(world, ns, orders.id, [world.plan.scale_set_id])
    assert podidentity("grant", "--namespace", ns, "--identity", CLIENT).code == 0
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert stays(ran, world, ns, orders.id)
    assert f"namespace {ns} was not granted {orders.client_id}, so it may be of others" in ran.err
    ran = podidentity("delete", "--namespace", ns, "--name", "orders", "--keep-attached")
    assert ran.code == 0, ran.err
    assert identity(world, ns) is None
    assert orders.attached()


def test_a_record_that_a_tenant_wrote_changes_no_machine_of_another_group(
    orders: Identity, ns: str, podidentity: Run, request: pytest.FixtureRequest
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    request.getfixturevalue("without_nodes")
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 1
    assert "detaching" not in ran.out
    assert orders.attached()


def test_a_record_of_a_thousand_machines_has_few_of_them_asked_for_at_once(
    world: World, orders: Identity, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a tenant has Azure throttle the administrator who deletes his AzureIdentity."""
    assert add(podidentity, orders.id, ns).code == 0
    scale_set = world.plan.scale_set_id
    recorded(world, ns, "orders", [scale_set, *(f"{scale_set}-{n}" for n in range(60))])
    asked, most = 0, 0
    real = Arm.host

    async def host(arm: Arm, wanted: Host) -> Any:
        nonlocal asked, most
        asked += 1
        most = max(most, asked)
        try:
            return await real(arm, wanted)
        finally:
            asked -= 1

    monkeypatch.setattr(Arm, "host", host)
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 0, ran.err
    assert 1 < most <= AT_ONCE
    assert not orders.attached()


@pytest.fixture
def elsewhere(world: World) -> str:
    """The namespace of a neighbour."""
    return world.namespace(f"n-{uuid.uuid4().hex[:8]}")


def test_a_tenant_who_names_anothers_identity_does_not_keep_it_attached(
    world: World, orders: Identity, ns: str, elsewhere: str, podidentity: Run
) -> None:
    """Else it stays attached for ever, and the record of that would be his to alter."""
    assert add(podidentity, orders.id, ns).code == 0
    written_by_its_owner(world, elsewhere, orders.id, [], "mine")
    assert podidentity("grant", "--namespace", elsewhere, "--identity", CLIENT).code == 0
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 0, ran.err
    assert not orders.attached()
    assert record(identity(world, elsewhere, "mine")) == []
    assert f"AzureIdentity {elsewhere}/mine names it, too" in ran.err
    assert "run podidentity add there" in ran.err


def test_a_namespace_that_was_granted_the_same_identity_keeps_it_attached(
    world: World, orders: Identity, ns: str, elsewhere: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    written_by_its_owner(world, elsewhere, orders.id, [], "shared")
    grant = ("--namespace", elsewhere, "--identity", orders.client_id)
    assert podidentity("grant", *grant).code == 0
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.err) == (0, "")
    assert f"kept attached: AzureIdentity {elsewhere}/shared needs it, too" in ran.out
    assert record(identity(world, elsewhere, "shared")) == [world.plan.scale_set_id]
    assert orders.attached()


def test_a_record_that_was_not_granted_is_handed_to_nobody(
    world: World, orders: Identity, ns: str, elsewhere: str, podidentity: Run
) -> None:
    """Else a stranger has an operator's own attachment detached with whoever holds the grant."""
    orders.attach()
    written_by_its_owner(world, elsewhere, orders.id, [], "theirs")
    grant = ("--namespace", elsewhere, "--identity", orders.client_id)
    assert podidentity("grant", *grant).code == 0
    written_by_its_owner(world, ns, orders.id, [world.plan.scale_set_id])
    assert stays(podidentity("delete", "-n", ns, "--name", "orders"), world, ns, orders.id)
    assert record(identity(world, elsewhere, "theirs")) == []


def test_an_add_takes_over_no_record_that_a_stranger_wrote(
    world: World, orders: Identity, ns: str, elsewhere: str, podidentity: Run
) -> None:
    """Else `delete` would detach what an operator had attached by hand."""
    orders.attach()
    written_by_its_owner(world, elsewhere, orders.id, [world.plan.scale_set_id], "mine")
    assert add(podidentity, orders.id, ns).code == 0
    assert record(identity(world, ns)) == []
    assert podidentity("delete", "--namespace", ns, "--name", "orders").code == 0
    assert orders.attached()


def test_a_federated_identity_needs_no_machine(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    spec = {"type": 3, "tenantID": "contoso.com", "clientID": orders.client_id}
    world.custom(ns, "azureidentities", "federated", {**spec, "resourceID": orders.id})
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert ran.code == 0, ran.err
    assert not orders.attached()


def test_an_identity_that_is_going_needs_no_machine(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    """The record would go with it."""
    assert add(podidentity, orders.id, ns).code == 0
    written_by_its_owner(world, ns, orders.id, [], "going")
    path = f"{CUSTOM}/namespaces/{ns}/azureidentities/going"
    world.send("PATCH", path, {"metadata": {"finalizers": ["example.com/stays"]}})
    world.delete(path)
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    world.send("PATCH", path, {"metadata": {"finalizers": None}})
    assert ran.code == 0, ran.err
    assert not orders.attached()


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
