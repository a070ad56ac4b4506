"""Objects that are left out for a budget are unknown: MIC deletes and detaches nothing for them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from podidentity.core.resources import (
    Assignment,
    AzureIdentity,
    AzureIdentityBinding,
    Malformed,
    ObjectRef,
)
from podidentity.mic.calls import (
    LISTS,
    About,
    DeleteRecord,
    Event,
    IdentitySeen,
    ObjectGone,
    PodGone,
    PodSeen,
    RecordSeen,
    Unclear,
    UpdateRecord,
)
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    PODS,
)
from podidentity.wire.kube import Event as WatchEvent
from podidentity.wire.manifests import parse_binding, parse_identity
from tests.fakes import CLIENT, RESOURCE_ID
from tests.mic.test_watches import running, settle, thing
from tests.mic.timed_world import TimedWorld, of_set

REF = ObjectRef("blue", "identity-0")


def with_a_pod() -> TimedWorld:
    world = TimedWorld(grace=20.0)
    world.node("n1", of_set(1))
    world.pod("web", "n1")
    world.run(100.0)
    assert world.when("web") < 100.0
    return world


def leave_out(world: TimedWorld, event: Event, kind: str) -> None:
    """Have MIC's watches leave an object out, while a fresh list still has it."""
    world.tell(Unclear("blue", kind, holds=True))
    world.tell(event)


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("AzureIdentityBinding", ObjectGone(About.BINDING, REF)),
        ("AzureIdentity", ObjectGone(About.IDENTITY, REF)),
    ],
)
def test_nothing_is_deleted_or_detached_for_an_object_that_is_left_out(
    kind: str, event: Event
) -> None:
    world = with_a_pod()
    leave_out(world, event, kind)
    world.run(1000.0)
    assert world.calls[DeleteRecord] == 0
    assert not world.detached


def test_the_record_of_a_pod_that_is_left_out_stays() -> None:
    world = with_a_pod()
    pod = next(iter(world.pods.values()))
    leave_out(world, PodGone(pod.ref, pod.uid), "Pod")
    world.run(1000.0)
    assert world.calls[DeleteRecord] == 0
    assert not world.detached


def test_a_record_that_no_pod_needs_goes_when_nothing_is_left_out_any_more() -> None:
    world = with_a_pod()
    world.tell(Unclear("blue", "Pod", holds=True))
    world.gone("web")
    world.run(200.0)
    assert world.calls[DeleteRecord] == 0
    world.tell(Unclear("blue", "Pod", holds=False))
    world.run(300.0)
    assert world.calls[DeleteRecord] == 1


def test_the_binding_of_an_identity_that_is_left_out_does_not_say_that_it_is_missing() -> None:
    world = with_a_pod()
    leave_out(world, ObjectGone(About.IDENTITY, REF), "AzureIdentity")
    world.run(200.0)
    said = world.conditions[About.BINDING, REF]
    assert said.reason == "IdentityNotReady"
    assert "is not read, if it exists: its namespace has more than 4 MiB" in said.message
    world.tell(Unclear("blue", "AzureIdentity", holds=False))
    world.run(300.0)
    assert world.conditions[About.BINDING, REF].reason == "NoIdentity"


def test_nothing_is_deleted_or_detached_while_lists_are_read_anew_and_pods_are_served() -> None:
    world = with_a_pod()
    world.tell(Unclear("", LISTS, holds=True))
    world.gone("web")
    world.bind(1)
    world.pod("new", "n1", identity=1)
    world.run(1000.0)
    assert world.when("new") < 200.0
    assert world.calls[DeleteRecord] == 0
    assert not world.detached
    world.tell(Unclear("", LISTS, holds=False))
    world.run(1001.0)
    assert world.calls[DeleteRecord] == 1
    world.run(1100.0)
    assert world.detached


def test_a_record_of_before_is_taken_from_an_api_server_that_was_put_back() -> None:
    """Its version is smaller there, and it may say less than MIC has written since."""
    world = with_a_pod()
    (record,) = world.records.values()
    world.tell(Unclear("", LISTS, holds=True))
    assert record.record is not None
    created = replace(record.record, state=Assignment.CREATED)
    world.tell(RecordSeen(replace(record, version="0", record=created)))
    world.tell(Unclear("", LISTS, holds=False))
    world.run(110.0)
    assert world.calls[UpdateRecord] == 2


