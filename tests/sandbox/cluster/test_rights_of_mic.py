"""MIC does its work with the rights of its manifest, and needs each of them.

Its own parts ask the API server as its service account: with all rights nothing is refused, and
without one of them exactly what needs it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
import pytest

from podidentity import manifests
from podidentity.adapters.arm import ArmCalls
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.kube import Kube
from podidentity.cli.cluster_rights import Single
from podidentity.cli.rights import roles
from podidentity.core.decision import Use
from podidentity.core.hosts import Host
from podidentity.core.ledger import Ledger
from podidentity.core.resources import Assignment, ObjectRef
from podidentity.mic.calls import (
    WRITES,
    About,
    Action,
    AskPermission,
    Condition,
    CreateRecord,
    DeleteRecord,
    Event,
    ListLedgers,
    ListUse,
    ReadLedger,
    ReadRecord,
    Record,
    Result,
    StoredLedger,
    StoredRecord,
    TellEvent,
    UpdateRecord,
    WriteCondition,
    WriteLedger,
)
from podidentity.mic.election import Election
from podidentity.mic.neighbours import Neighbours
from podidentity.mic.watches import ControllerWatches
from podidentity.wire.rbac import Giver, Grantee, binding, role
from tests.fakes import CLIENT
from tests.sandbox.cluster.conftest import Served, pod
from tests.sandbox.cluster.test_rights_of_nmi import CUSTOM, SHOP, SYSTEM, asked, of_roles

ACCOUNT = "podidentity-mic"
LOCK = ObjectRef("default", "aad-pod-identity-mic")
LEASES = "leases.coordination.k8s.io"
OURS = f"/apis/{CUSTOM}/namespaces/shop"
HOST = Host.parse(
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool"
)
SPECS: dict[str, Any] = {
    "azureidentities": {"type": 0, "clientID": CLIENT},
    "azureidentitybindings": {"azureIdentity": "one", "selector": "orders"},
    "azurepodidentityexceptions": {"podLabels": {"app": "exempt"}},
}
KINDS = {
    "azureidentities": "AzureIdentity",
    "azureidentitybindings": "AzureIdentityBinding",
    "azurepodidentityexceptions": "AzurePodIdentityException",
}


@dataclass
class Place:
    """An API server, and MIC's client of it."""

    admin: httpx2.AsyncClient
    kube: Kube
    answered: set[tuple[str, str]] = field(default_factory=set)
    """Verbs and resources that MIC was answered about."""
    refused: set[tuple[str, str]] = field(default_factory=set)

    async def make(self, path: str, body: Any) -> Any:
        answer = await self.admin.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def until(self, holds: Any, *resources: str) -> None:
        """Return when something holds, or MIC was refused anything, or anything of these."""

        def refused() -> bool:
            return any(not resources or each in resources for _, each in self.refused)

        async with asyncio.timeout(60):
            while not (holds() or refused()):  # noqa: ASYNC110 - nothing tells of both
                await asyncio.sleep(0.01)


def is_same(one: Single, other: Single) -> bool:
    return (one.resource, one.verb, one.name) == (other.resource, other.verb, other.name)


async def put(place: Place, manifest: Any, without: Single | None) -> None:
    """Make a role or a binding."""
    if manifest["kind"] not in {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}:
        return
    if without and "rules" in manifest:
        left = [each for each in of_roles([manifest]) if not is_same(each, without)]
        rules = [rule for each in roles(left, "x") for rule in each["rules"]]
        manifest = {**manifest, "rules": rules}
    namespace = manifest["metadata"].get("namespace")
    where = f"/namespaces/{namespace}" if namespace else ""
    await place.make(f"/apis/{manifest['apiVersion']}{where}/{manifest['kind'].lower()}s", manifest)


