"""A managed cluster as ARM shows it, and what no request changes of it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml

from podidentity_sandbox.azure.aks.document import KUBERNETES
from podidentity_sandbox.azure.arm.features import POD_IDENTITY
from podidentity_sandbox.cluster.discovery import VERSION
from tests.sandbox.azure.direct import Direct
from tests.sandbox.azure.plans import certify

KIND = "providers/Microsoft.ContainerService/managedClusters"


def path(direct: Direct, name: str = "") -> str:
    plan = direct.plan
    return f"resourceGroups/{plan.cluster_group}/{KIND}/{name or plan.cluster_name}"


def test_the_cluster_is_shown_and_listed(direct: Direct) -> None:
    shown = direct.made("GET", path(direct))
    assert shown["properties"]["nodeResourceGroup"] == direct.plan.node_group
    assert shown["properties"]["agentPoolProfiles"][0]["count"] == len(direct.plan.nodes)
    assert "podIdentityProfile" not in shown["properties"]
    for where in (KIND, f"resourceGroups/{direct.plan.cluster_group}/{KIND}"):
        assert direct.made("GET", where)["value"] == [shown]
    assert direct.arm("GET", path(direct, "other"))[1]["error"]["code"] == "ResourceNotFound"


def test_its_version_is_that_of_the_api_server() -> None:
    assert f"v{KUBERNETES}" == VERSION["gitVersion"]


def test_its_kubelets_have_the_identity_that_is_on_the_machines(direct: Direct) -> None:
    """`az aks update` fails where a cluster does not say whose identity its kubelets have."""
    kubelet = direct.made("GET", path(direct))["properties"]["identityProfile"]["kubeletidentity"]
    on_machines = direct.made("GET", direct.plan.scale_set_id)["identity"]
    (known,) = on_machines["userAssignedIdentities"].values()
    assert (kubelet["clientId"], kubelet["objectId"]) == (known["clientId"], known["principalId"])


def test_a_document_that_is_sent_back_as_it_came_orders_a_change(direct: Direct) -> None:
    status, answer, headers = direct.arm("PUT", path(direct), direct.made("GET", path(direct)))
    assert (status, answer["properties"]["provisioningState"]) == (200, "Updating")
    assert (
        "/Microsoft.ContainerService/locations/westeurope/operations/"
        in (headers["Azure-AsyncOperation"])
    )


def test_two_changes_at_once_are_refused(direct: Direct) -> None:
    """https://aka.ms/aks-pending-operation."""
    body = direct.made("GET", path(direct))
    direct.made("PUT", path(direct), body)
    status, answer, _ = direct.arm("PUT", path(direct), body)
    assert (status, answer["error"]["code"]) == (409, "OperationNotAllowed")
    assert "Another operation (Updating) is in progress" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"properties": {"nodeResourceGroup": "other"}}, "properties.nodeResourceGroup"),
        ({"properties": {"oidcIssuerProfile": {"enabled": True}}}, "properties.oidcIssuerProfile"),
        ({"properties": {"agentPoolProfiles": []}}, "properties.agentPoolProfiles"),
        (
            {"properties": {"agentPoolProfiles": [{"name": "nodepool1", "count": 9}]}},
            "properties.agentPoolProfiles",
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


def test_the_add_on_needs_its_preview_feature(direct: Direct) -> None:
    """https://github.com/Azure/azure-quickstart-templates/issues/12928."""
    body = {
        "location": direct.plan.location,
        "properties": {"podIdentityProfile": {"enabled": True}},
    }
    status, answer, _ = direct.arm("PUT", path(direct), body)
    assert (status, answer["error"]["code"]) == (400, "BadRequest")
    assert answer["error"]["message"].startswith(
        "PodIdentity addon is not allowed since feature"
        " 'Microsoft.ContainerService/EnablePodIdentityPreview' is not enabled."
    )
    direct.world.features[POD_IDENTITY.lower()] = 0.0
    assert direct.arm("PUT", path(direct), body)[0] == 200


def test_no_other_cluster_is_made(direct: Direct) -> None:
    status, answer, _ = direct.arm("PUT", path(direct, "second"), {"location": "westeurope"})
    assert (status, answer["error"]["code"]) == (400, "BadRequest")


@pytest.mark.parametrize("role", ["User", "Admin"])
def test_a_kubeconfig_leads_to_the_api_server(direct: Direct, role: str) -> None:
    certify(direct.plan.path)
    answer = direct.made("POST", f"{path(direct)}/listCluster{role}Credential")
    (found,) = answer["kubeconfigs"]
    config = yaml.safe_load(base64.b64decode(found["value"]))
    assert found["name"] == f"cluster{role}"
    assert config["current-context"] == direct.plan.cluster_name
    server = f"https://127.0.0.1:{direct.plan.apiserver_port}"
    assert config["clusters"][0]["cluster"]["server"] == server
    user = f"cluster{role}_{direct.plan.cluster_group}_{direct.plan.cluster_name}"
    assert config["users"] == [{"name": user, "user": {"token": direct.plan.admin_token}}]


def test_a_reader_sees_the_cluster_and_gets_no_kubeconfig(direct: Direct) -> None:
    mine = direct.identity("mine")
    who = direct.world.principals[mine.principal_id]
    direct.grant("Reader", mine.principal_id, direct.world.subscription)
    assert direct.arm("GET", path(direct), principal=who)[0] == 200
    asked = direct.arm("POST", f"{path(direct)}/listClusterUserCredential", principal=who)
    assert (asked[0], asked[1]["error"]["code"]) == (403, "AuthorizationFailed")


def test_pools_of_nodes_are_listed(direct: Direct) -> None:
    (pool,) = direct.made("GET", f"{path(direct)}/agentPools")["value"]
    assert pool["properties"]["count"] == len(direct.plan.nodes)
    assert direct.made("GET", f"{path(direct)}/agentPools/{pool['name']}") == pool
    assert direct.arm("GET", f"{path(direct)}/agentPools/other")[0] == 404
