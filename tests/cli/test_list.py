from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity.cli.list import HEAD, WIDE_HEAD, Entry, inventory
from podidentity.cli.output import table
from podidentity.core.indexes import Index
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
    assert lines[0] == ["NAMESPACE", "NAME", "SELECTOR", "PODS", "PERMITTED", "STATE"]
    assert lines[1][:5] == [ns, "broken", "-", "0", "?"]
    assert lines[2] == [ns, "free", "-", "0", "all", "no", "binding"]
    assert lines[3] == [ns, "orders", "orders", "2", "all", "bound"]
    wide = [
        line.split() for line in podidentity("list", "-n", ns, "-o", "wide").out.splitlines()[:4]
    ]
    assert wide[0] == [*lines[0][:-1], "CLIENT", "ID", "STATE"]
    assert wide[1][:6] == [ns, "broken", "-", "0", "?", "-"]
    assert wide[3] == [*lines[3][:-1], orders.client_id, "bound"]
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


def test_on_80_columns_a_line_holds_what_is_short_and_wide_all_of_it() -> None:
    accounts = ("orders", "orders-canary", "reports")
    entries = [
        Entry(found=identity(name), selectors=selectors, pods=("p",) * 120, permitted=permitted)
        for name, selectors, permitted in (
            ("orders", ("orders",), accounts),
            ("reports", accounts, ("*",)),
            ("mail", (), None),
            ("queue", ("queue",), ()),
        )
    ]
    lines = table(HEAD, [each.row(wide=False) for each in entries], width=80).splitlines()
    assert max(map(len, lines)) <= 80, lines
    wide = table(WIDE_HEAD, [each.row(wide=True) for each in entries])
    assert ",".join(accounts) in wide


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
