"""MIC does its work with the rights of its manifest, and needs each of them.

Its own parts ask the API server as its service account: with all rights nothing is refused, and
without one of them exactly what needs it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from podidentity import manifests
from podidentity.adapters.arm import ArmCalls
from podidentity.adapters.clock import SystemClock
from podidentity.cli.cluster_rights import Single
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
from tests.manifests.conftest import Served
from tests.manifests.rights import (
    CUSTOM,
    SHOP,
    SYSTEM,
    Program,
    in_namespace,
    of_roles,
    program,
)

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


@asynccontextmanager
async def opened(served: Served, without: Single | None) -> AsyncIterator[Program]:
    """Yield MIC with its rights, but for one, and an object of each kind that it watches."""
    async with program(served, ACCOUNT, manifests.mic(), without) as mic:
        await some(mic, "one")
        yield mic


async def some(mic: Program, name: str) -> None:
    """Make an object of each kind that MIC watches."""
    for plural, spec in SPECS.items():
        body = {"apiVersion": CUSTOM, "kind": KINDS[plural], "metadata": {"name": name}}
        await mic.make(f"{OURS}/{plural}", {**body, "spec": spec})
    bound = in_namespace("shop", name, labels={"aadpodidbinding": "orders"})
    await mic.make(f"{SHOP}/pods", bound)
    await mic.make("/api/v1/nodes", {"metadata": {"name": f"node-{name}"}})
    for each in (role(name), binding(name, Grantee("shop"), Giver.GRANT)):
        await mic.make(f"/apis/{each['apiVersion']}/{each['kind'].lower()}s", each)


async def work(mic: Program) -> None:
    """Do all that MIC does at the API server."""
    told: list[Event] = []
    watches = ControllerWatches(
        mic.kube, SystemClock(), namespace="kube-system", asks_permission=True
    )
    watches.follow(told.append)
    watching = asyncio.create_task(watches.run())
    await mic.until(lambda: watches.synced)
    before = len(told)
    await some(mic, "later")
    paused = {"metadata": {"name": "podidentity-mic-pauses"}, "data": {"all": "true"}}
    await mic.make(f"{SYSTEM}/configmaps", paused)
    await mic.until(lambda: len(told) >= before + 7)
    await lead(mic)
    await write(mic, watches)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def lead(mic: Program) -> None:
    """Become the leader, and renew the Lease."""
    election = Election(mic.kube, SystemClock(), me="mic-0", lock=LOCK, seconds=1)
    renewals: list[float] = []
    election.follow(renewals.append, lambda: None)
    leading = asyncio.create_task(election.run())

    def followed() -> bool:
        return len(renewals) > 1 and ("watch", LEASES) in mic.answered

    # Also where something else was refused.
    await mic.until(followed, LEASES, "endpoints")
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


async def write(mic: Program, watches: ControllerWatches) -> None:
    """Do each call at the API server."""
    neighbours = Neighbours(
        cast(ArmCalls, None),
        mic.kube,
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
    assert isinstance(found, StoredRecord) or mic.refused, found
    if isinstance(found, StoredRecord):
        await do(UpdateRecord(ref, record, found.uid, found.version, 0))
        await do(DeleteRecord(ref, found.uid))
    await do(ReadRecord(ref))
    ledger = Ledger(host=HOST)
    stored = await do(WriteLedger(ledger, ""))
    assert isinstance(stored, StoredLedger) or mic.refused, stored
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
OF_AN_EARLIER_MIC = [each for each in RIGHTS if (each.verb, each.resource) == ("patch", LEASES)]
NEEDED = [each for each in RIGHTS if each not in OF_AN_EARLIER_MIC]


async def test_nothing_that_mic_does_is_refused(served: Served) -> None:
    async with opened(served, None) as mic:
        await work(mic)
        assert mic.refused == set()


def test_an_earlier_mic_can_renew_the_lease_during_an_update() -> None:
    assert [each.verb for each in OF_AN_EARLIER_MIC] == ["patch"]


@pytest.mark.parametrize("right", NEEDED, ids=lambda one: f"{one.verb} {one.resource} {one.name}")
async def test_mic_needs_each_right_of_its_manifest(served: Served, right: Single) -> None:
    async with opened(served, right) as mic:
        await work(mic)
        assert mic.refused == {(right.verb, right.resource)}
