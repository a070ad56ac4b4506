"""AKS: the managed cluster in ARM, and what the add-on does in the cluster and to its machines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.azure.aks.profile import AddOn, rendered, wanted
from podidentity_sandbox.azure.aks.provider import AksProvider
from podidentity_sandbox.azure.arm.call import ArmError
from podidentity_sandbox.azure.state import ScaleSet, UserAssignedIdentity
from podidentity_sandbox.cluster.discovery import VERSION
from tests.sandbox.azure.direct import Direct
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


async def test_a_pod_identity_is_on_the_machines_and_in_the_cluster_until_it_is_deleted(
    aks: Managed,
) -> None:
    mine, other = usable(aks, "mine"), usable(aks, "other")
    green = pod_identity(other, namespace="bank", bindingSelector="green")
    await aks.ordered(enabled(pod_identity(mine), green))
    assert aks.states() == {"mine": "Assigned", "other": "Assigned"}
    assert aks.on_machines() == ["aks-experimental-agentpool", "mine", "other"]
    spec = {"type": 0, "resourceID": mine.id, "clientID": mine.client_id}
    assert aks.found("azureidentities")["shop/mine"] == spec
    assert aks.found("azureidentitybindings") == {
        "shop/mine-binding": {"azureIdentity": "mine", "selector": "mine"},
        "bank/other-binding": {"azureIdentity": "other", "selector": "green"},
    }
    assert aks.cluster.storage.get("namespaces", "", "shop") is not None
    assert aks.permitted() == {
        "aks-pod-identity:shop:mine": ("system:serviceaccounts:shop", mine.client_id),
        "aks-pod-identity:bank:other": ("system:serviceaccounts:bank", other.client_id),
    }
    aks.order(enabled(green))
    assert aks.states() == {"other": "Assigned", "mine": "Deleting"}
    await aks.provider.carry_out(aks.direct.world.orders.get_nowait())
    assert aks.states() == {"other": "Assigned"}
    assert list(aks.found("azureidentities")) == ["bank/other"]
    assert list(aks.found("azureidentitybindings")) == ["bank/other-binding"]
    assert list(aks.permitted()) == ["aks-pod-identity:bank:other"]
    assert aks.on_machines() == ["aks-experimental-agentpool", "other"]


async def test_an_identity_stays_on_the_machines_while_others_need_it_or_gave_it(
    aks: Managed,
) -> None:
    mine, theirs = usable(aks, "mine"), usable(aks, "theirs")
    aks.direct.attach(theirs)
    first, second = pod_identity(mine), pod_identity(mine, name="second", namespace="bank")
    await aks.ordered(enabled(first, second, pod_identity(theirs)))
    await aks.ordered(enabled(second))
    assert aks.on_machines() == ["aks-experimental-agentpool", "mine", "theirs"]
    assert list(aks.found("azureidentities")) == ["bank/second"]


async def test_disabling_takes_all_of_it_away_but_what_people_made(aks: Managed) -> None:
    mine = usable(aks, "mine")
    await aks.ordered(enabled(pod_identity(mine)))
    labels = [
        one.object["metadata"]["labels"] for one in aks.cluster.storage.all("daemonsets.apps")
    ]
    assert {each["kubernetes.azure.com/managedby"] for each in labels} == {"aks"}
    kind = aks.cluster.registry.by_key("azureidentities.aadpodidentity.k8s.io")
    spec = {"type": 0, "resourceID": mine.id, "clientID": mine.client_id}
    aks.cluster.resources.create(kind, "shop", {"metadata": {"name": "hand-made"}, "spec": spec})
    assert (await aks.ordered({"enabled": False}))["status"] == "Succeeded"
    assert aks.document()["properties"]["podIdentityProfile"] == {"enabled": False}
    assert list(aks.cluster.storage.all("daemonsets.apps")) == []
    assert list(aks.found("azureidentities")) == ["shop/hand-made"]
    assert aks.found("azureidentitybindings") == aks.found("azurepodidentityexceptions") == {}
    assert aks.permitted() == {}
    assert aks.on_machines() == ["aks-experimental-agentpool"]


async def test_an_identity_that_cannot_be_assigned_fails_alone_and_in_arms_words(
    aks: Managed,
) -> None:
    mine, other, gone = usable(aks, "mine"), closed(aks, "other"), closed(aks, "gone")
    cluster = aks.document()["identity"]["principalId"]
    asked = enabled(*map(pod_identity, (other, gone, mine)))
    aks.direct.made("DELETE", gone.id)
    aks.direct.grant(OPERATOR, cluster, gone.id)
    assert (await aks.ordered(asked))["status"] == "Succeeded"
    assert aks.states() == {"other": "Failed", "gone": "Failed", "mine": "Assigned"}
    profile = aks.document()["properties"]["podIdentityProfile"]
    errors = [
        one["provisioningInfo"]["error"]["error"] for one in profile["userAssignedIdentities"][:2]
    ]
    codes = ["LinkedAuthorizationFailed", "FailedIdentityOperation"]
    assert [error["code"] for error in errors] == codes
    assert other.id.lower() in errors[0]["message"].lower()
    assert list(aks.found("azureidentities")) == ["shop/mine"]
    assert aks.on_machines() == ["aks-experimental-agentpool", "mine"]
    aks.direct.weather("roles=60")
    aks.direct.grant(OPERATOR, cluster, other.id)
    for state in ("Failed", "Assigned"):
        await aks.ordered(profile)
        assert aks.states()["other"] == state, "a role that does not hold yet is none"
        aks.direct.clock.now += 60


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


async def test_a_cluster_that_does_not_answer_fails_the_operation(aks: Managed) -> None:
    aks.provider = AksProvider(aks.direct.world, "https://127.0.0.1:1")
    ended = await aks.ordered(enabled())
    assert (ended["status"], ended["error"]["code"]) == ("Failed", "InternalOperationError")
    assert "does not answer" in ended["error"]["message"]
    assert aks.document()["properties"]["provisioningState"] == "Failed"


# ---- A managed cluster as ARM shows it, and what no request changes of it.

KIND = "providers/Microsoft.ContainerService/managedClusters"


def path(direct: Direct, name: str = "") -> str:
    plan = direct.plan
    return f"resourceGroups/{plan.cluster_group}/{KIND}/{name or plan.cluster_name}"


def test_its_version_is_that_of_the_api_server(direct: Direct) -> None:
    shown = direct.made("GET", path(direct))["properties"]
    assert f"v{shown['kubernetesVersion']}" == VERSION["gitVersion"]


def test_a_document_that_is_sent_back_as_it_came_orders_a_change(direct: Direct) -> None:
    status, answer, headers = direct.arm("PUT", path(direct), direct.made("GET", path(direct)))
    assert (status, answer["properties"]["provisioningState"]) == (200, "Updating")
    where = "/Microsoft.ContainerService/locations/westeurope/operations/"
    assert where in headers["Azure-AsyncOperation"]
    # Two changes at once are refused: https://aka.ms/aks-pending-operation.
    status, answer, _ = direct.arm("PUT", path(direct), direct.made("GET", path(direct)))
    assert (status, answer["error"]["code"]) == (409, "OperationNotAllowed")
    assert "Another operation (Updating) is in progress" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"properties": {"nodeResourceGroup": "other"}}, "properties.nodeResourceGroup"),
        ({"properties": {"agentPoolProfiles": []}}, "properties.agentPoolProfiles"),
        (
            {"properties": {"agentPoolProfiles": [{"name": "nodepool1", "count": 9}]}},
            "properties.agentPoolProfiles.count",
        ),
        ({"identity": {"type": "UserAssigned"}}, "identity.type"),
        ({"location": "northeurope"}, "location"),
    ],
)
def test_what_the_sandbox_does_not_change_is_refused_by_its_name(
    direct: Direct, change: dict[str, Any], named: str
) -> None:
    body = {"location": direct.plan.location, **change}
    status, answer, _ = direct.arm("PUT", path(direct), body)
    assert (status, answer["error"]["code"]) == (400, "PropertyChangeNotAllowed")
    assert answer["error"]["message"] == f"Changing property '{named}' is not allowed."


# ---- What a request may ask of the pod identity add-on, and how the add-on is shown.
#
# https://learn.microsoft.com/rest/api/aks/managed-clusters/create-or-update

ID = (
    "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity"
    "/userAssignedIdentities/mine"
)


def identity(**change: Any) -> dict[str, Any]:
    asked = {"resourceId": ID, "clientId": "c", "objectId": "o"}
    return {"name": "a", "namespace": "shop", "identity": asked, **change}


def exception(**change: Any) -> dict[str, Any]:
    return {"name": "e", "namespace": "shop", "podLabels": {"k": "v"}, **change}


def profile(*identities: Any, exceptions: Any = (), **change: Any) -> dict[str, Any]:
    return {
        "enabled": True,
        "userAssignedIdentities": list(identities),
        "userAssignedIdentityExceptions": list(exceptions),
        **change,
    }


def states(add_on: AddOn) -> dict[str, str]:
    return {str(one.name): one.provisioning_state for one in add_on.identities}


def test_what_was_asked_for_is_shown_again_with_its_state() -> None:
    sent = profile(
        identity(bindingSelector="green"),
        exceptions=[exception()],
        allowNetworkPluginKubenet=True,
    )
    shown = json.loads(json.dumps(rendered(wanted(sent, None))))
    assert shown["userAssignedIdentities"][0].pop("provisioningState") == "Updating"
    assert shown == sent


def test_what_is_assigned_and_unchanged_stays_assigned() -> None:
    first = wanted(profile(identity()), None)
    shown = rendered(first)["userAssignedIdentities"][0]
    assigned = AddOn(True, user_assigned_identities=(first.identities[0].settled(None),))
    assert states(wanted(profile(shown), assigned)) == {"a": "Assigned"}
    other = identity(bindingSelector="green")
    assert states(wanted(profile(other), assigned)) == {"a": "Updating"}


@pytest.mark.parametrize(
    ("sent", "where"),
    [
        ("yes", "Expected `object`, got `str`"),
        (profile("a"), "`$.userAssignedIdentities[0]`"),
        (profile(userAssignedIdentities="x"), "`$.userAssignedIdentities`"),
        (profile(*[identity(name=f"n{n}") for n in range(201)]), "`$.userAssignedIdentities`"),
        (profile(identity(namespace="")), "`$.userAssignedIdentities[0].namespace`"),
        (profile(identity(namespace="Shop")), "`$.userAssignedIdentities[0].namespace`"),
        (profile(identity(name="A b")), "`$.userAssignedIdentities[0].name`"),
        (profile(identity(identity=None)), "`$.userAssignedIdentities[0].identity`"),
        (profile(identity(identity={"resourceId": "/x"})), "[0].identity.resourceId`"),
        (profile(identity(), identity()), "pod identity shop/a is there twice"),
        (profile(exceptions=[exception(podLabels=None)]), "Exceptions[0].podLabels`"),
        (profile(exceptions=[exception(podLabels={"a": 1})]), "Exceptions[0].podLabels[...]`"),
        (profile(exceptions=[exception(), exception()]), "exception shop/e is there twice"),
    ],
)
def test_malformed_values_are_refused_where_they_stand(sent: Any, where: str) -> None:
    with pytest.raises(ArmError) as refusal:
        wanted(sent, None)
    assert refusal.value.code == "InvalidParameter"
    assert where in str(refusal.value)
