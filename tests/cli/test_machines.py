"""The commands in a cluster whose nodes are machines of every kind, in two subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator

import pytest

from podidentity.manifests import crds
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import Pool, PoolKind
from tests.cli.azure import made_identity, operator
from tests.cli.binding import record
from tests.cli.conftest import Ran
from tests.cli.world import CUSTOM, World, running

Run = Callable[..., Ran]
POOLS = (
    Pool(kind=PoolKind.UNIFORM, nodes=2),
    Pool(kind=PoolKind.FLEXIBLE, nodes=1, group="Flexible-Group"),
    Pool(kind=PoolKind.MACHINES, nodes=1, group="machines", subscription="other"),
)


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("pools"), POOLS, definitions=crds()) as world:
        yield world


@pytest.fixture
def mixed(pools: World, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in pools.environment.items():
        monkeypatch.setenv(name, value)
    pools.put_back()
    return pools


def machines(world: World) -> list[str]:
    """Return the ids that an identity is attached to, of all nodes, each once."""
    ids = (node.provider_id.removeprefix("azure://") for node in world.plan.nodes)
    found = [
        each.rpartition("/virtualMachines/")[0] if "/virtualMachineScaleSets/" in each else each
        for each in ids
    ]
    return list(dict.fromkeys(found))


def attached(world: World, identity: str) -> list[bool]:
    """Return for each of the machines whether it has the identity."""

    async def ask(azure: AzureOperator) -> list[bool]:
        blocks = [(await azure.arm("GET", each))["identity"] for each in machines(world)]
        named = [{key.lower() for key in block["userAssignedIdentities"]} for block in blocks]
        return [identity.lower() in keys for keys in named]

    return operator(world, ask)


def deleting(world: World, machine: str) -> None:
    """Let somebody delete a machine, which takes long."""

    async def under_way(azure: AzureOperator) -> bool:
        found = await azure.arm("GET", machine)
        return bool(found["properties"]["provisioningState"] == "Deleting")

    async def delete(azure: AzureOperator) -> None:
        azure.weather("scale-sets=100000")
        waiting = asyncio.create_task(azure.arm("DELETE", machine))
        async with asyncio.timeout(60):
            while not await under_way(azure):  # noqa: ASYNC110 - of Azure
                await asyncio.sleep(0.02)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        azure.weather("scale-sets=0")

    operator(world, delete)


def test_an_identity_comes_to_machines_of_every_kind_and_goes_from_all(
    mixed: World, podidentity: Run
) -> None:
    identity, ns = made_identity(mixed).id, mixed.namespace(f"n-{uuid.uuid4().hex[:8]}")
    where = ["--namespace", ns, "--name", "orders"]
    ran = podidentity("add", *where, "--identity-resource-id", identity)
    assert (ran.code, ran.err) == (0, "")
    for name in ("scale set aks-nodepool1", "virtual machine aks-nodepool2-12345678-vmss_"):
        assert name in ran.out
    assert attached(mixed, identity) == [True, True, True]
    made = mixed.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/orders")
    assert record(made) == sorted(machines(mixed))
    ran = podidentity("list", "--namespace", ns)
    assert (ran.code, ran.err) == (0, "")
    assert "orders" in ran.out
    ran = podidentity("delete", *where)
    assert (ran.code, ran.err) == (0, "")
    assert attached(mixed, identity) == [False, False, False]


def test_a_machine_that_azure_is_deleting_is_left_alone(mixed: World, podidentity: Run) -> None:
    """Last, since it does not come back."""
    identity, ns = made_identity(mixed).id, mixed.namespace(f"n-{uuid.uuid4().hex[:8]}")
    first, second = (["--namespace", ns, "--name", name] for name in ("first", "second"))
    assert podidentity("add", *first, "--identity-resource-id", identity).code == 0
    going = machines(mixed)[-1]
    deleting(mixed, going)
    name = going.rpartition("/")[2]
    ran = podidentity("delete", *first)
    assert (ran.code, ran.err) == (0, "")
    assert f"virtual machine {name} is gone" in ran.out
    assert attached(mixed, identity)[:2] == [False, False]
    ran = podidentity("add", *second, "--identity-resource-id", identity)
    assert (ran.code, ran.err) == (0, "")
    assert f"virtual machine {name} is being deleted: left alone" in ran.out
    assert attached(mixed, identity)[:2] == [True, True]
    made = mixed.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/second")
    assert record(made) == sorted(machines(mixed)[:2])