async def test_after_one_list_was_in_doubt_all_are_read_anew_before_anything_is_certain() -> None:
    async with running(azureidentities=[identity()]) as scene:
        scene.news()
        scene.server.asked.clear()
        held = scene.server.hold(PODS.path())
        scene.server.lose(AZURE_IDENTITIES.path())
        await settle()
        assert scene.news()[0] == Unclear("", LISTS, holds=True)
        certain = [scene.watches.certain]
        assert {*scene.server.asked} >= {
            PODS.path(),
            AZURE_IDENTITIES.path(),
            AZURE_IDENTITY_BINDINGS.path(),
            AZURE_ASSIGNED_IDENTITIES.path(),
        }
        assert Unclear("", LISTS, holds=False) not in scene.news()
        held.set()
        await settle()
        assert [*certain, scene.watches.certain] == [False, True]
        assert scene.news()[-1] == Unclear("", LISTS, holds=False)
        assert len(scene.server.asked) == len({*scene.server.asked})


def test_another_namespace_is_not_kept_from_anything() -> None:
    world = with_a_pod()
    world.tell(Unclear("red", "Pod", holds=True))
    world.gone("web")
    world.run(200.0)
    assert world.calls[DeleteRecord] == 1


def identity(**spec: Any) -> dict[str, Any]:
    return thing("orders", spec={"type": 0, "clientID": CLIENT, "resourceID": RESOURCE_ID, **spec})


async def test_an_object_that_is_too_large_makes_its_namespace_unclear_until_it_is_small() -> None:
    path = AZURE_IDENTITIES.path()
    async with running(azureidentities=[identity(odd="x" * 70_000)]) as scene:
        told = scene.news()
        unclear = Unclear("shop", "AzureIdentity orders", holds=True)
        seen = next(each for each in told if isinstance(each, IdentitySeen))
        assert isinstance(seen.identity, Malformed)
        assert told.index(unclear) < told.index(seen)
        scene.server.send(path, "MODIFIED", identity())
        await settle()
        assert Unclear("shop", "AzureIdentity orders", holds=False) in scene.news()


async def test_a_namespace_over_its_budget_is_unclear_before_its_youngest_pods_go() -> None:
    labels = {f"{each:02}{'a' * 100}": "b" * 60 for each in range(40)}
    labels["aadpodidbinding"] = "orders"

    def pod(name: str, created: str) -> dict[str, Any]:
        return thing(name, metadata={"labels": labels, "creationTimestamp": created})

    pods = [
        pod(f"p{each}", f"2026-01-01T00:{each // 60:02}:{each % 60:02}Z") for each in range(2_500)
    ]
    async with running(pods=pods) as scene:
        while not scene.watches.synced:
            await settle()
        told = scene.news()
        left = [each for each in told if isinstance(each, PodSeen)]
        gone = [each for each in told if isinstance(each, PodGone)]
        assert Unclear("shop", "Pod", holds=True) in told
        assert told.index(Unclear("shop", "Pod", holds=True)) < told.index(gone[0])
        assert len(left) - len(gone) == pytest.approx(1_700, abs=200)
        scene.server.send(PODS.path(), "ADDED", pod("late", "2026-02-01T00:00:00Z"))
        await settle()
        assert scene.news() == []


def test_of_an_object_of_any_size_the_fields_that_decide_are_read_before_a_detach() -> None:
    large = json.dumps(identity(odd="x" * 70_000, more={"a": [1]})).encode()
    assert isinstance(parse_identity(large), Malformed)
    assert isinstance(parse_identity(large, any_size=True), AzureIdentity)
    found = thing("b", spec={"AzureIdentity": "orders", "selector": "a", "odd": "x" * 70_000})
    raw = msgspec.Raw(json.dumps(found).encode())
    assert isinstance(parse_binding(raw, any_size=True), AzureIdentityBinding)


DEEP = "[" * 9_000 + "]" * 9_000


@pytest.mark.parametrize("where", ["spec", "status"])
async def test_an_identity_that_is_nested_too_deeply_is_there_and_says_why_it_is_not_read(
    where: str,
) -> None:
    path = AZURE_IDENTITIES.path()
    async with running(azureidentities=[identity()]) as scene:
        scene.news()
        changed = identity() | {"metadata": identity()["metadata"] | {"resourceVersion": "2"}}
        text = json.dumps(changed)
        if where == "spec":
            text = text.replace('"type": 0', f'"type": 0, "odd": {DEEP}')
        else:
            text = f'{text[:-1]}, "status": {DEEP}}}'
        raw = msgspec.Raw(text.encode())
        scene.server.queues[path].put_nowait(WatchEvent(type="MODIFIED", object=raw))
        await settle()
        (seen,) = scene.news()
        assert isinstance(seen, IdentitySeen)
        assert isinstance(seen.identity, Malformed) is (where == "spec")
        live = scene.watches.live(About.IDENTITY, ObjectRef("shop", "orders"))
        assert live is not None
        assert live.place == ("/status" if where == "spec" else "")
