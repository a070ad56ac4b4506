from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf

import pytest

from podidentity.adapters.cluster import Custom, WatchedCluster
from podidentity.core.ports import Cluster
from podidentity.core.resources import (
    AzurePodIdentityException,
    ClientId,
    Malformed,
    ObjectRef,
    Phase,
    WorkloadIdentity,
)
from tests.fakes import ADDRESS, NOW, FakeClock, assigned, binding, cluster, identity, pod

CLIENT = ClientId.parse("00000000-0000-0000-0000-000000000001")
BAD = Malformed(ref=ObjectRef("shop", "bad"), kind="AzureIdentityBinding", why="x")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_pod_is_found_by_any_of_its_addresses(clock: FakeClock) -> None:
    dual = pod(addresses=(ADDRESS, "fd00::2"))
    known: Cluster = cluster(clock, dual)
    assert list(known.pods_at(ADDRESS)) == [dual] == list(known.pods_at("fd00::2"))
    assert not known.pods_at("10.244.0.3")


def test_a_pod_that_has_ended_is_not_found_though_its_address_stays_in_its_status(
    clock: FakeClock,
) -> None:
    known = cluster(clock, pod("old", phase=Phase.SUCCEEDED), pod("new"))
    assert [each.ref.name for each in known.pods_at(ADDRESS)] == ["new"]


def test_a_pod_whose_address_changes_is_found_by_the_new_one_only(clock: FakeClock) -> None:
    known = cluster(clock, pod())
    known.put_pod(pod(addresses=("10.244.0.9",)))
    assert not known.pods_at(ADDRESS)
    assert len(known.pods_at("10.244.0.9")) == 1


def test_what_is_removed_is_found_no_more(clock: FakeClock) -> None:
    known = cluster(clock, pod(), identity(), binding())
    known.put(BAD)
    known.remove_pod(ObjectRef("shop", "orders-0"))
    known.remove("AzureIdentity", ObjectRef("shop", "orders"))
    known.remove("AzureIdentityBinding", ObjectRef("shop", "orders-binding"))
    known.remove("AzureIdentityBinding", BAD.ref)
    known.remove_pod(ObjectRef("shop", "never-there"))
    assert not known.pods_at(ADDRESS)
    assert known.identity(ObjectRef("shop", "orders")) is None
    assert not known.bindings("shop", "orders")
    assert not known.malformed_bindings("shop", "")
    assert not [*known.pods(), *known.all_identities(), *known.all_bindings()]


def test_bindings_are_found_by_namespace_and_exact_selector(clock: FakeClock) -> None:
    here, there = binding(), binding("b", ref=ObjectRef("other", "b"))
    known = cluster(clock, here, there)
    assert list(known.bindings("shop", "orders")) == [here]
    assert not known.bindings("shop", "Orders")
    assert known.namespaces_with("orders") == ["other", "shop"]


def test_a_binding_that_becomes_malformed_selects_nobody(clock: FakeClock) -> None:
    known = cluster(clock, binding())
    bad = Malformed(ref=ObjectRef("shop", "orders-binding"), kind="AzureIdentityBinding", why="x")
    known.put(bad)
    assert not known.bindings("shop", "orders")
    assert list(known.malformed_bindings("shop", "")) == [bad]
    assert known.namespaces_with("orders") == []
    known.put(binding())
    assert list(known.bindings("shop", "orders")) == [binding()]
    assert not known.malformed_bindings("shop", "")


def test_a_malformed_binding_is_found_by_the_selector_that_it_says(clock: FakeClock) -> None:
    said = replace(BAD, ref=ObjectRef("shop", "said"), selector="orders")
    known = cluster(clock)
    known.put(BAD)
    known.put(said)
    assert list(known.malformed_bindings("shop", "orders")) == [said]
    assert list(known.malformed_bindings("shop", "")) == [BAD]
    assert not known.malformed_bindings("other", "orders")


