from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity.adapters.cluster import Index
from podidentity.cli.list import inventory
from podidentity.core.resources import BINDING_LABEL
from tests.cli.azure import Identity
from tests.cli.binding import Run, add
from tests.cli.world import World
from tests.fakes import FakeClock, binding, cluster, identity, pod


def test_list_shows_identities_with_who_may_use_them(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"})
    world.pod(ns, "b", {BINDING_LABEL: "orders"})
    world.pod(ns, "stranger")
    world.custom(ns, "azureidentities", "broken", {"clientID": "x"})
    world.custom(ns, "azureidentities", "free", {"clientID": orders.client_id})
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
    assert lines[2] == [ns, "free", orders.client_id, "-", "0", "all", "no", "binding"]
    assert lines[3] == [ns, "orders", orders.client_id, "orders", "2", "all", "bound"]
    assert f"AzureIdentityBinding {ns}/empty cannot be used: spec.selector is empty." in ran.out
    assert f"AzureIdentityBinding {ns}/dangling names AzureIdentity 'no'" in ran.out
    data = json.loads(podidentity("list", "--namespace", ns, "-o", "json").out)
    (shown,) = [each for each in data["identities"] if each["name"] == "orders"]
    assert shown == {
        "namespace": ns,
        "name": "orders",
        "type": 0,
        "resourceID": orders.id,
        "clientID": orders.client_id,
        "objectID": orders.object_id,
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


def test_all_pods_are_put_in_order_once_however_many_identities_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = [identity(f"i-{number}") for number in range(50)]
    bound = [binding(f"b-{number}", identity=f"i-{number}") for number in range(50)]
    pods = [pod(f"p-{number}", addresses=(f"10.0.0.{number}",)) for number in range(3)]
    found = cluster(FakeClock(), *many, *bound, *pods)
    whole, sorts = Index.sorted, 0

    def counted(index: Index[Any]) -> Any:
        nonlocal sorts
        sorts += 1
        return whole(index)

    monkeypatch.setattr(Index, "sorted", counted)
    entries, problems = inventory(found, roles=None)
    assert [each.pods for each in entries] == [("p-0", "p-1", "p-2")] * 50
    assert (sorts, problems) == (3, []), "pods, bindings and identities, each once"
