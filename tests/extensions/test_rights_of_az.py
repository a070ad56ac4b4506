"""What `az aks pod-identity add` needs in Azure, by the requests that it sends one after the other.

The requests are those of the extension (`extensions/podidentity_az`) and of the Azure CLI's own
functions that it calls: https://github.com/Azure/azure-cli/blob/dev/src/azure-cli/azure/cli/command_modules/acs/_roleassignments.py
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from podidentity_sandbox.azure.arm.roles import ROLES
from podidentity_sandbox.azure.arm.subscription import POD_IDENTITY
from podidentity_sandbox.azure.state import Principal, UserAssignedIdentity
from tests.sandbox.azure.direct import Direct

AUTHORIZATION = "Microsoft.Authorization"
CLUSTERS = "Microsoft.ContainerService/managedClusters"
AT_THE_CLUSTER = (f"{CLUSTERS}/read", f"{CLUSTERS}/write")
IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities/read"
ASSIGNMENTS = f"{AUTHORIZATION}/roleAssignments"
AT_THE_IDENTITY = (
    IDENTITY,
    f"{ASSIGNMENTS}/read",
    f"{AUTHORIZATION}/roleDefinitions/read",
    f"{ASSIGNMENTS}/write",
)
NEEDED = (*AT_THE_CLUSTER, *AT_THE_IDENTITY)
RIGHTS = Path(__file__).parents[2] / "docs/reference/rights.md"


@pytest.fixture
def direct(tmp_path: Path) -> Direct:
    return Direct(tmp_path)


def path_of(direct: Direct) -> str:
    """Return where the cluster is, below the subscription."""
    plan = direct.plan
    return f"resourceGroups/{plan.cluster_group}/providers/{CLUSTERS}/{plan.cluster_name}"


def given(direct: Direct, actions: tuple[str, ...], scope: str, who: str) -> None:
    """Make a role of these actions alone, and assign it."""
    role = str(uuid.uuid4())
    properties = {
        "roleName": role,
        "type": "CustomRole",
        "permissions": [{"actions": list(actions), "notActions": []}],
        "assignableScopes": [scope],
    }
    base = f"{direct.world.subscription}/providers/{AUTHORIZATION}/roleDefinitions"
    direct.made("PUT", f"{base}/{role}", {"properties": properties})
    assigned = {"roleDefinitionId": f"{base}/{role}", "principalId": who}
    where = f"{scope}/providers/{AUTHORIZATION}/roleAssignments/{uuid.uuid4()}"
    direct.made("PUT", where, {"properties": assigned})


def asked_by_az(
    direct: Direct, person: Principal, identity: UserAssignedIdentity
) -> Mapping[str, tuple[int, str]]:
    """Send the requests, each in spite of the others' fates; return status and error by action."""
    path = path_of(direct)
    cluster = direct.made("GET", path)
    principal = cluster["identity"]["principalId"]
    ids = {"clientId": identity.client_id, "objectId": identity.principal_id}
    mine = {"name": "orders", "namespace": "shop", "identity": {"resourceId": identity.id, **ids}}
    profile = {"enabled": True, "userAssignedIdentities": [mine]}
    changed = {**cluster, "properties": {**cluster["properties"], "podIdentityProfile": profile}}
    (role,) = (each for each in ROLES if each.name == "Managed Identity Operator")
    definitions = f"{direct.world.subscription}/providers/{AUTHORIZATION}/roleDefinitions"
    grant = {"roleDefinitionId": f"{definitions}/{role.id}", "principalId": principal}
    own = f"{identity.id}/providers/{AUTHORIZATION}"
    asked = "api-version=2022-04-01&$filter="
    assigned = quote(f"atScope() and assignedTo('{principal}')")
    named = quote(f"roleName eq '{role.name}'")
    requests = {
        f"{CLUSTERS}/read": ("GET", path, None),
        IDENTITY: ("GET", identity.id, None),
        f"{ASSIGNMENTS}/read": ("GET", f"{own}/roleAssignments?{asked}{assigned}", None),
        f"{AUTHORIZATION}/roleDefinitions/read": (
            *("GET", f"{own}/roleDefinitions?{asked}{named}"),
            None,
        ),
        f"{ASSIGNMENTS}/write": (
            *("PUT", f"{own}/roleAssignments/{uuid.uuid4()}"),
            {"properties": grant},
        ),
        f"{CLUSTERS}/write": ("PUT", path, changed),
    }
    found = {}
    for action, (method, where, body) in requests.items():
        status, answer, _ = direct.arm(method, where, body, principal=person)
        found[action] = (status, answer.get("error", {}).get("message", ""))
    return found


@pytest.mark.parametrize("without", ["", *NEEDED])
def test_each_right_that_the_page_lists_is_needed_and_no_other(
    direct: Direct, without: str
) -> None:
    direct.world.features[POD_IDENTITY.lower()] = 0.0
    group = direct.plan.cluster_group
    identity, own = (direct.identity(name, group) for name in ("orders", "person"))
    person = direct.world.principals[own.principal_id]
    cluster = f"{direct.world.subscription}/{path_of(direct)}"
    for actions, scope in ((AT_THE_CLUSTER, cluster), (AT_THE_IDENTITY, identity.id)):
        given(direct, tuple(each for each in actions if each != without), scope, person.object_id)
    found = asked_by_az(direct, person, identity)
    refused = {action: why for action, (status, why) in found.items() if status >= 400}
    assert set(refused) == ({without} if without else set()), found
    assert all(without in why for why in refused.values())


def test_they_are_those_that_the_page_lists() -> None:
    (row,) = re.findall(r"\| `az aks pod-identity` .*", RIGHTS.read_text())
    assert sorted(re.findall(r"`(Microsoft[^`]+)`", row)) == sorted(NEEDED)
