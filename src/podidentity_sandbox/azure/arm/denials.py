"""Deny assignments: what AKS alone may change, made when a cluster locks its node group down.

Nobody but Azure makes one: https://learn.microsoft.com/azure/role-based-access-control/deny-assignments.
A cluster's `nodeResourceGroupProfile.restrictionLevel` of ReadOnly does, as does AKS Automatic:
https://learn.microsoft.com/azure/aks/node-resource-group-lockdown
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.azure.arm.call import ArmCall
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import DenyAssignment, World
from podidentity_sandbox.plan import stable_guid

KIND = "Microsoft.Authorization/denyAssignments"
_NAME = (
    "node resource group deny assignment created by Azure Kubernetes Services for nrg-lockdown,"
    " see: https://aka.ms/aks/nrg_lockdown"
)


def lockdown(world: World, scope: str, spared: str = "") -> DenyAssignment:
    """Return the deny assignment of a scope that only the principal `spared` may change."""
    name = stable_guid(world.plan.name, f"lockdown of {scope.lower()}")
    return DenyAssignment(
        id=f"{scope}/providers/{KIND}/{name}", name=_NAME, scope=scope, spared=spared
    )


def list_denials(call: ArmCall) -> Reply:
    """List the deny assignments that hold at the scope, and those below it."""
    return Reply.json({"value": [_json(denial) for denial in call.around(DenyAssignment)]})


def _json(denial: DenyAssignment) -> dict[str, Any]:
    everybody = "00000000-0000-0000-0000-000000000000"
    return {
        "id": denial.id,
        "name": denial.id.rpartition("/")[2],
        "type": KIND,
        "properties": {
            "denyAssignmentName": denial.name,
            "scope": denial.scope,
            "permissions": [{"actions": ["*"], "notActions": ["*/read"]}],
            "principals": [{"id": everybody, "type": "SystemDefined"}],
            "excludePrincipals": [{"id": denial.spared, "type": "ServicePrincipal"}],
            "isSystemProtected": True,
        },
    }
