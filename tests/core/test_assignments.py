from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podidentity.core.assignments import (
    Assignments,
    Changes,
    Key,
    Need,
    attachment,
)
from podidentity.core.decision import Rules, Use
from podidentity.core.hosts import Host
from podidentity.core.ledger import Wanted
from podidentity.core.permissions import IdentityPermission
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureIdentity,
    IdentityType,
    Malformed,
    ObjectRef,
    Phase,
    Pod,
)
from podidentity.core.shares import SHARES
from tests.core.objects import (
    binding,
    client_id,
    exception,
    identity,
    pod,
    principal,
    resource_id,
    system,
)
from tests.core.worlds import occurs

SETS = [
    Host.parse(
        f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/{n}"
    )
    for n in ("one", "two")
]
LOOSE = Rules(cross_namespace=True)
Step = Callable[[Assignments], None]


def named(name: str, selector: str = "app", namespace: str = "blue", **facts: Any) -> Pod:
    fields: dict[str, Any] = {"ref": ObjectRef(namespace, name), "uid": f"uid-{name}"}
    return pod(namespace, selector, **(fields | facts))


def told(*, rules: Rules | None = None, asks: bool = False, **choices: bool) -> Assignments:
    """Return the state of a cluster with node n1, and identity `orders` bound to `app`."""
    state = Assignments(rules or Rules(), asks=asks, **choices)
    state.see_node("n1", SETS[0])
    state.see_identity(identity("blue", "orders"))
    state.see_binding(binding("blue", "b", "orders", "app"))
    state.refresh()
    return state


def ids(state: Assignments, host: Host = SETS[0]) -> list[str]:
    return sorted(state.wanted(host))


ID = resource_id(1).folded


# One pod.


def test_a_pod_with_the_label_of_a_binding_gets_a_record_and_its_host_the_identity() -> None:
    state = told()
    state.see_pod(named("web"))
    changes = state.refresh()
    name = ObjectRef("blue", "web-blue-orders")
    assert list(changes.records) == [name]
    assert list(changes.hosts) == [SETS[0]]
    need = state.records[name]
    assert need.key == Key(ObjectRef("blue", "web"), ObjectRef("blue", "orders"))
    assert (need.node, need.binding.ref.name, need.host) == ("n1", "b", SETS[0])
    assert ids(state) == [ID]


@pytest.mark.parametrize(
    "one",
    [
        named("web", "App"),
        named("web", "other"),
        named("web", node=""),
        named("web", node="unknown"),
        named("web", phase=Phase.SUCCEEDED),
        named("web", phase=Phase.FAILED),
        named("web", host_network=True),
        named("web", namespace="green"),
    ],
    ids=["case", "selector", "no node", "unknown node", "succeeded", "failed", "host", "namespace"],
)
def test_a_pod_that_could_get_no_token_here_needs_nothing(one: Pod) -> None:
    state = told()
    state.see_pod(one)
    assert state.refresh() == Changes()
    assert (dict(state.records), ids(state)) == ({}, [])


def test_a_pod_of_the_nodes_network_has_its_identity_attached_by_a_switch_and_by_permission() -> (
    None
):
    state = told(asks=True, node_network=True)
    agent = named("agent", host_network=True)
    state.see_pod(agent)
    (use,) = state.refresh().questions
    assert use.service_account == ObjectRef("blue", "default")
    assert ids(state) == []
    assert state.undecided(SETS[0]) == {ID}
    state.answer(use, allowed=True)
    state.refresh()
    assert ids(state) == [ID]
    assert list(state.records) == [ObjectRef("blue", "agent-blue-orders")]
    listed = (identity("blue", "orders"),), (binding("blue", "b", "orders", "app"),)
    assert state.in_use(SETS[0], (agent,), *listed) == frozenset({ID})
    state.answer(use, allowed=False)
    state.refresh()
    assert (ids(state), dict(state.records)) == ([], {})
    assert state.in_use(SETS[0], (agent,), *listed) == frozenset()


def test_a_pod_needs_an_identity_from_the_time_it_has_a_node_until_it_has_ended() -> None:
    state = told()
    seen = []
    for one in (named("web", node=""), named("web"), named("web", phase=Phase.SUCCEEDED)):
        state.see_pod(one)
        state.refresh()
        seen.append((len(state.records), ids(state)))
    assert seen == [(0, []), (1, [ID]), (0, [])]


@pytest.mark.parametrize(
    "other",
    [principal("blue", "orders"), system("blue", "orders")],
    ids=["service principal", "system-assigned"],
)
def test_only_a_user_assigned_identity_is_attached_to_the_host(other: AzureIdentity) -> None:
    state = told()
    state.see_identity(other)
    state.see_pod(named("web", node="unknown"))
    state.refresh()
    assert [need.host for need in state.records.values()] == [None]
    assert ids(state) == []


