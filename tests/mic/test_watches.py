"""What the watches tell the controller, from an API server in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from podidentity.core.resources import Malformed, ObjectRef
from podidentity.mic.calls import (
    About,
    BindingSeen,
    Event,
    ExceptionSeen,
    IdentitySeen,
    NodeGone,
    NodeSeen,
    ObjectGone,
    Pausing,
    PermissionsChanged,
    PodGone,
    PodSeen,
    RecordGone,
    RecordSeen,
    Synced,
    Unclear,
)
from podidentity.mic.watches import ControllerWatches
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    NODES,
    PODS,
    KubeError,
    Page,
)
from podidentity.wire.kube import Event as WatchEvent
from podidentity.wire.manifests import FINALIZER
from podidentity.wire.rbac import Giver, Grantee, binding, role
from tests.fakes import CLIENT, RESOURCE_ID, FakeKubeApi, ImpatientClock

PROVIDER = (
    "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute"
    "/virtualMachineScaleSets/pool/virtualMachines/0"
)
PAUSED = CONFIG_MAPS.path("kube-system")


class Server(FakeKubeApi):
    """Lists what it has, and sends what a test puts to whoever watches."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.params: dict[str, Mapping[str, str]] = {}
        self.queues: dict[str, asyncio.Queue[WatchEvent | KubeError]] = {}
        self.version = 1
        self.asked: list[str] = []
        self._held: dict[str, asyncio.Event] = {}

    def hold(self, path: str) -> asyncio.Event:
        """Have no answer for lists until the event is set."""
        return self._held.setdefault(path, asyncio.Event())

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        self.params[path] = params or {}
        self.asked.append(path)
        if path in self._held:
            await self._held[path].wait()
        items = tuple(msgspec.Raw(json.dumps(each).encode()) for each in self.lists.get(path, ()))
        return Page(items=items, resource_version=str(self.version))

    async def watched(self, path: str, params: Mapping[str, str]) -> AsyncIterator[WatchEvent]:
        del params
        queue = self.queues.setdefault(path, asyncio.Queue())
        while True:
            found = await queue.get()
            if isinstance(found, KubeError):
                raise found
            yield found

    def send(self, path: str, kind: str, found: dict[str, Any]) -> None:
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        raw = msgspec.Raw(json.dumps(found).encode())
        self.queues[path].put_nowait(WatchEvent(type=kind, object=raw))

    def lose(self, path: str) -> None:
        """Lose the history of a watch: it must list anew."""
        self.queues[path].put_nowait(KubeError("too old", status=410, reason="Expired"))


def thing(name: str, namespace: str = "shop", /, **more: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "uid": f"u-{name}", **more.pop("metadata", {})}
    return {"metadata": meta, **more}


def node(provider_id: str = PROVIDER, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "n1"}, "spec": {"providerID": provider_id}, **more}


IDENTITY = {"type": 0, "clientID": CLIENT, "resourceID": RESOURCE_ID}
BINDING = {"azureIdentity": "orders", "selector": "orders"}


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


class Scene:
    def __init__(self, *, asks_permission: bool = True) -> None:
        self.server = Server()
        self.told: list[Event] = []
        self.watches = ControllerWatches(
            self.server,
            ImpatientClock(),
            namespace="kube-system",
            asks_permission=asks_permission,
        )
        self.watches.follow(self.told.append)

    def news(self) -> list[Event]:
        """Return what was told since the last time."""
        found, self.told[:] = list(self.told), []
        return found


@asynccontextmanager
async def running(**lists: list[dict[str, Any]]) -> AsyncIterator[Scene]:
    scene = Scene()
    paths = {each.plural: each.path() for each in (PODS, NODES, AZURE_IDENTITIES)}
    scene.server.lists = {paths[name]: found for name, found in lists.items()}
    task = asyncio.create_task(scene.watches.run())
    await settle()
    try:
        yield scene
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_first_lists_are_told_before_synced() -> None:
    async with running(pods=[thing("a")], nodes=[node()]) as scene:
        *first, last = scene.news()
        assert last == Synced()
        assert {type(each) for each in first} == {PodSeen, NodeSeen}
        assert scene.watches.synced
        assert scene.watches.problems() == []


