from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from podidentity.adapters.cluster import WatchedCluster
from podidentity.core.resources import Assignment, Malformed, ObjectRef
from podidentity.lasting import STARTING
from podidentity.nmi.sync.watches import Scope, Watches
from podidentity.wire.kube import Event, KubeError, Page, parse_event, parse_list
from tests.fakes import ADDRESS, CLIENT, FakeKubeApi, ImpatientClock, binding, identity, pod

PODS = "/api/v1/pods"
IDENTITIES = "/apis/aadpodidentity.k8s.io/v1/azureidentities"
BINDINGS = "/apis/aadpodidentity.k8s.io/v1/azureidentitybindings"
EXCEPTIONS = "/apis/aadpodidentity.k8s.io/v1/azurepodidentityexceptions"
RECORDS = "/apis/aadpodidentity.k8s.io/v1/azureassignedidentities"
ACCOUNTS = "/api/v1/serviceaccounts"
WORKLOAD = "azure.workload.identity"


def meta(name: str) -> dict[str, str]:
    return {"namespace": "shop", "name": name}


POD = {
    "metadata": meta("orders-0") | {"uid": "u", "labels": {"aadpodidbinding": "orders"}},
    "spec": {"nodeName": "n1"},
    "status": {"podIP": ADDRESS, "phase": "Running"},
}
IDENTITY = {"metadata": meta("orders"), "spec": {"clientID": CLIENT}}
BINDING = {
    "metadata": meta("orders-binding"),
    "spec": {"azureIdentity": "orders", "selector": "orders"},
}


class FakeServer(FakeKubeApi):
    """Lists what it holds, and watches what the test says."""

    def __init__(self) -> None:
        self.held: dict[str, list[Any]] = {
            PODS: [POD],
            IDENTITIES: [IDENTITY],
            BINDINGS: [BINDING],
            EXCEPTIONS: [],
            RECORDS: [],
            ACCOUNTS: [],
        }
        self.events: dict[str, asyncio.Queue[dict[str, Any]]] = {
            path: asyncio.Queue() for path in self.held
        }
        self.params: dict[str, Mapping[str, str]] = {}
        self.refused: set[str] = set()
        self.refusals = 0
        self.refused_twice, self.refused_often = asyncio.Event(), asyncio.Event()

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        self.params[path] = params or {}
        if path in self.refused:
            self.refusals += 1
            if self.refusals > 1:
                self.refused_twice.set()
            if self.refusals > 20:
                self.refused_often.set()
            raise KubeError("no rights", status=403)
        body = {"metadata": {"resourceVersion": "1"}, "items": self.held[path]}
        return parse_list(json.dumps(body).encode())

    async def watched(self, path: str, params: Mapping[str, str]) -> AsyncIterator[Event]:
        del params
        while True:
            event = parse_event(json.dumps(await self.events[path].get()).encode())
            if event.type == "ERROR":
                raise KubeError("no more", status=500)
            yield event

    def say(self, path: str, kind: str, content: dict[str, Any]) -> None:
        self.events[path].put_nowait({"type": kind, "object": content})