@pytest.mark.parametrize(
    "other",
    [
        identity("blue", "orders", resource_id=None),
        Malformed(ref=ObjectRef("blue", "orders"), kind="AzureIdentity", why="it is bad"),
    ],
    ids=["no resource id", "malformed"],
)
def test_an_identity_that_cannot_be_attached_gives_no_record(
    other: AzureIdentity | Malformed,
) -> None:
    state = told()
    state.see_pod(named("web"))
    state.refresh()
    state.see_identity(other)
    assert list(state.refresh().records) == [ObjectRef("blue", "web-blue-orders")]
    assert dict(state.records) == {}


def test_the_identity_of_an_excepted_pod_comes_from_the_node_itself() -> None:
    state = Assignments(Rules(exception_namespaces=frozenset({"blue"})), asks=False)
    state.see_node("n1", SETS[0])
    state.see_identity(identity("blue", "orders"))
    state.see_binding(binding("blue", "b", "orders", "app"))
    state.see_pod(named("web", more={"tier": "web"}))
    state.refresh()
    assert len(state.records) == 1
    state.see_exception(exception("blue", "e", {"tier": "web"}))
    state.refresh()
    assert len(state.records) == 0
    state.lose_exception(ObjectRef("blue", "e"))
    state.refresh()
    assert len(state.records) == 1


@pytest.mark.parametrize(
    ("change", "asks"),
    [
        ({"labels": {BINDING_LABEL: "app", "tier": "web"}}, False),
        ({"host_network": True}, False),
        ({"service_account": "other"}, True),
    ],
    ids=["labels", "host network", "service account"],
)
def test_what_changes_of_a_pod_in_place_counts(change: dict[str, Any], asks: bool) -> None:
    rules = Rules(exception_namespaces=frozenset({"blue"}))
    state = told(rules=rules, asks=asks)
    state.see_exception(exception("blue", "e", {"tier": "web"}))
    state.see_pod(named("web"))
    state.refresh()
    before = (dict(state.records), state.uses(None))
    state.see_pod(named("web"))
    assert state.refresh() == Changes()
    state.see_pod(named("web", **change))
    state.refresh()
    assert (dict(state.records), state.uses(None)) != before


def test_a_pod_without_a_node_needs_no_identity_that_is_not_attached_either() -> None:
    state = told()
    state.see_identity(principal("blue", "orders"))
    state.see_pod(named("web", node=""))
    state.refresh()
    assert dict(state.records) == {}


def test_a_later_pod_of_the_same_name_outlives_the_news_that_the_first_is_gone() -> None:
    state = told()
    state.see_pod(named("web-0", uid="first"))
    state.see_pod(named("web-0", uid="second"))
    state.lose_pod(ObjectRef("blue", "web-0"), "first")
    state.refresh()
    assert [need.uid for need in state.records.values()] == ["second"]


def test_pods_of_one_name_in_two_namespaces_are_two() -> None:
    state = told()
    state.see_identity(identity("green", "orders"))
    state.see_binding(binding("green", "b", "orders", "app"))
    for namespace in ("blue", "green"):
        state.see_pod(named("web-0", namespace=namespace))
    state.refresh()
    state.lose_pod(ObjectRef("green", "web-0"), "uid-web-0")
    state.refresh()
    assert ids(state) == [ID]


def test_two_identities_that_spell_one_id_differently_are_one_on_the_host() -> None:
    state = told()
    upper = replace(resource_id(1), spelling=resource_id(1).spelling.upper())
    state.see_identity(identity("blue", "again", resource_id=upper))
    state.see_binding(binding("blue", "c", "again", "app"))
    state.see_pod(named("web"))
    state.refresh()
    assert (len(state.records), ids(state)) == (2, [ID])
    state.lose_binding(ObjectRef("blue", "b"))
    state.refresh()
    assert (len(state.records), ids(state)) == (1, [ID])


def test_an_identity_edited_in_place_moves_its_pods_to_the_new_id() -> None:
    state = told()
    state.see_pod(named("web"))
    state.refresh()
    state.see_identity(identity("blue", "orders", 2))
    changes = state.refresh()
    assert list(changes.records) == [ObjectRef("blue", "web-blue-orders")]
    assert ids(state) == [resource_id(2).folded]


def test_a_node_that_vanishes_takes_its_pods_needs_along() -> None:
    state = told()
    state.see_pod(named("web"))
    state.refresh()
    state.lose_node("n1")
    state.refresh()
    assert (dict(state.records), ids(state), list(state.hosts)) == ({}, [], [])


def test_a_node_that_is_told_again_changes_nothing() -> None:
    state = told()
    state.see_node("n1", SETS[0])
    assert not state.outdated
    assert state.refresh() == Changes()


def test_a_scale_set_is_one_host_however_its_nodes_spell_it() -> None:
    state = told()
    state.see_node("n2", Host.parse(SETS[0].resource_id.upper()))
    state.see_pod(named("web"))
    state.see_pod(named("job", node="n2"))
    state.refresh()
    assert list(state.hosts) == [SETS[0]]
    assert {need.host for need in state.records.values()} == {SETS[0]}


# The permission.