async def test_only_pods_with_the_binding_label_are_watched_and_the_one_config_map() -> None:
    async with running() as scene:
        assert scene.server.params[PODS.path()] == {"labelSelector": "aadpodidbinding"}
        assert scene.server.params[PAUSED] == {
            "fieldSelector": "metadata.name=podidentity-mic-pauses"
        }


async def test_a_pod_that_goes_or_loses_its_label_is_told_with_its_uid() -> None:
    async with running(pods=[thing("a")]) as scene:
        scene.news()
        scene.server.send(PODS.path(), "DELETED", thing("a"))
        await settle()
        assert scene.news() == [PodGone(ObjectRef("shop", "a"), "u-a")]


async def test_another_pod_of_the_same_name_is_another_pod() -> None:
    async with running(pods=[thing("a")]) as scene:
        scene.news()
        scene.server.send(PODS.path(), "MODIFIED", thing("a", metadata={"uid": "other"}))
        await settle()
        gone, seen = scene.news()
        assert gone == PodGone(ObjectRef("shop", "a"), "u-a")
        assert isinstance(seen, PodSeen)
        assert seen.pod.uid == "other"


async def test_after_a_gap_what_has_gone_is_told() -> None:
    async with running(pods=[thing("a"), thing("b")]) as scene:
        scene.news()
        scene.server.lists[PODS.path()] = [thing("b")]
        scene.server.lose(PODS.path())
        await settle()
        assert PodGone(ObjectRef("shop", "a"), "u-a") in scene.news()


async def test_a_nodes_heartbeat_is_not_told() -> None:
    async with running(nodes=[node("")]) as scene:
        scene.news()
        scene.server.send(NODES.path(), "MODIFIED", node("", status={"conditions": []}))
        await settle()
        assert scene.news() == []
        scene.server.send(NODES.path(), "MODIFIED", node())
        await settle()
        assert scene.news() == [NodeSeen("n1", PROVIDER)]
        scene.server.send(NODES.path(), "DELETED", node())
        await settle()
        assert scene.news() == [NodeGone("n1")]


async def test_objects_are_told_with_their_revision_and_kept_for_the_copies() -> None:
    async with running(azureidentities=[thing("orders", spec=IDENTITY)]) as scene:
        (first,) = (each for each in scene.news() if isinstance(each, IdentitySeen))
        assert first.identity.ref == ObjectRef("shop", "orders")
        live = scene.watches.live(About.IDENTITY, ObjectRef("shop", "orders"))
        assert live is not None
        assert live.revision == first.revision
        changed = {**IDENTITY, "clientID": "rubbish"}
        scene.server.send(AZURE_IDENTITIES.path(), "MODIFIED", thing("orders", spec=changed))
        await settle()
        (second,) = scene.news()
        assert isinstance(second, IdentitySeen)
        assert isinstance(second.identity, Malformed)
        assert second.revision != first.revision
        live = scene.watches.live(About.IDENTITY, ObjectRef("shop", "orders"))
        assert (live and live.copy) == b""
        scene.server.send(AZURE_IDENTITIES.path(), "DELETED", thing("orders"))
        await settle()
        assert scene.news() == [ObjectGone(About.IDENTITY, ObjectRef("shop", "orders"))]
        assert scene.watches.live(About.IDENTITY, ObjectRef("shop", "orders")) is None


async def test_bindings_and_exceptions_are_told() -> None:
    async with running() as scene:
        scene.news()
        exceptions = AZURE_POD_IDENTITY_EXCEPTIONS.path()
        scene.server.send(exceptions, "ADDED", thing("e", spec={"podLabels": {"a": "b"}}))
        scene.server.send(AZURE_IDENTITY_BINDINGS.path(), "ADDED", thing("b", spec=BINDING))
        scene.server.send(AZURE_IDENTITY_BINDINGS.path(), "ADDED", thing("bad", spec=None))
        await settle()
        found = scene.news()
        assert {type(each) for each in found} == {BindingSeen, ExceptionSeen}
        assert len(found) == 3