class Setting:
    def __init__(self, **scope: Any) -> None:
        clock = ImpatientClock()
        self.server = FakeServer()
        self.cluster = WatchedCluster(clock)
        self.watches = Watches(
            self.server,
            self.cluster,
            clock,
            scope=Scope(node="n1", **scope),
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self.cluster.changed()


@asynccontextmanager
async def watched(*refused: str, **scope: bool) -> AsyncIterator[Setting]:
    setting = Setting(**scope)
    setting.server.refused = set(refused)
    running = asyncio.create_task(setting.watches.run())
    try:
        yield setting
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_cluster_is_synced_when_all_lists_have_been_read() -> None:
    async with watched() as setting:
        assert len(setting.watches.problems()) == 5
        await setting.until(lambda: setting.cluster.synced)
        assert setting.watches.problems() == []
        (pod,) = setting.cluster.pods_at(ADDRESS)
        assert pod.selector == "orders"
        assert setting.cluster.identity(identity().ref) == identity(resource_id=None)
        assert list(setting.cluster.bindings("shop", "orders")) == [binding()]


async def test_only_pods_of_this_node_are_watched() -> None:
    async with watched() as setting:
        await setting.until(lambda: setting.cluster.synced)
        assert setting.server.params[PODS] == {"fieldSelector": "spec.nodeName=n1"}


async def test_what_happens_reaches_the_cluster() -> None:
    async with watched() as setting:
        await setting.until(lambda: setting.cluster.synced)
        setting.server.say(BINDINGS, "DELETED", BINDING)
        await setting.until(lambda: not setting.cluster.bindings("shop", "orders"))
        setting.server.say(PODS, "DELETED", POD)
        await setting.until(lambda: not setting.cluster.pods_at(ADDRESS))


async def test_a_list_that_is_refused_is_said_and_holds_the_sync_back() -> None:
    async with watched(BINDINGS) as setting:
        await setting.until(lambda: bool(setting.cluster.identity(identity().ref)))
        await setting.server.refused_twice.wait()
        assert setting.watches.problems() == [f"azureidentitybindings not read yet: {STARTING}"]
        assert not setting.cluster.synced
        setting.server.refused.clear()
        await setting.until(lambda: setting.cluster.synced)


async def test_an_agent_that_cannot_watch_warns_of_the_age_of_what_it_knows() -> None:
    async with watched() as setting:
        await setting.until(lambda: setting.cluster.synced)
        assert setting.watches.warnings() == ()
        setting.server.refused.add(PODS)
        setting.server.say(PODS, "ERROR", {"code": 500})
        await setting.server.refused_often.wait()
        assert setting.watches.problems() == [], "it answers on what it knew"
        what, _, mend = setting.watches.warnings()[0].partition("; ")
    age = int(what.split(" s ago")[0].split()[-1])
    assert age > 30
    assert what == (
        f"NMI decides on what it knew {age} s ago, because it cannot watch pods of node n1 "
        "(no rights)"
    )
    assert mend.endswith("see that the API server answers NMI")


async def test_an_object_that_cannot_be_used_is_said_once_and_touches_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    bad = {"metadata": meta("bad"), "spec": {"clientID": "x"}}
    worse = {"metadata": meta("worse"), "spec": {"azureIdentity": "orders"}}
    async with watched() as setting:
        setting.server.held[IDENTITIES].append(bad)
        setting.server.held[BINDINGS].append(worse)
        await setting.until(lambda: setting.cluster.synced)
        setting.server.say(IDENTITIES, "MODIFIED", bad)
        setting.server.say(BINDINGS, "MODIFIED", worse)
        setting.server.say(PODS, "DELETED", POD)
        await setting.until(lambda: not setting.cluster.pods_at(ADDRESS))
        assert isinstance(setting.cluster.identity(identity("bad").ref), Malformed)
        assert setting.cluster.identity(identity().ref) == identity(resource_id=None)
        assert list(setting.cluster.bindings("shop", "orders")) == [binding()]
    said = sorted(record.getMessage() for record in caplog.records)
    assert said == [
        "AzureIdentity shop/bad cannot be used: spec.clientID must be a GUID, not 'x'",
        "AzureIdentityBinding shop/worse cannot be used: spec.selector is missing",
    ]


async def test_a_namespace_whose_objects_change_all_the_time_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else a tenant drives the lines about others out of the logs of all nodes."""
    caplog.set_level(logging.WARNING)
    others = {"metadata": meta("bad") | {"namespace": "bank"}, "spec": {}}
    async with watched() as setting:
        await setting.until(lambda: setting.cluster.synced)
        for number in range(500):
            spec = {"clientID": f"x-{number}"}
            setting.server.say(IDENTITIES, "MODIFIED", {"metadata": meta("bad"), "spec": spec})
            unread = {"metadata": {**meta("odd"), "annotations": number}}
            setting.server.say(IDENTITIES, "MODIFIED", unread)
        setting.server.say(IDENTITIES, "ADDED", others)
        await setting.until(lambda: setting.cluster.identity(ObjectRef("bank", "bad")) is not None)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) < 50
    assert "AzureIdentity bank/bad cannot be used: spec.clientID is missing" in said
    assert any("namespace shop" in each for each in said)


async def test_the_controllers_records_are_watched_in_standard_mode_only() -> None:
    async with watched() as setting:
        await setting.until(lambda: setting.cluster.synced)
        assert RECORDS not in setting.server.params


@pytest.mark.parametrize(
    ("labelled", "params"), [(True, {"labelSelector": "nodename=n1"}), (False, {})]
)
async def test_records_are_read_by_their_label_and_reach_the_cluster(
    labelled: bool, params: dict[str, str]
) -> None:
    spec = {
        "pod": "orders-0",
        "podNamespace": "shop",
        "nodename": "n1",
        "azureIdentityRef": {"metadata": meta("orders")},
    }
    made = {"metadata": meta("r") | {"namespace": "default"}, "spec": spec}
    async with watched(records=True, labelled=labelled) as setting:
        await setting.until(lambda: setting.cluster.synced)
        assert setting.server.params[RECORDS] == params
        setting.server.say(RECORDS, "ADDED", made | {"status": {"status": "Created"}})
        await setting.until(lambda: bool(setting.cluster.assigned(pod().ref)))
        [found] = setting.cluster.assigned(pod().ref)
        assert found.state is Assignment.CREATED
        setting.server.say(RECORDS, "DELETED", made)
        await setting.until(lambda: not setting.cluster.assigned(pod().ref))


async def test_a_service_account_counts_while_it_is_annotated() -> None:
    bare = {"metadata": meta("web")}
    annotated = {"metadata": meta("web") | {"annotations": {f"{WORKLOAD}/client-id": CLIENT}}}
    ref = ObjectRef("shop", "web")
    async with watched() as setting:
        await setting.until(lambda: setting.cluster.synced)
        setting.server.say(ACCOUNTS, "ADDED", annotated)
        await setting.until(lambda: bool(setting.cluster.workload_identity(ref)))
        setting.server.say(ACCOUNTS, "MODIFIED", bare)
        await setting.until(lambda: setting.cluster.workload_identity(ref) is None)


async def test_an_exception_reaches_the_cluster_and_leaves_it_when_it_is_deleted() -> None:
    made = {"metadata": meta("e") | {"uid": "u"}, "spec": {"podLabels": {"tier": "web"}}}
    async with watched() as setting:
        await setting.until(lambda: setting.cluster.synced)
        setting.server.say(EXCEPTIONS, "ADDED", made)
        await setting.until(lambda: bool(setting.cluster.exceptions("shop")))
        setting.server.say(EXCEPTIONS, "DELETED", made)
        await setting.until(lambda: not setting.cluster.exceptions("shop"))
