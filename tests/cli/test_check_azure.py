"""`check --azure` against the sandbox's Azure: applications by Graph, and MIC's roles."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from podidentity.manifests import mic
from podidentity_sandbox.azure.client import App, AzureOperator
from tests.cli.azure import Identity, operator
from tests.cli.conftest import Ran
from tests.cli.world import CUSTOM, World

Run = Callable[..., Ran]
DEPLOYMENTS = "/apis/apps/v1/namespaces/kube-system/deployments"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"


@pytest.fixture
def app(world: World, ns: str) -> App:
    """An application that trusts this cluster's tokens for the pods of `ns`, but for a slash."""
    issuer = world.send("GET", "/.well-known/openid-configuration")["issuer"]

    async def made(azure: AzureOperator) -> App:
        found = await azure.make_app(f"orders-{ns}")
        subject = f"system:serviceaccount:{ns}:default"
        await azure.add_federated_credential(found, "aks", issuer=f"{issuer}/", subject=subject)
        return found

    return operator(world, made)


@pytest.fixture
def deployed(world: World) -> Callable[..., None]:
    """Put MIC into the cluster with these flags."""

    def put(*flags: str) -> None:
        world.api.delete(f"{DEPLOYMENTS}/mic")
        world.send("POST", DEPLOYMENTS, mic(extra_args=flags)[-1])

    return put


def told(ran: Ran, *reasons: str) -> list[dict[str, Any]]:
    return [each for each in json.loads(ran.out) if each["reason"] in reasons]


def bind(world: World, ns: str, name: str, spec: dict[str, Any]) -> None:
    world.custom(ns, "azureidentities", name, spec)
    bound = {"azureIdentity": name, "selector": name}
    world.custom(ns, "azureidentitybindings", name, bound)


def grant(podidentity: Run, ns: str, client: str) -> None:
    assert podidentity("grant", "--namespace", ns, "--identity", client).code == 0


def test_no_command_has_entra_trust_a_tenant_for_what_was_not_granted_to_him(
    world: World, ns: str, orders: Identity, app: App, podidentity: Run
) -> None:
    """Entra's credential is all that a pod needs which asks Entra itself."""
    federated = {"type": 3, "tenantID": "contoso.com"}
    theirs = {**federated, "resourceID": orders.id, "clientID": orders.client_id}
    bind(world, ns, "theirs", theirs)
    bind(world, ns, "application", {**federated, "clientID": app.client_id})
    world.pod(ns, "a", {"aadpodidbinding": "theirs"})
    world.pod(ns, "b", {"aadpodidbinding": "application"})

    def commands() -> list[str]:
        ran = podidentity("check", "-o", "json", "--azure")
        mine = [each for each in json.loads(ran.out) if each["namespace"] == ns]
        return [one["nextStep"] for one in mine if "federated-credential" in one["nextStep"]]

    assert commands() == []
    grant(podidentity, ns, orders.client_id)
    assert len(commands()) == 1
    mine = "88888888-0000-4000-8000-000000000000"
    grant(podidentity, ns, mine)
    path = f"{CUSTOM}/namespaces/{ns}/azureidentities/theirs"
    world.send("PATCH", path, {"spec": {"clientID": mine}})
    ran = podidentity("check", "-o", "json", "--azure")
    (wrong,) = [each for each in told(ran, "Credential") if each["namespace"] == ns]
    assert f"has the client id {orders.client_id}" in wrong["message"]
    assert commands() == []


def test_the_credential_of_an_application_is_compared_byte_for_byte_by_graph(
    world: World, ns: str, app: App, podidentity: Run
) -> None:
    spec = {"type": 3, "clientID": app.client_id, "tenantID": app.tenant.id}
    bind(world, ns, "orders", spec)
    grant(podidentity, ns, app.client_id)
    world.pod(ns, "a", {"aadpodidbinding": "orders"})
    differ = told(podidentity("check", "-o", "json", "--azure"), "CredentialDiffers")
    (found,) = [each for each in differ if each["namespace"] == ns]
    assert f"of application {app.client_id} differs in its issuer" in found["message"]
    assert "az ad app federated-credential create" in found["nextStep"]


def test_of_an_application_that_graph_does_not_know_it_is_said_how_to_look(
    world: World, ns: str, podidentity: Run
) -> None:
    unknown = "99999999-0000-4000-8000-000000000000"
    bind(world, ns, "orders", {"type": 3, "clientID": unknown, "tenantID": "contoso.com"})
    grant(podidentity, ns, unknown)
    found = told(podidentity("check", "-o", "json", "--azure"), "NotRead")
    (said,) = [each for each in found if unknown in each["message"]]
    assert said["severity"] == "unknown"
    assert f"az ad app federated-credential list --id {unknown}" in said["nextStep"]


@pytest.fixture
def bound(world: World, ns: str, orders: Identity) -> Identity:
    """A managed identity that is bound."""
    bind(world, ns, "orders", {"type": 0, "resourceID": orders.id, "clientID": orders.client_id})
    return orders


def test_an_application_as_which_mic_signs_in_is_found_by_graph_and_its_roles_are_judged(
    app: App, bound: Identity, deployed: Callable[..., None], podidentity: Run
) -> None:
    world = bound.world
    deployed(f"--azure-client-id={app.client_id}", "--azure-tenant-id=contoso.com")
    lacks = told(podidentity("check", "-o", "json", "--azure"), "LacksRole")
    assert all(f" --assignee-object-id {app.principal_id} " in each["nextStep"] for each in lacks)
    scopes = {each["nextStep"].rpartition("--scope ")[2].rstrip(".") for each in lacks}
    assert {bound.id, world.plan.scale_set_id} <= scopes

    subscription = f"/subscriptions/{world.plan.subscription_id}"
    role = f"{subscription}/providers/Microsoft.Authorization/roleDefinitions/{CONTRIBUTOR}"
    body = {"properties": {"roleDefinitionId": role, "principalId": app.principal_id}}
    above = f"{subscription}/providers/Microsoft.Authorization/roleAssignments/{app.principal_id}"
    operator(world, lambda azure: azure.arm("PUT", above, body))
    try:
        assert told(podidentity("check", "-o", "json", "--azure"), "LacksRole") == []
    finally:
        operator(world, lambda azure: azure.arm("DELETE", above))


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--cloudconfig=/etc/kubernetes/azure.json", "/etc/kubernetes/azure.json of its nodes"),
        ("--azure-tenant-id=contoso.com", "a Secret has its client id"),
        ("--use-managed-identity", "it is on no machine of Azure's"),
    ],
)
def test_where_it_is_not_known_as_whom_mic_signs_in_that_is_said(
    deployed: Callable[..., None], podidentity: Run, flag: str, why: str
) -> None:
    deployed(flag)
    ran = podidentity("check", "-o", "json", "--azure")
    (said,) = [each for each in told(ran, "NotRead") if "roles of MIC" in each["message"]]
    assert why in said["message"]
    assert "az role assignment list --all --assignee CLIENT-ID" in said["nextStep"]


@pytest.mark.usefixtures("bound")
def test_a_mic_that_assigns_nothing_needs_no_role(
    deployed: Callable[..., None], podidentity: Run
) -> None:
    deployed("--assign=none")
    ran = podidentity("check", "-o", "json", "--azure")
    assert [each for each in told(ran, "NotRead", "LacksRole") if "MIC" in each["message"]] == []
