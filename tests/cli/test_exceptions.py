"""`podidentity exception`: made, changed, listed and taken away, each with its effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import Ran
from tests.cli.ids import CLIENT, IDENTITY
from tests.cli.world import CUSTOM, World

Run = Callable[..., Ran]
CALLED = "azurepodidentityexception.aadpodidentity.k8s.io/agent"
SYSTEM = "kube-system"
"""In it exceptions have effect unless NMI is told otherwise."""


@pytest.fixture(autouse=True)
def none_is_left(world: World) -> Any:
    yield
    path = f"{CUSTOM}/namespaces/{SYSTEM}/azurepodidentityexceptions/agent"
    if world.get(path) is not None:
        world.send("DELETE", path)


def exception(run: Run, verb: str, ns: str = SYSTEM, *more: str) -> Ran:
    return run("exception", verb, "--namespace", ns, "--name", "agent", *more)


def spec(world: World, ns: str = SYSTEM) -> Any:
    return world.get(f"{CUSTOM}/namespaces/{ns}/azurepodidentityexceptions/agent")["spec"]


def test_it_is_made_and_says_who_gets_what(world: World, podidentity: Run) -> None:
    ran = exception(
        podidentity, "add", SYSTEM, "--pod-labels", "app=agent", "--pod-labels", "a.b/c="
    )
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        f"{CALLED} created",
        "Pods of namespace kube-system with a.b/c=,app=agent get every identity of their node.",
    ]
    assert spec(world) == {"podLabels": {"app": "agent", "a.b/c": ""}}


def test_made_again_it_stays_and_for_other_pods_it_is_refused(
    world: World, podidentity: Run
) -> None:
    label = ("--pod-labels", "app=agent", "--identity", CLIENT.upper())
    exception(podidentity, "add", SYSTEM, *label)
    again = exception(podidentity, "add", SYSTEM, *label)
    assert (again.code, again.out.splitlines()[0]) == (0, f"{CALLED} unchanged")
    assert again.out.endswith(f"get {CLIENT}.\n")
    other = exception(podidentity, "add", SYSTEM, "--pod-labels", "app=other")
    assert other.code == 1
    assert "kube-system/agent exists, for other pods or identities" in other.err
    assert "podidentity exception update" in other.err
    assert spec(world) == {"podLabels": {"app": "agent"}, "azureIdentities": [CLIENT]}


def test_an_update_replaces_labels_and_identities(world: World, podidentity: Run) -> None:
    label = ("--pod-labels", "app=agent", "--pod-labels", "tier=node")
    exception(podidentity, "add", SYSTEM, *label, "--identity", CLIENT)
    ran = exception(
        podidentity, "update", SYSTEM, "--pod-labels", "app=other", "--identity", IDENTITY
    )
    assert (ran.code, ran.err) == (0, "")
    assert f"{CALLED} configured" in ran.out
    assert spec(world) == {"podLabels": {"app": "other"}, "azureIdentities": [IDENTITY]}
    exception(podidentity, "update", SYSTEM, "--pod-labels", "app=other")
    assert spec(world) == {"podLabels": {"app": "other"}}


def test_an_update_changes_no_exception_of_a_helm_release(world: World, podidentity: Run) -> None:
    exception(podidentity, "add", SYSTEM, "--pod-labels", "app=agent")
    path = f"{CUSTOM}/namespaces/{SYSTEM}/azurepodidentityexceptions/agent"
    world.send("PATCH", path, {"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}})
    ran = exception(podidentity, "update", SYSTEM, "--pod-labels", "app=other")
    assert ran.code == 1
    assert "is of the Helm release" in ran.err
    assert "helm upgrade" in ran.err
    assert spec(world) == {"podLabels": {"app": "agent"}}


@pytest.mark.usefixtures("world")
def test_an_update_of_none_says_how_to_make_one(ns: str, podidentity: Run) -> None:
    ran = exception(podidentity, "update", ns, "--pod-labels", "app=agent")
    assert ran.code == 1
    assert f"There is no AzurePodIdentityException {ns}/agent" in ran.err
    assert "podidentity exception add" in ran.err


@pytest.mark.usefixtures("world")
def test_where_it_has_no_effect_that_is_said_with_nmis_flag(ns: str, podidentity: Run) -> None:
    ran = exception(podidentity, "add", ns, "--pod-labels", "app=agent")
    assert ran.code == 0
    assert (
        f"warning: AzurePodIdentityException {ns}/agent has no effect in its namespace" in ran.err
    )
    assert "--exception-namespaces=" in ran.err
    listed = podidentity("exception", "list", "-n", ns)
    head, row, why = listed.out.splitlines()
    assert head.split("   ")[0] == "NAMESPACE"
    assert row.split() == [ns, "agent", "app=agent", "all", "without", "effect"]
    assert why.startswith(f"{ns}/agent: AzurePodIdentityException {ns}/agent has no effect")
    (found,) = json.loads(podidentity("exception", "list", "-n", ns, "-o", "json").out)
    assert found["podLabels"] == {"app": "agent"}
    assert (found["inEffect"], "has no effect" in found["why"]) == (False, True)


def test_one_that_cannot_be_used_is_listed_with_the_reason(
    world: World, ns: str, podidentity: Run
) -> None:
    world.custom(ns, "azurepodidentityexceptions", "agent", {"azureIdentities": ["x"]})
    ran = podidentity("exception", "list", "-n", ns)
    assert ran.code == 0
    assert f"{ns}/agent: it cannot be used: spec.azureIdentities" in ran.out


@pytest.mark.usefixtures("world")
def test_it_is_taken_away_and_none_is_no_failure(podidentity: Run) -> None:
    exception(podidentity, "add", SYSTEM, "--pod-labels", "app=agent")
    assert exception(podidentity, "delete").out == f"{CALLED} deleted\n"
    again = exception(podidentity, "delete")
    assert (again.code, again.out) == (0, f"{CALLED} not found\n")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--pod-labels", "app"], "is no label: KEY=VALUE"),
        (["--pod-labels", "=x"], "is no label"),
        (["--pod-labels", f"{'a' * 64}=x"], "is no label"),
        (["--pod-labels", "a=1", "--pod-labels", "a=2"], "one value of each label"),
        (["--pod-labels", "a=1", "--identity", "orders"], "Invalid value for '--identity'"),
        ([], "Missing option '--pod-labels'"),
    ],
)
def test_what_no_pod_has_is_wrong_usage(podidentity: Run, more: list[str], said: str) -> None:
    ran = exception(podidentity, "add", SYSTEM, *more)
    assert ran.code == 2
    assert said in ran.err