@asynccontextmanager
async def opened(served: Served, without: Single | None) -> AsyncIterator[Place]:
    """Yield a cluster with an object of each kind, and MIC with its rights, but for one."""
    async with served.client() as admin:
        place = Place(admin, Kube(admin))
        for crd in manifests.crds():
            await place.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        await place.make("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        await place.make("/api/v1/nodes", {"metadata": {"name": "node-0"}})
        await admin.post(f"{SYSTEM}/serviceaccounts", json={"metadata": {"name": ACCOUNT}})
        await admin.post(f"{SHOP}/serviceaccounts", json={"metadata": {"name": "default"}})
        for each in manifests.mic():
            await put(place, each, without)
        await some(place, "one")
        client = served.client(await token_of_mic(place), of_program=True)

        async def note(response: httpx2.Response) -> None:
            place.answered.add(wanted(response.request))
            if response.status_code == httpx2.codes.FORBIDDEN:
                place.refused.add(wanted(response.request))

        client.event_hooks = {"response": [note]}
        place.kube = Kube(client, patience=0)
        try:
            yield place
        finally:
            await place.kube.close()


def wanted(request: httpx2.Request) -> tuple[str, str]:
    """Return verb and resource of a request."""
    method = "WATCH" if "watch" in request.url.params else request.method
    verb, resource = asked(method, request.url.path)
    return ("delete" if method == "DELETE" else verb), resource


async def some(place: Place, name: str) -> None:
    """Make an object of each kind that MIC watches."""
    for plural, spec in SPECS.items():
        body = {"apiVersion": CUSTOM, "kind": KINDS[plural], "metadata": {"name": name}}
        await place.make(f"{OURS}/{plural}", {**body, "spec": spec})
    bound = pod(name, nodeName="node-0", serviceAccountName="default")
    labels = {"aadpodidbinding": "orders"}
    metadata = {**bound["metadata"], "namespace": "shop", "labels": labels}
    await place.make(f"{SHOP}/pods", {**bound, "metadata": metadata})
    await place.make("/api/v1/nodes", {"metadata": {"name": f"node-{name}"}})
    for each in (role(name), binding(name, Grantee("shop"), Giver.GRANT)):
        await place.make(f"/apis/{each['apiVersion']}/{each['kind'].lower()}s", each)


async def token_of_mic(place: Place) -> str:
    mine = pod("mic-0", nodeName="node-0", serviceAccountName=ACCOUNT)
    mine = {**mine, "metadata": {**mine["metadata"], "namespace": "kube-system"}}
    uid = (await place.make(f"{SYSTEM}/pods", mine))["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "mic-0", "uid": uid}
    path = f"{SYSTEM}/serviceaccounts/{ACCOUNT}/token"
    made = await place.make(path, {"spec": {"boundObjectRef": reference}})
    return str(made["status"]["token"])


async def work(place: Place) -> None:
    """Do all that MIC does at the API server."""
    told: list[Event] = []
    watches = ControllerWatches(
        place.kube, SystemClock(), namespace="kube-system", asks_permission=True
    )
    watches.follow(told.append)
    watching = asyncio.create_task(watches.run())
    await place.until(lambda: watches.synced)
    before = len(told)
    await some(place, "later")
    paused = {"metadata": {"name": "podidentity-mic-pauses"}, "data": {"all": "true"}}
    await place.make(f"{SYSTEM}/configmaps", paused)
    await place.until(lambda: len(told) >= before + 7)
    await lead(place)
    await write(place, watches)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def lead(place: Place) -> None:
    """Become the leader, and renew the Lease."""
    election = Election(place.kube, SystemClock(), me="mic-0", lock=LOCK, seconds=1)
    renewals: list[float] = []
    election.follow(renewals.append, lambda: None)
    leading = asyncio.create_task(election.run())

    def followed() -> bool:
        return len(renewals) > 1 and ("watch", LEASES) in place.answered

    # Also where something else was refused.
    await place.until(followed, LEASES, "endpoints")
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


async def write(place: Place, watches: ControllerWatches) -> None:
    """Do each call at the API server."""
    neighbours = Neighbours(
        cast(ArmCalls, None),
        place.kube,
        watches,
        SystemClock(),
        namespace="kube-system",
        me="mic-0",
        may_write=lambda: None,
    )

    async def do(action: Action) -> Result:
        return await neighbours.do(action, writes=isinstance(action, WRITES))

    identity, ref = ObjectRef("shop", "one"), ObjectRef("shop", "r")
    record = Record(
        ref=ref,
        pod=identity,
        identity=identity,
        binding=identity,
        node="node-0",
        state=Assignment.CREATED,
        identity_revision="",
        binding_revision="",
    )
    found = await do(CreateRecord(record, 0))
    if isinstance(found, StoredRecord):
        await do(UpdateRecord(ref, record, found.uid, found.version, 0))
        await do(DeleteRecord(ref, found.uid))
    await do(ReadRecord(ref))
    ledger = Ledger(host=HOST)
    stored = await do(WriteLedger(ledger, ""))
    if isinstance(stored, StoredLedger):
        changed = await do(WriteLedger(ledger, stored.version))
        version = changed.version if isinstance(changed, StoredLedger) else stored.version
        await do(WriteLedger(ledger, version, gone=True))
    await do(ReadLedger(HOST))
    await do(ListLedgers())
    for about in About:
        await do(WriteCondition(about, identity, Condition(holds=True, reason="R", message="m")))
    await do(TellEvent(About.BINDING, identity, "Normal", "binding applied", "note"))
    await do(AskPermission(Use(ObjectRef("shop", "default"), CLIENT)))
    await do(ListUse())


RIGHTS: Sequence[Single] = of_roles(manifests.mic())


async def test_nothing_that_mic_does_is_refused(served: Served) -> None:
    async with opened(served, None) as place:
        await work(place)
        assert place.refused == set()


@pytest.mark.parametrize("right", RIGHTS, ids=lambda one: f"{one.verb} {one.resource} {one.name}")
async def test_mic_needs_each_right_of_its_manifest(served: Served, right: Single) -> None:
    async with opened(served, right) as place:
        await work(place)
        assert place.refused == {(right.verb, right.resource)}