def test_until_the_permission_is_known_nothing_is_given_and_nothing_taken() -> None:
    state = told(asks=True)
    state.see_pod(named("web"))
    changes = state.refresh()
    use = Use(ObjectRef("blue", "default"), str(identity("blue", "orders").client_id))
    assert list(changes.questions) == [use]
    assert [need.decided for need in state.records.values()] == [False]
    assert (ids(state), state.undecided(SETS[0])) == ([], frozenset({ID}))
    state.answer(use, allowed=True)
    state.refresh()
    assert [need.decided for need in state.records.values()] == [True]
    assert (ids(state), state.undecided(SETS[0])) == ([ID], frozenset())
    state.answer(use, allowed=False)
    state.refresh()
    assert (dict(state.records), ids(state), state.undecided(SETS[0])) == ({}, [], frozenset())


def test_the_permission_of_a_pod_is_asked_for_before_it_is_scheduled() -> None:
    state = told(asks=True)
    state.see_pod(named("web", node=""))
    [use] = state.refresh().questions
    assert (dict(state.records), ids(state), state.undecided(SETS[0])) == ({}, [], frozenset())
    state.answer(use, allowed=True)
    state.refresh()
    assert (dict(state.records), ids(state)) == ({}, [])
    state.see_pod(named("web"))
    assert not state.refresh().questions
    assert ids(state) == [ID]


def test_for_a_pod_that_is_not_scheduled_as_many_permissions_are_asked_as_the_least_share() -> None:
    state = told(asks=True)
    for number in range(SHARES[-1] + 1):
        state.see_identity(identity("blue", f"i{number}", number + 2))
        state.see_binding(binding("blue", f"b{number}", f"i{number}", "app"))
    state.see_pod(named("web", node=""))
    assert len(state.refresh().questions) == SHARES[-1]


def test_a_question_is_asked_once_for_all_pods_of_a_service_account() -> None:
    state = told(asks=True)
    state.see_pod(named("web"))
    state.see_pod(named("job"))
    assert len(state.refresh().questions) == 1
    state.see_pod(named("third"))
    assert len(state.refresh().questions) == 0
    [use] = state.uses("blue")
    assert state.uses("green") == []
    for name in ("web", "job", "third"):
        assert state.asked(use)
        state.lose_pod(ObjectRef("blue", name), f"uid-{name}")
        state.refresh()
    assert not state.asked(use)


def test_of_an_identity_it_is_told_when_another_permission_counts_for_its_pods() -> None:
    state, orders = told(asks=True), ObjectRef("blue", "orders")
    assert state.permission(orders) == IdentityPermission()
    state.see_pod(named("web"))
    assert list(state.refresh().identities) == [orders]
    assert state.permission(orders) == IdentityPermission(decided=False)
    state.lose_pod(ObjectRef("blue", "web"), "uid-web")
    assert list(state.refresh().identities) == [orders]
    assert state.permission(orders) == IdentityPermission()


def test_what_a_binding_offers_to_future_pods_says_nothing_of_its_identity() -> None:
    state, orders = told(asks=True, everywhere=True), ObjectRef("blue", "orders")
    assert state.uses(None) != []
    assert state.permission(orders) == IdentityPermission()
    state.see_pod(named("web"))
    state.refresh()
    assert state.permission(orders) == IdentityPermission(decided=False)


# Names of records.


def test_a_record_has_the_name_that_it_always_had() -> None:
    state = told(rules=LOOSE)
    state.see_identity(identity("blue", "own", namespaced=True))
    state.see_binding(binding("blue", "c", "own", "app"))
    state.see_pod(named("web"))
    state.see_pod(named("web", namespace="green"))
    state.refresh()
    assert sorted(state.records) == [
        ("blue", "web-blue-own"),
        ("default", "web-blue-orders"),
        ("default", "web-green-orders"),
    ]


def test_of_two_records_with_one_name_the_second_gets_a_hashed_one() -> None:
    state = told()
    state.see_identity(identity("blue", "orders-blue-x"))
    state.see_identity(identity("blue", "x"))
    state.see_binding(binding("blue", "c", "orders-blue-x", "first"))
    state.see_binding(binding("blue", "d", "x", "second"))
    state.see_pod(named("web-blue-orders", "second"))
    state.see_pod(named("web", "first"))
    state.refresh()
    plain = ObjectRef("blue", "web-blue-orders-blue-x")
    assert state.records[plain].pod.name == "web"
    [other] = [ref for ref in state.records if ref != plain]
    assert other.name.startswith(f"{plain.name}-")
    state.lose_pod(ObjectRef("blue", "web"), "uid-web")
    assert set(state.refresh().records) == {plain, other}
    assert {ref: need.pod.name for ref, need in state.records.items()} == {plain: "web-blue-orders"}


def test_of_two_records_with_the_longest_name_that_there_may_be_the_first_keeps_it() -> None:
    state, name = told(), "w" * 236
    state.see_identity(identity("blue", "blue-orders", 2))
    state.see_binding(binding("blue", "c", "blue-orders", "app"))
    for each in (name, f"{name}-blue"):
        state.see_pod(named(each))
    state.refresh()
    plain = ObjectRef("blue", f"{name}-blue-blue-orders")
    assert len(plain.name) == 253
    assert state.records[plain].pod.name == name


