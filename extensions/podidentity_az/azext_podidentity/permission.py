"""The role that a cluster needs before it can give an identity to its nodes."""

from __future__ import annotations

from typing import Any

from knack.util import CLIError

ROLE = "Managed Identity Operator"
ROLE_ID = "f1a07417-d97a-45cb-824c-7a7467783830"


def ensure_operator(cmd: Any, cluster: Any, identity_id: str) -> bool:
    """Grant the cluster's own identity the role at the identity; return False where it has it."""
    from azure.cli.command_modules.acs._client_factory import get_auth_management_client
    from azure.cli.command_modules.acs._roleassignments import add_role_assignment

    scope = identity_id.lower()
    principal = cluster_principal(cluster)
    assignments = get_auth_management_client(cmd.cli_ctx, scope).role_assignments
    asked = f"atScope() and assignedTo('{principal}')"
    if any(
        grants(each, principal, scope)
        for each in assignments.list_for_scope(scope=scope, filter=asked)
    ):
        return False
    granted = add_role_assignment(cmd, ROLE, principal, is_service_principal=False, scope=scope)
    if not granted:
        raise CLIError("Could not grant Managed Identity Operator permission for cluster")
    return True


def cluster_principal(cluster: Any) -> str:
    """Return the object id of the identity by which the cluster acts; raise CLIError."""
    kind = ((cluster.identity and cluster.identity.type) or "none").lower()
    if kind == "userassigned":
        first = next(iter(cluster.identity.user_assigned_identities.values()), None)
        principal = first and first.principal_id
    elif kind == "systemassigned":
        principal = cluster.identity.principal_id
    else:
        raise CLIError(f"unsupported identity type: {kind}")
    if not principal:
        raise CLIError("unable to resolve cluster identity")
    return str(principal).lower()


def grants(assignment: Any, principal: str, scope: str) -> bool:
    """Return whether an assignment gives the role to `principal` at `scope` or above."""
    return (
        assignment.role_definition_id.lower().endswith(ROLE_ID)
        and assignment.principal_id.lower() == principal
        and f"{scope}/".startswith(f"{assignment.scope.lower().rstrip('/')}/")
    )
