"""Nodes may be instances of scale sets, machines of Flexible ones, or machines alone; anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.plan import Plan, Pool, PoolKind
from podidentity_sandbox.world.blueprint import Shape, draw_plan
from tests.sandbox.azure.direct import ASK, TOKEN, Direct, ask

UNIFORM, FLEXIBLE, ALONE = range(3)
"""Indices of the nodes."""
POOLS = (
    Pool(kind=PoolKind.UNIFORM, nodes=1),
    Pool(kind=PoolKind.FLEXIBLE, nodes=1, group="Flexible-Group"),
    Pool(kind=PoolKind.MACHINES, nodes=1, group="machines", subscription="other"),
)


def drawn(folder: Path) -> Plan:
    return draw_plan("test", folder, Shape(rootless=True, pools=POOLS))


@pytest.fixture
def mixed(folder: Path) -> Direct:
    return Direct(folder, plan=drawn(folder))


def machine(direct: Direct, node: int) -> str:
    return direct.plan.nodes[node].provider_id.removeprefix("azure://")


def with_identity(direct: Direct, name: str) -> dict[str, Any]:
    mine = direct.identity(name)
    return {"identity": {"type": "UserAssigned", "userAssignedIdentities": {mine.id: {}}}}


def test_a_provider_id_has_the_form_of_its_kind_and_its_group_in_lower_case(folder: Path) -> None:
    plan = drawn(folder)
    uniform, flexible, alone = (node.provider_id for node in plan.nodes)
    first, other = plan.subscriptions
    assert uniform == f"azure://{plan.scale_set_id}/virtualMachines/0"
    compute = "providers/Microsoft.Compute/virtualMachines"
    prefix = f"azure:///subscriptions/{first}/resourceGroups/flexible-group/{compute}/"
    assert flexible.startswith(f"{prefix}aks-nodepool2-12345678-vmss_")
    prefix = f"azure:///subscriptions/{other}/resourceGroups/machines/{compute}/"
    assert alone == f"{prefix}aks-nodepool3-12345678-vmss000000"


def test_each_kind_says_what_it_is(mixed: Direct) -> None:
    of_set, _, _ = machine(mixed, UNIFORM).rpartition("/virtualMachines/")
    assert mixed.made("GET", of_set)["properties"]["orchestrationMode"] == "Uniform"
    flexible = mixed.made("GET", machine(mixed, FLEXIBLE))
    scale_set = flexible["properties"]["virtualMachineScaleSet"]["id"]
    assert "/resourceGroups/Flexible-Group/" in scale_set
    assert mixed.made("GET", scale_set)["properties"]["orchestrationMode"] == "Flexible"
    alone = mixed.made("GET", machine(mixed, ALONE))
    assert "virtualMachineScaleSet" not in alone["properties"]
    assert (alone["type"], alone["properties"]["provisioningState"]) == (
        "Microsoft.Compute/virtualMachines",
        "Succeeded",
    )


def test_machines_are_listed_by_group_and_by_subscription(mixed: Direct) -> None:
    kind = "providers/Microsoft.Compute/virtualMachines"
    other = f"/subscriptions/{mixed.plan.subscriptions[1]}"

    def names(where: str) -> list[str]:
        return [one["id"] for one in mixed.made("GET", f"{where}/{kind}")["value"]]

    home = mixed.world.subscription
    assert names(f"{home}/resourceGroups/FLEXIBLE-group") == [machine(mixed, FLEXIBLE)]
    assert names(f"{home}/resourceGroups/{mixed.plan.node_group}") == []
    assert names(home) == [machine(mixed, FLEXIBLE)]
    assert names(other) == [machine(mixed, ALONE)]


async def test_identities_come_to_each_kind_of_machine_and_to_no_other(mixed: Direct) -> None:
    mixed.weather("scale-sets=0")
    uniform, _, _ = machine(mixed, UNIFORM).rpartition("/virtualMachines/")
    for where, name in (
        (uniform, "one"),
        (machine(mixed, FLEXIBLE), "two"),
        (machine(mixed, ALONE), "three"),
    ):
        mixed.made("PATCH", where, with_identity(mixed, name))
    for node, name in zip(mixed.plan.nodes, ("one", "two", "three"), strict=True):
        for other in {"one", "two", "three"}:
            client = mixed.identity(other).client_id
            target = f"{TOKEN}?{ASK}&client_id={client}"
            reply, _ = await ask(mixed, target, source=node.address)
            assert (reply.status == 200) == (other == name)


async def test_a_change_of_a_flexible_scale_set_reaches_none_of_its_machines(
    mixed: Direct,
) -> None:
    mixed.weather("scale-sets=0")
    body = with_identity(mixed, "late")
    mixed.made("PATCH", mixed.plan.nodes[FLEXIBLE].scale_set, body)
    client = mixed.identity("late").client_id
    source = {"source": mixed.plan.nodes[FLEXIBLE].address}
    reply, _ = await ask(mixed, f"{TOKEN}?{ASK}&client_id={client}", **source)
    assert reply.status == 400


async def test_imds_knows_the_machine_that_asks(mixed: Direct) -> None:
    found = []
    for node in mixed.plan.nodes:
        target = "/metadata/instance?api-version=2021-02-01"
        _, body = await ask(mixed, target, source=node.address)
        compute = body["compute"]
        assert compute["resourceId"] == node.provider_id.removeprefix("azure://")
        found.append((compute["name"], compute["vmScaleSetName"], compute["resourceGroupName"]))
    scale_sets = [f"aks-nodepool{number}-12345678-vmss" for number in (1, 2)]
    assert found[UNIFORM] == (f"{scale_sets[0]}_0", scale_sets[0], mixed.plan.node_group)
    assert found[FLEXIBLE][1:] == (scale_sets[1], "flexible-group")
    assert found[ALONE] == ("aks-nodepool3-12345678-vmss000000", "", "machines")


def test_the_subscriptions_are_listed_for_whom_has_a_role_in_them(mixed: Direct) -> None:
    listed = [one["subscriptionId"] for one in mixed.made("GET", "/subscriptions")["value"]]
    assert listed == list(mixed.plan.subscriptions)
    someone = mixed.identity("someone")
    mixed.grant("Reader", someone.principal_id, f"/subscriptions/{listed[1]}")
    who = mixed.principal_of(someone)
    _, answer, _ = mixed.arm("GET", "/subscriptions", principal=who)
    assert [one["subscriptionId"] for one in answer["value"]] == listed[1:]
    assert mixed.arm("GET", machine(mixed, ALONE), principal=who)[0] == 200
    assert mixed.arm("GET", machine(mixed, FLEXIBLE), principal=who)[0] == 403


def test_things_are_made_in_the_subscription_of_the_request(mixed: Direct) -> None:
    other = f"/subscriptions/{mixed.plan.subscriptions[1]}"
    mixed.made("PUT", f"{other}/resourceGroups/shop", {"location": "westeurope"})
    kind = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
    made = mixed.made("PUT", f"{other}/resourceGroups/shop/{kind}/till", {"location": "westeurope"})
    assert made["id"].startswith(f"{other}/resourcegroups/shop/")
    assert mixed.arm("GET", "resourceGroups/shop")[0] == 404