def test_a_name_that_kubernetes_would_refuse_is_hashed() -> None:
    state = told()
    names = ["p" * 243, "p" * 244, "p" * 242, "p" * 241]
    for name in names:
        state.see_pod(named(name))
    state.refresh()
    assert len(state.records) == 4
    assert all(len(ref.name) <= 253 for ref in state.records)
    plain = {need.pod.name for ref, need in state.records.items() if ref.name.endswith("-orders")}
    assert plain == {name for name in names if len(name) + len("-blue-orders") <= 253}


def test_a_hashed_name_stays_from_one_version_of_mic_to_the_next() -> None:
    state = told()
    state.see_pod(named("p" * 244))
    state.refresh()
    [name] = state.records
    assert name == ObjectRef("blue", f"{'p' * 230}-1ca4d35afe1c6a342a47")


# On every host.


def test_everywhere_an_identity_is_on_every_host_from_its_binding_on() -> None:
    state = told(everywhere=True)
    assert (ids(state), ids(state, SETS[1])) == ([ID], [ID])
    assert dict(state.records) == {}
    state.see_node("n2", SETS[1])
    assert list(state.refresh().hosts) == [SETS[1]]
    state.lose_binding(ObjectRef("blue", "b"))
    assert list(state.refresh().hosts) == SETS
    assert (ids(state), ids(state, SETS[1])) == ([], [])


def test_everywhere_a_permission_of_one_service_account_counts_with_its_pod() -> None:
    state = told(everywhere=True, asks=True)
    [default] = state.uses(None)
    assert default.service_account == ("blue", "default")
    state.answer(default, allowed=False)
    state.refresh()
    assert ids(state) == []
    state.see_pod(named("web", service_account="web", node=""))
    [use] = state.refresh().questions
    state.answer(use, allowed=True)
    state.refresh()
    assert ids(state, SETS[1]) == [ID]


def test_only_an_identity_of_its_own_is_attached_to_a_machine() -> None:
    assert attachment(identity("blue", "orders")) == resource_id(1)
    assert attachment(identity("blue", "orders", system_assigned=True)) is None


# What is asked of it.


def test_what_a_host_should_have_says_whose_it_is() -> None:
    state = told()
    state.see_pod(named("web"))
    state.refresh()
    assert state.wanted(SETS[0]) == {ID: Wanted(resource_id(1), str(client_id(1)))}
    state.see_identity(identity("blue", "orders", client_id=None))
    state.refresh()
    assert state.wanted(SETS[0]) == {ID: Wanted(resource_id(1), "")}


def test_it_is_outdated_from_an_event_until_it_is_refreshed() -> None:
    state = told()
    assert not state.outdated
    events: list[Callable[[], None]] = [
        lambda: state.see_pod(named("web")),
        lambda: state.see_node("n2", SETS[1]),
        lambda: state.lose_node("n2"),
    ]
    found = []
    for event in events:
        event()
        found.append(state.outdated)
        state.refresh()
        found.append(state.outdated)
    assert found == [True, False] * 3


@pytest.mark.parametrize("name", ["web", "w" * 246, "w" * 247, "w" * 250])
def test_each_need_is_found_by_its_record_its_identity_and_its_host(name: str) -> None:
    state, orders = told(), ObjectRef("blue", "orders")
    # Both records have one plain name.
    state.see_identity(identity("blue", "blue-orders", 2))
    state.see_binding(binding("blue", "c", "blue-orders", "app"))
    for each in (name, f"{name}-blue"):
        state.see_pod(named(each))
    state.refresh()
    needs = dict(state.records)
    assert len(needs) == 4
    assert {state.name(need): need for need in needs.values()} == needs
    of_orders = {ref for ref, need in needs.items() if need.identity.ref == orders}
    assert {state.name(need) for need in state.needs_of(orders)} == of_orders
    assert {state.name(need) for need in state.needed_by(SETS[0], ID)} == of_orders
    assert state.needs_of(ObjectRef("blue", "none")) == []
    assert [*state.needed_by(SETS[1], ID)] == []


def test_a_binding_without_a_need_is_none_of_an_identity() -> None:
    state = told()
    state.see_pod(named("web", node=""))
    state.refresh()
    assert state.needs_of(ObjectRef("blue", "orders")) == []


def test_a_host_has_nodes_until_the_last_is_gone() -> None:
    state = told()
    state.see_node("n2", SETS[0])
    found = []
    for node in ("n1", "n2"):
        found.append(state.has_nodes(SETS[0]))
        state.lose_node(node)
    assert (found, state.has_nodes(SETS[0])) == ([True, True], False)