async def test_records_are_told_those_too_that_cannot_be_read() -> None:
    async with running() as scene:
        scene.news()
        path, ref = AZURE_ASSIGNED_IDENTITIES.path(), ObjectRef("shop", "r")
        meta = {"finalizers": [FINALIZER, "example.com/keep"]}
        scene.server.send(path, "ADDED", thing("r", spec={"pod": 1}, metadata=meta))
        await settle()
        (seen,) = scene.news()
        assert isinstance(seen, RecordSeen)
        assert (seen.stored.record, seen.stored.odd.finalizer) == (None, 0)
        scene.server.send(path, "DELETED", thing("r"))
        await settle()
        assert scene.news() == [RecordGone(ref, "u-r")]


async def test_twenty_thousand_records_of_one_namespace_fit_into_its_budget() -> None:
    """In cross-namespace mode one namespace has the records of the cluster."""
    identity = thing("orders", "shop", spec=IDENTITY)
    binding = thing("orders-binding", "shop", spec=BINDING)
    scene, path = Scene(), AZURE_ASSIGNED_IDENTITIES.path()
    scene.server.lists[path] = [
        thing(
            f"orders-service-{each:05}-7d4b9c7f6d-x2x4z-shop-orders",
            "default",
            metadata={"labels": {"nodename": f"aks-nodepool1-12345678-vmss{each // 30:06}"}},
            spec={
                "pod": f"orders-service-{each:05}-7d4b9c7f6d-x2x4z",
                "podNamespace": "shop",
                "nodename": f"aks-nodepool1-12345678-vmss{each // 30:06}",
                "azureIdentityRef": identity,
                "azureBindingRef": binding,
            },
            status={"status": "Assigned"},
        )
        for each in range(20_000)
    ]
    read = asyncio.Event()

    def tell(event: Event) -> None:
        scene.told.append(event)
        if isinstance(event, Synced):
            read.set()

    scene.watches.follow(tell)
    task = asyncio.create_task(scene.watches.run())
    await read.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert sum(isinstance(event, RecordSeen) for event in scene.told) == 20_000
    assert not any(isinstance(event, Unclear) for event in scene.told)


async def test_the_operators_pause_is_told_and_its_end() -> None:
    async with running() as scene:
        scene.news()
        config_map = thing("podidentity-mic-pauses", "kube-system", data={"all": "true"})
        scene.server.send(PAUSED, "ADDED", config_map)
        await settle()
        assert scene.news() == [Pausing(everywhere=True)]
        one = "\n".join([PROVIDER.removeprefix("azure://").rpartition("/virtualMachines")[0], "/x"])
        scene.server.send(PAUSED, "MODIFIED", {**config_map, "data": {"hosts": one}})
        await settle()
        (pausing,) = scene.news()
        assert isinstance(pausing, Pausing)
        assert [each.name for each in pausing.hosts] == ["pool"]
        scene.server.send(PAUSED, "DELETED", config_map)
        await settle()
        assert scene.news() == [Pausing()]


async def test_a_grant_that_comes_or_goes_is_told_with_its_namespace() -> None:
    roles, bindings = CLUSTER_ROLES.path(), CLUSTER_ROLE_BINDINGS.path()
    async with running() as scene:
        scene.news()
        scene.server.send(roles, "ADDED", role(CLIENT))
        scene.server.send(bindings, "ADDED", binding(CLIENT, Grantee("shop"), Giver.GRANT))
        await settle()
        assert scene.news() == [PermissionsChanged("shop")]
        scene.server.send(bindings, "ADDED", binding(CLIENT, Grantee(""), Giver.GRANT))
        await settle()
        scene.server.send(roles, "DELETED", role(CLIENT))
        await settle()
        assert PermissionsChanged() in scene.news()


async def test_where_rbac_does_not_decide_it_is_not_watched() -> None:
    scene = Scene(asks_permission=False)
    assert not {"clusterroles", "clusterrolebindings"} & {
        each.what for each in scene.watches.followed()
    }


async def test_a_namespace_whose_objects_change_all_the_time_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as scene:
        for number in range(500):
            odd = thing("orders", spec={"clientID": f"x-{number}"})
            scene.server.send(AZURE_IDENTITIES.path(), "MODIFIED", odd)
        await settle()
        assert len(scene.news()) > 500
    assert 20 < len(caplog.records) < 50
