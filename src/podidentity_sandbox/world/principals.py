"""Service principals that may do only what roles say, beside the operator, who may do everything.

A person or a pipeline that runs podidentity is one: the cluster and Azure know it by its object id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import Plan, stable_guid
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.blueprint import write_kubeconfig
from podidentity_sandbox.world.environment import make_az_folder

_AUTHORIZATION = "providers/Microsoft.Authorization"


async def make_principal(plan: Plan, name: str, *, with_az: bool = False) -> dict[str, str]:
    """Make a service principal without any right; return the variables of its environment.

    They take the place of the operator's. OBJECT_ID is for roles: in the cluster it is the name of
    a user. Another call of the same name makes another principal. `with_az` gives it a folder of
    az's settings; it can sign in once it has a role, since az wants a subscription.
    """
    async with AzureOperator(plan) as azure:
        app = await azure.make_app(name)
        secret = await azure.add_secret(app)
    variables = {
        "KUBECONFIG": str(write_kubeconfig(plan, app.principal_id)),
        "AZURE_CLIENT_ID": app.client_id,
        "AZURE_CLIENT_SECRET": secret.value,
        "OBJECT_ID": app.principal_id,
    }
    if with_az:
        folder = plan.path / f"az-{app.principal_id}"
        make_az_folder(folder)
        variables["AZURE_CONFIG_DIR"] = str(folder)
    return variables


async def give_role(plan: Plan, definition: Mapping[str, Any], object_id: str) -> list[str]:
    """Make a custom role, and assign it to a principal; return the scopes where it is assigned.

    `definition` is what `az role definition create` takes; it is assigned at each of its
    AssignableScopes. A role of the same name is changed. Raises SandboxError for another document.
    https://learn.microsoft.com/azure/role-based-access-control/custom-roles
    """
    try:
        name, actions = str(definition["Name"]), list(definition["Actions"])
        scopes = [str(each) for each in definition["AssignableScopes"]]
    except (KeyError, TypeError) as error:
        raise SandboxError(f"this is no role definition of az: it lacks {error}") from error
    subscription = f"/subscriptions/{plan.subscription_id}"
    role = f"{subscription}/{_AUTHORIZATION}/roleDefinitions/{stable_guid(plan.name, name)}"
    properties = {
        "roleName": name,
        "type": "CustomRole",
        "permissions": [{"actions": actions, "dataActions": definition.get("DataActions", [])}],
        "assignableScopes": scopes,
    }
    async with AzureOperator(plan) as azure:
        await azure.arm("PUT", role, {"properties": properties})
        for scope in scopes:
            assignment = stable_guid(f"{scope} {role}", object_id)
            path = f"{scope}/{_AUTHORIZATION}/roleAssignments/{assignment}"
            body = {"roleDefinitionId": role, "principalId": object_id}
            await azure.arm("PUT", path, {"properties": body})
    return scopes