@pytest.mark.parametrize("rules", [Rules(), LOOSE], ids=["strict", "loose"])
@pytest.mark.parametrize("asks", [False, True], ids=["unasked", "asked"])
@pytest.mark.parametrize("everywhere", [False, True], ids=["by pod", "everywhere"])
def test_of_what_is_gone_nothing_is_kept(rules: Rules, asks: bool, everywhere: bool) -> None:
    def kept(state: Assignments) -> dict[str, object]:
        permissions = {f"permissions{name}": it for name, it in vars(state._permissions).items()}
        found = vars(state) | permissions
        return {name: value for name, value in found.items() if isinstance(value, dict)}

    state = told(rules=rules, asks=asks, everywhere=everywhere)
    state.see_exception(exception("blue", "e", {"tier": "web"}))
    for name, selector in (("web", "app"), ("job", "other")):
        state.see_pod(named(name, selector))
    state.refresh()
    # One that changes, and one that is read again by another selector.
    state.see_pod(named("web", uid="second"))
    state.see_pod(named("job", "app", node="n2"))
    for use in state.refresh().questions:
        state.answer(use, allowed=True)
    state.refresh()
    assert all(kept(state)[each] for each in ("_pods", "_pods_by_node", "_needs", "_on_hosts"))
    state.lose_pod(ObjectRef("blue", "web"), "second")
    state.lose_pod(ObjectRef("blue", "job"), "uid-job")
    state.lose_exception(ObjectRef("blue", "e"))
    state.lose_binding(ObjectRef("blue", "b"))
    state.lose_identity(ObjectRef("blue", "orders"))
    state.lose_node("n1")
    state.refresh()
    empty = kept(Assignments(rules, asks=asks, everywhere=everywhere))
    assert kept(state) == empty


# Before a detach.


def test_a_pod_that_only_the_list_shows_keeps_its_identity() -> None:
    state = told()
    objects = ([identity("blue", "orders")], [binding("blue", "b", "orders", "app")])
    assert state.in_use(SETS[0], [named("web")], *objects) == frozenset({ID})
    assert state.in_use(SETS[0], [named("web", node="new")], *objects) == frozenset({ID})
    assert state.in_use(SETS[0], [named("web", phase=Phase.FAILED)], *objects) == frozenset()
    assert state.in_use(SETS[0], [], *objects) == frozenset()
    state.see_node("n2", SETS[1])
    assert state.in_use(SETS[0], [named("web", node="n2")], *objects) == frozenset()


@pytest.mark.parametrize(
    ("rules", "unclear", "known"),
    [
        (Rules(), "blue", False),
        (Rules(), "red", True),
        (Rules(cross_namespace=True), "red", False),
    ],
)
def test_a_pod_whose_namespace_has_objects_that_are_left_out_may_need_anything(
    rules: Rules, unclear: str, *, known: bool
) -> None:
    state = told(rules=rules)
    state.see_node("n2", SETS[1])
    objects = ([identity("blue", "orders")], [binding("blue", "b", "orders", "app")])
    found = state.in_use(SETS[0], [named("web")], *objects, frozenset({unclear}))
    assert found == ({ID} if known else None)
    assert state.in_use(SETS[1], [named("web")], *objects, frozenset({unclear})) == frozenset()


def test_everywhere_anything_may_be_needed_while_objects_are_left_out() -> None:
    assert told(everywhere=True).in_use(SETS[0], [], [], [], frozenset({"red"})) is None


def test_everywhere_a_pod_of_any_node_keeps_its_identity_on_each_host() -> None:
    state = told(everywhere=True, asks=True)
    state.see_node("n2", SETS[1])
    [default] = state.uses(None)
    state.answer(default, allowed=False)
    objects = ([identity("blue", "orders")], [binding("blue", "b", "orders", "app")])
    assert state.in_use(SETS[0], [], *objects) == frozenset()
    web = named("web", node="n2", service_account="web")
    assert state.in_use(SETS[0], [web], *objects) == frozenset({ID})


def test_a_permission_that_is_not_known_keeps_an_identity_and_a_refused_one_does_not() -> None:
    state = told(asks=True)
    objects = ([identity("blue", "orders")], [binding("blue", "b", "orders", "app")])
    assert state.in_use(SETS[0], [named("web")], *objects) == frozenset({ID})
    state.see_pod(named("web"))
    [use] = state.refresh().questions
    state.answer(use, allowed=False)
    assert state.in_use(SETS[0], [named("web")], *objects) == frozenset()


# However it came.

NAMESPACES, NODES = ["blue", "green"], ["n1", "n2", "n3"]


