"""What AKS does in its cluster and to its machines when the pod identity add-on changes.

https://learn.microsoft.com/azure/aks/use-azure-ad-pod-identity
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.azure.aks.provider import Provider
from podidentity_sandbox.azure.state import ScaleSet, UserAssignedIdentity
from tests.sandbox.azure.managed import Managed, managed_cluster

OPERATOR = "Managed Identity Operator"


@pytest.fixture
async def aks(folder: Path) -> AsyncIterator[Managed]:
    async with managed_cluster(folder) as aks:
        yield aks


def pod_identity(identity: UserAssignedIdentity, **change: Any) -> dict[str, Any]:
    ids = {
        "resourceId": identity.id,
        "clientId": identity.client_id,
        "objectId": identity.principal_id,
    }
    return {"name": identity.name, "namespace": "shop", "identity": ids, **change}


def enabled(*identities: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {"enabled": True, "userAssignedIdentities": list(identities), **change}


def closed(aks: Managed, name: str) -> UserAssignedIdentity:
    """Make an identity where the cluster has no role: not in its node group."""
    return aks.direct.identity(name, group=aks.direct.plan.cluster_group)


def usable(aks: Managed, name: str) -> UserAssignedIdentity:
    """Make an identity that the cluster may assign."""
    identity = closed(aks, name)
    cluster = aks.document()["identity"]["principalId"]
    aks.direct.grant(OPERATOR, cluster, identity.id)
    return identity


async def test_enabling_brings_the_custom_resources_nmi_and_the_exception(aks: Managed) -> None:
    ended = await aks.ordered(enabled())
    assert ended["status"] == "Succeeded"
    assert aks.document()["properties"]["provisioningState"] == "Succeeded"
    assert aks.document()["properties"]["podIdentityProfile"] == {"enabled": True}
    (nmi,) = aks.cluster.storage.all("daemonsets.apps")
    assert (nmi.namespace, nmi.name) == ("kube-system", "nmi")
    mark = {"kubernetes.azure.com/managedby": "aks"}
    assert mark.items() <= nmi.object["metadata"]["labels"].items()
    exceptions = aks.found("azurepodidentityexceptions")
    assert exceptions == {"kube-system/aks-addon-exception": {"podLabels": mark}}


async def test_enabling_twice_changes_nothing(aks: Managed) -> None:
    await aks.ordered(enabled())
    before = [
        r.object["metadata"]["generation"] for r in aks.cluster.storage.all("daemonsets.apps")
    ]
    assert (await aks.ordered(enabled()))["status"] == "Succeeded"
    after = [r.object["metadata"]["generation"] for r in aks.cluster.storage.all("daemonsets.apps")]
    assert after == before


async def test_it_has_ended_only_when_nmi_is_ready_on_every_node(aks: Managed) -> None:
    cluster = aks.cluster
    ready = [{"type": "Ready", "status": "True"}]
    node = {"metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}}}
    kind = cluster.registry.by_key("nodes")
    cluster.resources.create(kind, "", {**node, "status": {"conditions": ready}})
    where = aks.order(enabled())
    work = asyncio.create_task(aks.provider.carry_out(aks.direct.world.orders.get_nowait()))
    async with aks.kubernetes() as api:
        await api.until("/api/v1/pods", {}, lambda found: any(map(placed, found.values())))
    pods = cluster.registry.by_key("pods")
    made = list(cluster.storage.all("pods"))
    assert aks.direct.made("GET", where)["status"] == "InProgress"
    body = made[0].thaw() | {"status": {"phase": "Running", "conditions": ready}}
    cluster.resources.update(pods, made[0], body, subresource="status")
    await asyncio.wait_for(work, 10)
    assert aks.direct.made("GET", where)["status"] == "Succeeded"


def placed(pod: dict[str, Any]) -> bool:
    return "nodeName" in pod["spec"]


async def test_a_pod_identity_is_on_the_machines_and_in_the_cluster(aks: Managed) -> None:
    mine = usable(aks, "mine")
    await aks.ordered(enabled(pod_identity(mine)))
    assert aks.states() == {"mine": "Assigned"}
    assert aks.on_machines() == ["aks-experimental-agentpool", "mine"]
    spec = {"type": 0, "resourceID": mine.id, "clientID": mine.client_id}
    assert aks.found("azureidentities") == {"shop/mine": spec}
    bound = {"azureIdentity": "mine", "selector": "mine"}
    assert aks.found("azureidentitybindings") == {"shop/mine-binding": bound}
    assert aks.cluster.storage.get("namespaces", "", "shop") is not None


async def test_the_namespace_may_use_its_pod_identity_while_it_is_there(aks: Managed) -> None:
    mine, other = usable(aks, "mine"), usable(aks, "other")
    await aks.ordered(enabled(pod_identity(mine), pod_identity(other, namespace="bank")))
    assert aks.permitted() == {
        "aks-pod-identity:shop:mine": ("system:serviceaccounts:shop", mine.client_id),
        "aks-pod-identity:bank:other": ("system:serviceaccounts:bank", other.client_id),
    }
    await aks.ordered(enabled(pod_identity(other, namespace="bank")))
    assert list(aks.permitted()) == ["aks-pod-identity:bank:other"]
    await aks.ordered({"enabled": False})
    assert aks.permitted() == {}


async def test_a_binding_has_the_selector_that_was_asked_for(aks: Managed) -> None:
    mine = usable(aks, "mine")
    await aks.ordered(enabled(pod_identity(mine, bindingSelector="green")))
    assert aks.found("azureidentitybindings")["shop/mine-binding"]["selector"] == "green"


async def test_what_is_deleted_goes_from_the_cluster_and_the_machines(aks: Managed) -> None:
    mine, other = usable(aks, "mine"), usable(aks, "other")
    await aks.ordered(enabled(pod_identity(mine), pod_identity(other)))
    aks.order(enabled(pod_identity(other)))
    assert aks.states() == {"other": "Assigned", "mine": "Deleting"}
    await aks.provider.carry_out(aks.direct.world.orders.get_nowait())
    assert aks.states() == {"other": "Assigned"}
    assert list(aks.found("azureidentities")) == ["shop/other"]
    assert list(aks.found("azureidentitybindings")) == ["shop/other-binding"]
    assert aks.on_machines() == ["aks-experimental-agentpool", "other"]


async def test_an_identity_that_two_pod_identities_share_stays_while_one_is_left(
    aks: Managed,
) -> None:
    mine = usable(aks, "mine")
    first, second = pod_identity(mine), pod_identity(mine, name="second", namespace="bank")
    await aks.ordered(enabled(first, second))
    await aks.ordered(enabled(second))
    assert aks.on_machines() == ["aks-experimental-agentpool", "mine"]
    assert list(aks.found("azureidentities")) == ["bank/second"]


async def test_what_somebody_else_gave_the_machines_is_not_taken_away(aks: Managed) -> None:
    theirs = usable(aks, "theirs")
    aks.direct.attach(theirs)
    await aks.ordered(enabled(pod_identity(theirs)))
    await aks.ordered(enabled())
    assert aks.on_machines() == ["aks-experimental-agentpool", "theirs"]


async def test_disabling_takes_all_of_it_away_but_what_people_made(aks: Managed) -> None:
    mine = usable(aks, "mine")
    await aks.ordered(enabled(pod_identity(mine)))
    kind = aks.cluster.registry.by_key("azureidentities.aadpodidentity.k8s.io")
    spec = {"type": 0, "resourceID": mine.id, "clientID": mine.client_id}
    aks.cluster.resources.create(kind, "shop", {"metadata": {"name": "hand-made"}, "spec": spec})
    assert (await aks.ordered({"enabled": False}))["status"] == "Succeeded"
    assert aks.document()["properties"]["podIdentityProfile"] == {"enabled": False}
    assert list(aks.cluster.storage.all("daemonsets.apps")) == []
    assert list(aks.found("azureidentities")) == ["shop/hand-made"]
    assert aks.found("azureidentitybindings") == aks.found("azurepodidentityexceptions") == {}
    assert aks.on_machines() == ["aks-experimental-agentpool"]


async def test_an_identity_that_the_cluster_may_not_assign_fails_alone(aks: Managed) -> None:
    mine, other = usable(aks, "mine"), closed(aks, "other")
    ended = await aks.ordered(enabled(pod_identity(other), pod_identity(mine)))
    assert ended["status"] == "Succeeded"
    assert aks.states() == {"other": "Failed", "mine": "Assigned"}
    (failed, _) = aks.document()["properties"]["podIdentityProfile"]["userAssignedIdentities"]
    error = failed["provisioningInfo"]["error"]["error"]
    assert error["code"] == "LinkedAuthorizationFailed"
    assert other.id.lower() in error["message"].lower()
    assert list(aks.found("azureidentities")) == ["shop/mine"]
    assert aks.on_machines() == ["aks-experimental-agentpool", "mine"]
    cluster = aks.document()["identity"]["principalId"]
    aks.direct.grant(OPERATOR, cluster, other.id)
    await aks.ordered(aks.document()["properties"]["podIdentityProfile"])
    assert aks.states() == {"other": "Assigned", "mine": "Assigned"}


async def test_an_identity_that_does_not_exist_fails_in_arms_words(aks: Managed) -> None:
    gone = closed(aks, "gone")
    group = gone.id.partition("/providers/")[0]
    aks.direct.grant(OPERATOR, aks.document()["identity"]["principalId"], group)
    aks.direct.made("DELETE", gone.id)
    await aks.ordered(enabled(pod_identity(gone)))
    (failed,) = aks.document()["properties"]["podIdentityProfile"]["userAssignedIdentities"]
    assert failed["provisioningInfo"]["error"]["error"]["code"] == "FailedIdentityOperation"


async def test_a_role_that_does_not_hold_yet_is_no_role(aks: Managed) -> None:
    aks.direct.world.role_delay = 60
    mine = usable(aks, "mine")
    await aks.ordered(enabled(pod_identity(mine)))
    assert aks.states() == {"mine": "Failed"}


async def test_it_waits_for_another_change_of_the_machines(aks: Managed) -> None:
    mine = usable(aks, "mine")
    world = aks.direct.world
    scale_set = world.find(ScaleSet, aks.direct.plan.scale_set_id)
    assert scale_set is not None
    world.put(replace(scale_set, settled_at=world.clock() + 30))
    began = world.clock()
    await aks.ordered(enabled(pod_identity(mine)))
    assert aks.states() == {"mine": "Assigned"}
    assert world.clock() - began >= 30


async def test_exceptions_are_made_changed_and_taken_away(aks: Managed) -> None:
    one = {"name": "e", "namespace": "shop", "podLabels": {"a": "b"}}
    await aks.ordered(enabled(userAssignedIdentityExceptions=[one]))
    assert aks.found("azurepodidentityexceptions")["shop/e"] == {"podLabels": {"a": "b"}}
    changed = {**one, "podLabels": {"c": "d"}}
    await aks.ordered(enabled(userAssignedIdentityExceptions=[changed]))
    assert aks.found("azurepodidentityexceptions")["shop/e"] == {"podLabels": {"c": "d"}}
    await aks.ordered(enabled())
    assert list(aks.found("azurepodidentityexceptions")) == ["kube-system/aks-addon-exception"]


async def test_a_cluster_that_does_not_answer_fails_the_operation(aks: Managed) -> None:
    aks.provider = Provider(aks.direct.world, "https://127.0.0.1:1")
    ended = await aks.ordered(enabled())
    assert (ended["status"], ended["error"]["code"]) == ("Failed", "InternalOperationError")
    assert "does not answer" in ended["error"]["message"]
    assert aks.document()["properties"]["provisioningState"] == "Failed"
