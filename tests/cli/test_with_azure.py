"""`add` and `delete` signed in to Azure as a person's shell is, and how sign-in fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.azure import Identity, attached, made_identity
from tests.cli.conftest import Ran
from tests.cli.world import CUSTOM, World

Run = Callable[..., Ran]


@pytest.fixture
def identity(world: World) -> Identity:
    return made_identity(world)


def test_an_identity_comes_to_the_scale_set_and_goes_again(
    world: World, identity: Identity, ns: str, podidentity: Run
) -> None:
    where = ["--namespace", ns, "--name", "orders"]
    before = attached(world)
    assert before  # the kubelet's own
    ran = podidentity("add", *where, "--identity-resource-id", identity.id)
    assert (ran.code, ran.err) == (0, "")
    assert attached(world) == before | {identity.id.lower()}
    found = world.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/orders")
    assert found["spec"]["clientID"] == identity.client_id.lower()
    assert found["spec"]["objectID"] == identity.object_id.lower()
    ran = podidentity("delete", *where)
    assert (ran.code, ran.err) == (0, "")
    assert attached(world) == before


def test_a_wrong_secret_is_entras_reason_and_the_way_to_sign_in(
    world: World,
    identity: Identity,
    podidentity: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not-the-secret")
    ran = podidentity(
        "add", "--namespace", "default", "--name", "x", "--identity-resource-id", identity.id
    )
    assert ran.code == 1
    assert "AADSTS7000215" in ran.err
    assert "Run az login" in ran.err
    assert "not-the-secret" not in ran.err
    assert ran.err.count("\n") == 1
    assert world.get(f"{CUSTOM}/namespaces/default/azureidentities/x") is None