def _steps() -> list[tuple[str, str, Any]]:
    """Return all events: a kind and a name, which make their key, and the value; None: gone."""
    steps: list[tuple[str, str, Any]] = []
    for namespace in NAMESPACES:
        for name in ("web", "web-blue-x", "job"):
            for selector in ("app", "job", None):
                for node, phase, uid in (
                    ("n1", Phase.RUNNING, "1"),
                    ("n2", Phase.RUNNING, "2"),
                    ("", Phase.PENDING, "1"),
                    ("n1", Phase.SUCCEEDED, "1"),
                ):
                    ref = ObjectRef(namespace, name)
                    one = pod(namespace, selector, ref=ref, uid=uid, node=node, phase=phase)
                    steps.append(("pod", str(ref), one))
            steps += [("pod", f"{namespace}/{name}", None)] * 3
        for name in ("x", "x-blue-x"):
            key = f"{namespace}/{name}"
            steps += [
                ("identity", key, each)
                for each in (
                    identity(namespace, name, 1),
                    identity(namespace, name, 2),
                    identity(namespace, name, 1, namespaced=True),
                    identity(namespace, name, 1, resource_id=None),
                    principal(namespace, name),
                    system(namespace, name),
                    Malformed(ref=ObjectRef(namespace, name), kind="AzureIdentity", why="bad"),
                    None,
                )
            ]
            steps += [
                ("binding", f"{namespace}/{number}", each)
                for number in ("a", "b")
                for each in (
                    binding(namespace, number, name, "app"),
                    binding(namespace, number, name, "job", weight=1),
                    Malformed(ref=ObjectRef(namespace, number), kind="", why="bad"),
                    None,
                )
            ]
        for labels in ({"aadpodidbinding": "job"}, {"aadpodidbinding": "app"}, None):
            made = None if labels is None else exception(namespace, "e", labels)
            steps.append(("exception", f"{namespace}/e", made))
    steps += [("node", node, host) for node in NODES for host in (*SETS, None)]
    steps += [
        ("answer", f"{namespace}/default {number}", allowed)
        for namespace in NAMESPACES
        for number in (1, 2)
        for allowed in (True, False)
    ]
    return steps


STEPS = _steps()
BASE: list[tuple[str, str, Any]] = [
    ("node", "n1", SETS[0]),
    ("node", "n2", SETS[1]),
    *(
        step
        for namespace in NAMESPACES
        for step in (
            ("identity", f"{namespace}/x", identity(namespace, "x", 1)),
            ("binding", f"{namespace}/a", binding(namespace, "a", "x", "app")),
        )
    ),
]
"""With these most pods need something, in whatever follows."""


def _apply(state: Assignments, kind: str, name: str, value: Any, pods: dict[str, Pod]) -> None:
    if kind == "pod":
        if value is not None:
            state.see_pod(value)
            pods[name] = value
        elif (known := pods.pop(name, None)) is not None:
            state.lose_pod(known.ref, known.uid)
    elif kind == "node":
        state.see_node(name, value)
    elif value is None:
        getattr(state, f"lose_{kind}")(ObjectRef.parse(name))
    else:
        getattr(state, f"see_{kind}")(value)


def _facts(state: Assignments) -> object:
    return (
        dict(state.records),
        {host: (ids(state, host), state.undecided(host)) for host in SETS},
        set(state.hosts),
        set(state.uses(None)),
    )


RULES = [
    Rules(exception_namespaces=frozenset({"blue"}), cross_namespace=cross)
    for cross in (False, True)
]


@st.composite
def _series(draw: st.DrawFn) -> tuple[list[tuple[str, str, Any]], Rules, bool, bool]:
    series = [*BASE, *draw(st.lists(st.sampled_from(STEPS), max_size=40))]
    rules = draw(st.sampled_from(RULES))
    return series, rules, draw(st.booleans()), draw(st.booleans())


@dataclass
class Told:
    """A state that is told a series of events, and what there is in the end."""

    state: Assignments
    last: dict[tuple[str, str], Any] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    answers: dict[Use, bool] = field(default_factory=dict)
    seen: dict[ObjectRef, Need | None] = field(default_factory=dict)
    """The records, by their changes alone."""

    def tell(self, kind: str, name: str, value: Any) -> None:
        if kind == "answer":
            account, number = name.split(" ")
            one = identity("blue", "x", int(number))
            use = Use(ObjectRef.parse(account), str(one.client_id))
            if self.state.asked(use):
                self.answers[use] = value
            self.state.answer(use, allowed=value)
        else:
            self.last[kind, name] = value
            _apply(self.state, kind, name, value, self.pods)

    def refresh(self) -> Changes:
        changes = self.state.refresh()
        for ref in changes.records:
            self.seen[ref] = self.state.record(ref)
        # An answer that no pod waits for any more is forgotten.
        self.answers = {use: said for use, said in self.answers.items() if self.state.asked(use)}
        return changes

    def fresh(self, rules: Rules, *, asks: bool, everywhere: bool) -> Assignments:
        """Return a state that is told only what there is in the end."""
        state = Assignments(rules, asks=asks, everywhere=everywhere)
        for (kind, name), value in self.last.items():
            if value is not None:
                _apply(state, kind, name, value, {})
        state.refresh()
        for use, allowed in self.answers.items():
            state.answer(use, allowed=allowed)
        state.refresh()
        return state


def _played(
    series: list[tuple[str, str, Any]], rules: Rules, asks: bool, everywhere: bool
) -> tuple[Assignments, Assignments]:
    """Return the state after the series, and one that was read at once."""
    told = Told(Assignments(rules, asks=asks, everywhere=everywhere))
    for number, step in enumerate(series):
        told.tell(*step)
        if number % 3 == 0:
            told.refresh()
    told.refresh()
    found = {ref: need for ref, need in told.seen.items() if need is not None}
    assert found == dict(told.state.records)
    return told.state, told.fresh(rules, asks=asks, everywhere=everywhere)