def allocated(change: Callable[[], None]) -> int:
    """Return how many bytes more there are at most while something changes."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    change()
    return tracemalloc.get_traced_memory()[1] - before


@pytest.mark.parametrize("kind", ["bindings", "malformed bindings", "records"])
def test_of_thousands_of_objects_alike_each_change_costs_the_same(
    clock: FakeClock, kind: str
) -> None:
    """A tenant makes and deletes them, and the agents of all nodes are told of each.

    Should a change copy the others, these 20,000 would take twenty seconds of a processor, and a
    neighbour's pod wait. A copy is memory: 8 bytes for each of them.
    """

    def made(ref: ObjectRef) -> Custom:
        if kind == "records":
            return assigned(ref=ref)
        return binding(ref=ref, selector="app") if kind == "bindings" else replace(BAD, ref=ref)

    of_kind = "AzureAssignedIdentity" if kind == "records" else "AzureIdentityBinding"
    objects = [made(ObjectRef("shop", f"n-{number}")) for number in range(20_000)]
    known = cluster(clock)
    for each in objects:
        known.put(each)
    tracemalloc.start()
    try:
        costs = [
            cost
            for each in objects[:100]
            for cost in (
                allocated(partial(known.remove, of_kind, each.ref)),
                allocated(partial(known.put, each)),
            )
        ]
    finally:
        tracemalloc.stop()
    # A dict that is full grows at one of them.
    assert sorted(costs)[-10] < len(objects)


def test_a_pod_of_the_first_list_changed_when_it_started(clock: FakeClock) -> None:
    clock.advance(100)
    old, young = pod("old", started=NOW - 3600), pod("young", started=NOW + 98)
    known = cluster(clock, old, young, binding())
    assert known.changed_at(old) == 100 - 3700
    assert known.changed_at(young) == 98


@pytest.mark.parametrize("started", [0, NOW + 50], ids=["not known", "ahead of this clock"])
def test_a_pod_of_the_first_list_whose_start_says_nothing_has_just_changed(
    clock: FakeClock, started: float
) -> None:
    known = cluster(clock, pod(started=started))
    assert known.changed_at(pod()) == 0


def test_a_pod_that_appears_later_has_just_changed(clock: FakeClock) -> None:
    known = cluster(clock)
    clock.advance(5)
    known.put_pod(pod(started=NOW - 3600))
    assert known.changed_at(pod()) == 5


def test_a_change_of_the_label_counts_and_one_of_the_rest_does_not(clock: FakeClock) -> None:
    known = cluster(clock, pod(started=NOW - 50))
    clock.advance(5)
    known.put_pod(pod(started=NOW - 50, addresses=("10.244.0.9",)))
    assert known.changed_at(pod()) == -50
    known.put_pod(pod(started=NOW - 50, labels={"aadpodidbinding": "new"}))
    assert known.changed_at(pod()) == 5


def test_a_pod_of_the_same_name_is_another_pod(clock: FakeClock) -> None:
    known = cluster(clock, pod(started=NOW - 50))
    known.put(assigned())
    assert known.assigned_at(pod()) == 0
    clock.advance(5)
    later = pod(uid="another", started=NOW - 50)
    known.put_pod(later)
    assert known.changed_at(pod()) == 5
    assert known.assigned_at(later) == -inf
    assert (known.seen_at(later), known.seen_at(pod())) == (5, inf)


def test_when_a_pod_was_seen_first_is_known_until_it_goes(clock: FakeClock) -> None:
    known = cluster(clock, pod(started=NOW - 50))
    clock.advance(5)
    known.put_pod(pod(started=NOW - 50, addresses=()))
    assert known.seen_at(pod()) == 0
    known.remove_pod(pod().ref)
    assert known.seen_at(pod()) == inf


def test_a_pod_has_an_address_from_the_time_that_its_status_says_one(clock: FakeClock) -> None:
    known = cluster(clock, pod(addresses=()))
    assert not known.has_address(pod().uid)
    known.put_pod(pod())
    assert known.has_address(pod().uid)
    assert not known.has_address("nobody's")


def test_a_change_of_binding_or_identity_counts_for_the_pods_of_its_namespace(
    clock: FakeClock,
) -> None:
    neighbour = pod("n", ref=ObjectRef("other", "n"))
    known = cluster(clock, pod(started=NOW - 50), identity(), binding())
    assert known.changed_at(pod()) == -50
    assert known.changed_at(neighbour) == -inf
    clock.advance(5)
    known.put(identity())
    assert known.changed_at(pod()) == -50, "it is the same as before"
    known.remove("AzureIdentity", identity().ref)
    assert known.changed_at(pod()) == 5
    clock.advance(1)
    known.put(binding(weight=3))
    assert known.changed_at(pod()) == 6
    assert known.changed_at(neighbour) == -inf


def test_a_record_of_the_controller_counts_for_its_pod_alone(clock: FakeClock) -> None:
    neighbour = pod("n", started=NOW - 50)
    known = cluster(clock, pod(started=NOW - 50), neighbour, identity(), assigned("before"))
    assert known.assigned_at(pod()) == -inf, "it was there before this was"
    clock.advance(5)
    known.put(assigned(ref=ObjectRef("shop", "record")))
    assert (known.changed_at(pod()), known.changed_at(neighbour)) == (5, -50)
    known.put(assigned(ref=ObjectRef("shop", "record"), pod=ObjectRef("shop", "never-there")))
    assert known.changed_at(pod("never-there")) == -inf
    assert list(known.assigned(pod().ref)) == [assigned("before")]


def test_followers_are_told_the_kind_and_the_name_of_each_change(clock: FakeClock) -> None:
    known = cluster(clock)
    told: list[tuple[str, ObjectRef]] = []
    known.follow(lambda kind, ref: told.append((kind, ref)))
    ref = ObjectRef("shop", "it")
    objects: dict[str, Custom] = {
        "AzureIdentity": identity(ref=ref),
        "AzureIdentityBinding": binding(ref=ref),
        "AzurePodIdentityException": AzurePodIdentityException(ref=ref, pod_labels={"a": "b"}),
        "AzureAssignedIdentity": assigned(ref=ref),
        "ServiceAccount": WorkloadIdentity(ref=ref, client_id=CLIENT),
    }
    for kind, value in objects.items():
        before = known.revision
        known.put(value)
        known.put(Malformed(ref=ref, kind=kind, why="x"))
        known.remove(kind, ref)
        known.remove(kind, ref)
        assert known.revision > before
        assert told == [(kind, ref)] * 3
        told.clear()
    known.put_pod(pod("it"))
    known.remove_pod(ref)
    assert told == [("Pod", ref)] * 2


def test_each_object_is_found_as_what_it_is(clock: FakeClock) -> None:
    known = cluster(clock, pod())
    ref = ObjectRef("shop", "it")
    excepted = AzurePodIdentityException(ref=ref, pod_labels={"a": "b"})
    account = WorkloadIdentity(ref=ref, client_id=CLIENT)
    for each in (excepted, account, assigned(ref=ref)):
        known.put(each)
    assert list(known.exceptions("shop")) == [excepted]
    assert list(known.exceptions("other")) == []
    assert known.workload_identity(ref) == account
    assert list(known.assigned(pod().ref)) == [assigned(ref=ref)]
    for kind in ("AzurePodIdentityException", "ServiceAccount", "AzureAssignedIdentity"):
        known.put(Malformed(ref=ref, kind=kind, why="x"))
    assert not [*known.exceptions("shop"), *known.assigned(pod().ref)]
    assert known.workload_identity(ref) == Malformed(ref=ref, kind="ServiceAccount", why="x")


async def test_who_waits_is_woken_by_each_kind_of_change(clock: FakeClock) -> None:
    known = WatchedCluster(clock)
    changes = [
        lambda: known.put_pod(pod()),
        lambda: known.put(identity()),
        lambda: known.put(binding()),
        lambda: known.remove_pod(pod().ref),
        known.mark_synced,
    ]
    for change in changes:
        waiting = asyncio.ensure_future(known.changed())
        change()
        await waiting


async def test_a_change_before_the_wait_begins_to_run_is_not_missed(clock: FakeClock) -> None:
    known = cluster(clock)
    waiting = known.changed()
    known.put_pod(pod())
    await waiting


async def test_what_changes_nothing_wakes_nobody(clock: FakeClock) -> None:
    known = cluster(clock, pod(), identity(), binding())
    waiting = asyncio.ensure_future(known.changed())
    known.put_pod(pod())
    known.put(identity())
    known.put(binding())
    known.remove("AzureIdentityBinding", ObjectRef("shop", "never-there"))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


def test_lists_for_people_are_in_order(clock: FakeClock) -> None:
    known = cluster(clock, pod("b"), pod("a"), identity("z"), identity("y"), binding("d"))
    known.put(BAD)
    assert [each.ref.name for each in known.pods()] == ["a", "b"]
    assert [each.ref.name for each in known.all_identities()] == ["y", "z"]
    assert [each.ref.name for each in known.all_bindings()] == ["bad", "d"]
    assert known.pod_by_uid("uid-a") == pod("a")
    assert known.pod_by_uid("nobody") is None


async def test_namespaces_that_come_and_go_leave_nothing_behind() -> None:
    clock = FakeClock()
    watched = cluster(clock, pod())
    for number in range(1000):
        named = ObjectRef(f"n{number}", "orders")
        watched.put(identity(ref=named))
        watched.remove("AzureIdentity", named)
    watched.put(binding())
    assert list(watched._namespace_changed) == ["shop"]
    watched.put(assigned())
    watched.remove_pod(pod().ref)
    assert not watched._namespace_changed
    assert not {**watched._pod_seen, **watched._pod_changed, **watched._pod_assigned}


async def test_a_change_in_a_namespace_of_several_pods_counts_until_the_last_has_gone() -> None:
    clock = FakeClock()
    pods = [pod("a", addresses=()), pod("b")]
    watched = cluster(clock, *pods)
    clock.advance(5)
    watched.put(binding())
    watched.remove_pod(pods[0].ref)
    assert watched.changed_at(pods[1]) == 5
