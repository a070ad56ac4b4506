"""`add` and `delete` against the sandbox's Azure, signed in as a person's shell is; no script."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from tests.cli.conftest import Ran
from tests.cli.world import CUSTOM, World

Run = Callable[..., Ran]
T = TypeVar("T")


def operator(world: World, work: Callable[[AzureOperator], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with AzureOperator(world.plan) as azure:
            return await work(azure)

    return asyncio.run(connected())


async def _identity(azure: AzureOperator) -> dict[str, str]:
    await azure.create_group("shop")
    return await azure.create_identity("shop", f"orders-{uuid.uuid4().hex[:6]}")


@pytest.fixture
def identity(world: World) -> dict[str, str]:
    return operator(world, _identity)


def attached(world: World) -> set[str]:
    async def ask(azure: AzureOperator) -> Any:
        return await azure.arm("GET", world.plan.scale_set_id, version="2024-07-01")

    return {key.lower() for key in operator(world, ask)["identity"]["userAssignedIdentities"]}


def test_an_identity_comes_to_the_scale_set_and_goes_again(
    world: World, identity: dict[str, str], podidentity: Run
) -> None:
    ns = world.namespace(f"n-{uuid.uuid4().hex[:8]}")
    where = ["--namespace", ns, "--name", "orders"]
    before = attached(world)
    assert before  # the kubelet's own
    ran = podidentity("add", *where, "--identity-resource-id", identity["id"])
    assert (ran.code, ran.err) == (0, "")
    assert attached(world) == before | {identity["id"].lower()}
    found = world.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/orders")
    assert found["spec"]["clientID"] == identity["clientId"].lower()
    assert found["spec"]["objectID"] == identity["principalId"].lower()
    ran = podidentity("delete", *where)
    assert (ran.code, ran.err) == (0, "")
    assert attached(world) == before


def test_an_identity_that_does_not_exist_is_named_before_anything_is_made(
    world: World, identity: dict[str, str], podidentity: Run
) -> None:
    ns = world.namespace(f"n-{uuid.uuid4().hex[:8]}")
    ran = podidentity(
        "add", "--namespace", ns, "--name", "x", "--identity-resource-id", f"{identity['id']}-not"
    )
    assert ran.code == 1
    assert "ResourceNotFound" in ran.err
    assert ran.err.count("\n") == 1
    assert world.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/x") is None


def test_a_wrong_secret_is_entras_reason_and_the_way_to_sign_in(
    world: World,
    identity: dict[str, str],
    podidentity: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not-the-secret")
    ran = podidentity(
        "add", "--namespace", "default", "--name", "x", "--identity-resource-id", identity["id"]
    )
    assert ran.code == 1
    assert "AADSTS7000215" in ran.err
    assert "Run az login" in ran.err
    assert "not-the-secret" not in ran.err
    assert ran.err.count("\n") == 1
    assert world.get(f"{CUSTOM}/namespaces/default/azureidentities/x") is None