FULL = [
    *(
        step
        for namespace in NAMESPACES
        for step in (
            *(
                ("identity", f"{namespace}/{name}", identity(namespace, name, number))
                for number, name in enumerate(("x", "x-blue-x"), start=1)
            ),
            ("binding", f"{namespace}/a", binding(namespace, "a", "x", "app")),
            ("binding", f"{namespace}/b", binding(namespace, "b", "x-blue-x", "app")),
            *(
                ("pod", f"{namespace}/{name}", named(name, namespace=namespace, uid="0", node=node))
                for name, node in (("web", "n1"), ("web-blue-x", "n2"), ("job", "n1"))
            ),
        )
    ),
    ("node", "n1", SETS[0]),
    ("node", "n2", SETS[1]),
]
"""A world in which each pod needs two identities."""
ANSWERS = [step for step in STEPS if step[0] == "answer" and step[2]]


def _by_host(state: Assignments) -> dict[Host, object]:
    return {host: (state.wanted(host), state.undecided(host)) for host in SETS}


@pytest.mark.parametrize(
    ("rules", "asks", "everywhere"),
    [
        (RULES[0], True, False),
        (RULES[1], True, False),
        (RULES[0], True, True),
        (RULES[1], False, True),
    ],
    ids=["by pod", "by pod, loose", "everywhere", "everywhere, loose, unasked"],
)
def test_after_any_event_in_a_full_world_and_its_end_the_state_is_as_if_read_at_once(
    rules: Rules, asks: bool, everywhere: bool
) -> None:
    told = Told(Assignments(rules, asks=asks, everywhere=everywhere))
    state, last = told.state, {(kind, name): value for kind, name, value in FULL}

    def tell(*steps: tuple[str, str, Any]) -> None:
        before = _by_host(state)
        for step in steps:
            told.tell(*step)
        changed = told.refresh().hosts
        after = _by_host(state)
        assert not state.outdated
        assert {host for host in SETS if before[host] != after[host]} <= {*changed}
        found = {ref: need for ref, need in told.seen.items() if need is not None}
        assert found == dict(state.records)

    tell(*FULL)
    tell(*ANSWERS)
    full = _facts(state)
    assert everywhere or len(state.records) >= 12
    for kind, name, value in STEPS:
        tell((kind, name, value))
        assert _facts(state) == _facts(told.fresh(rules, asks=asks, everywhere=everywhere))
        tell((kind, name, value if kind == "answer" else last.get((kind, name))))
        tell(*ANSWERS)
        assert _facts(state) == full, (kind, name, value)


@given(_series())
@settings(max_examples=50, deadline=None)
def test_after_any_series_of_events_the_state_is_as_if_read_at_once(case: Any) -> None:
    state, fresh = _played(*case)
    assert _facts(state) == _facts(fresh)


def test_series_in_which_much_happens_do_occur() -> None:
    def holds(case: Any) -> bool:
        state, _ = _played(*case)
        return bool(state.records) and any(ids(state, host) for host in SETS)

    occurs(_series(), holds)


def test_an_event_of_one_pod_decides_on_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    state = told()
    for number in range(500):
        state.see_pod(named(f"pod-{number}", labels={BINDING_LABEL: "app"}))
    state.refresh()
    decided: list[ObjectRef] = []
    decide = Assignments._decide

    def counting(self: Assignments, ref: ObjectRef) -> None:
        decided.append(ref)
        decide(self, ref)

    monkeypatch.setattr(Assignments, "_decide", counting)
    state.see_pod(named("one-more"))
    state.refresh()
    state.see_node("n9", SETS[1])
    state.see_binding(binding("green", "b", "orders", "app"))
    state.refresh()
    assert decided == [ObjectRef("blue", "one-more")]


def test_types_that_are_not_attached_are_all_but_type_0() -> None:
    for kind in IdentityType:
        state = told()
        state.see_identity(
            replace(principal("blue", "orders"), type=kind, resource_id=resource_id(3))
        )
        state.see_pod(named("web"))
        state.refresh()
        assert bool(ids(state)) == (kind is IdentityType.USER_ASSIGNED)


# Thousands of pods.


def with_eight_identities(pods: Iterable[Pod], *, turned: bool = False) -> Assignments:
    """Return the state of a cluster with eight identities bound to `app`."""
    made = Assignments(Rules(), asks=False)
    made.see_node("n1", SETS[0])
    bindings = [binding("blue", f"b{n}", f"orders-{n}", "app", weight=n) for n in range(8)]
    for each in bindings:
        made.see_identity(identity("blue", each.identity))
    for one in list(pods)[::-1] if turned else ():
        made.see_pod(one)
    for each in bindings[::-1] if turned else bindings:
        made.see_binding(each)
    for one in () if turned else pods:
        made.see_pod(one)
    made.refresh()
    return made


def test_how_many_bindings_of_a_pod_count_depends_on_the_pods_that_there_are_and_on_no_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podidentity.core.shares.MOST_OF_NAMESPACE", 8)
    monkeypatch.setattr("podidentity.core.shares.SHARES", (6, 4, 2, 1))
    pods: dict[str, Pod] = {}
    live = with_eight_identities([])
    counts = []
    for name, phase in (
        *((f"p{n}", Phase.RUNNING) for n in range(9)),
        ("p0", Phase.SUCCEEDED),
        ("p1", Phase.FAILED),
    ):
        pods[name] = named(name, phase=phase)
        live.see_pod(pods[name])
        shares = live.refresh().shares
        assert dict(live.records) == dict(with_eight_identities(pods.values()).records)
        assert dict(live.records) == dict(with_eight_identities(pods.values(), turned=True).records)
        running = sum(not each.ended for each in pods.values())
        counts.append(len(live.records) // running)
        assert len(live.records) == counts[-1] * running
        assert shares in ({}, {"blue": counts[-1]})
    assert counts == [6, 4, 2, 2, 1, 1, 1, 1, 1, 1, 1]
    for name in ("p2", "p3", "p4", "p5", "p6", "p7"):
        live.lose_pod(pods.pop(name).ref, f"uid-{name}")
    live.refresh()
    assert len(live.records) == 6
    assert {need.identity.ref.name for need in live.records.values()} == {
        f"orders-{n}" for n in range(2, 8)
    }


def test_pods_that_nothing_is_bound_to_and_those_that_need_nothing_take_no_binding_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podidentity.core.shares.MOST_OF_NAMESPACE", 8)
    monkeypatch.setattr("podidentity.core.shares.SHARES", (8, 1))
    state = with_eight_identities([named("p")])
    idle: list[dict[str, Any]] = [
        {"selector": "idle"},
        {"node": ""},
        {"phase": Phase.FAILED},
        {"host_network": True},
    ]
    for number in range(80):
        state.see_pod(named(f"idle-{number}", **idle[number % 4]))
    assert state.refresh().shares == {}
    assert len(state.records) == 8
    state.see_binding(binding("blue", "idle", "orders-0", "idle"))
    assert state.refresh().shares == {"blue": 1}
    assert len(state.records) == 1 + 20
    state.lose_binding(ObjectRef("blue", "idle"))
    state.refresh()
    assert len(state.records) == 8


def test_a_pod_that_is_moved_to_another_label_is_counted_by_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podidentity.core.shares.MOST_OF_NAMESPACE", 8)
    monkeypatch.setattr("podidentity.core.shares.SHARES", (8, 4))
    state = with_eight_identities([named("p"), named("q")])
    assert len(state.records) == 8
    state.see_pod(named("q", selector="idle"))
    state.refresh()
    assert len(state.records) == 8
    assert {need.pod.name for need in state.records.values()} == {"p"}


def test_a_share_that_takes_nothing_from_anybody_is_not_told_and_another_one_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podidentity.core.shares.MOST_OF_NAMESPACE", 8)
    monkeypatch.setattr("podidentity.core.shares.SHARES", (10, 8))
    state = with_eight_identities([])
    for number in range(3):
        state.see_pod(named(f"p{number}"))
        assert state.refresh().shares == {}
    state.see_binding(binding("blue", "b8", "orders-0", "app"))
    assert state.refresh().shares == {"blue": 8}
    state.see_pod(named("p3"))
    state.see_pod(named("idle", selector="idle"))
    state.see_binding(binding("blue", "idle", "orders-0", "idle"))
    assert state.refresh().shares == {}


def test_a_pod_that_goes_is_counted_no_more_and_its_neighbours_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podidentity.core.shares.MOST_OF_NAMESPACE", 8)
    monkeypatch.setattr("podidentity.core.shares.SHARES", (8, 4, 2))
    state = with_eight_identities([named("p"), named("q"), named("r")])
    assert len(state.records) == 3 * 2
    state.lose_pod(ObjectRef("blue", "r"), "uid-r")
    state.refresh()
    assert len(state.records) == 2 * 4


def test_where_all_hosts_get_what_is_bound_the_pods_to_come_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podidentity.core.shares.MOST_OF_NAMESPACE", 8)
    monkeypatch.setattr("podidentity.core.shares.SHARES", (8, 2))
    state = told(everywhere=True)
    for number in range(2, 5):
        state.see_identity(identity("blue", f"orders-{number}", number))
        state.see_binding(binding("blue", f"b{number}", f"orders-{number}", "app"))
    assert state.refresh().shares == {"blue": 2}
    assert len(ids(state)) == 2


@pytest.mark.parametrize("pods", [1, 2, 3])
def test_a_change_of_one_pod_among_many_decides_on_no_other(
    monkeypatch: pytest.MonkeyPatch, pods: int
) -> None:
    monkeypatch.setattr("podidentity.core.shares.MOST_OF_NAMESPACE", 8)
    monkeypatch.setattr("podidentity.core.shares.SHARES", (8, 4, 2))
    state = with_eight_identities([named(f"p{number}") for number in range(pods)])
    state.see_pod(named("p0", service_account="other"))
    assert list(state._dirty) == [ObjectRef("blue", "p0")]
