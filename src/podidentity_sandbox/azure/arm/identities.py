"""User-assigned managed identities.

https://learn.microsoft.com/rest/api/managedidentity/user-assigned-identities
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from podidentity_sandbox.azure.arm.call import ArmError, Call, location_of, tags_of
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import UserAssignedIdentity

KIND = "Microsoft.ManagedIdentity/userAssignedIdentities"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{2,127}")


def get_identity(call: Call) -> Reply:
    """Return an identity."""
    return Reply.json(_json(call, _existing(call)))


def list_identities(call: Call) -> Reply:
    """List the identities of a resource group, or of the subscription."""
    found = call.listed(UserAssignedIdentity, KIND)
    return Reply.json({"value": [_json(call, identity) for identity in found]})


def put_identity(call: Call) -> Reply:
    """Make an identity with ids of its own, or change the tags of one."""
    group, body, name = call.group(), call.body(), call.params["name"]
    location, tags = location_of(body), tags_of(body)
    old = call.world.find(UserAssignedIdentity, call.id)
    if old:
        new = replace(old, tags=tags)
    else:
        if not _NAME.fullmatch(name):
            raise ArmError(400, "InvalidIdentityName", f"The identity name '{name}' is invalid.")
        principal = call.world.new_principal(name)
        new = UserAssignedIdentity(
            # The real service writes `resourcegroups` in this id, and only in this one.
            id=f"{call.world.subscription}/resourcegroups/{group.name}/providers/{KIND}/{name}",
            name=name,
            location=location,
            tags=tags,
            client_id=principal.app_id,
            principal_id=principal.object_id,
        )
    call.world.put(new)
    return Reply.json(_json(call, new), status=200 if old else 201)


def delete_identity(call: Call) -> Reply:
    """Delete an identity; scale sets that name it keep the name, and get no token for it."""
    call.group()
    if call.world.find(UserAssignedIdentity, call.id) is None:
        return Reply(status=204)
    call.world.remove(call.id)
    return Reply(status=200)


def _existing(call: Call) -> UserAssignedIdentity:
    call.group()
    identity = call.world.find(UserAssignedIdentity, call.id)
    if identity is None:
        raise call.missing(KIND)
    return identity


def _json(call: Call, identity: UserAssignedIdentity) -> dict[str, Any]:
    return {
        "id": identity.id,
        "name": identity.name,
        "type": KIND,
        "location": identity.location,
        "tags": dict(identity.tags),
        "properties": {
            "tenantId": call.world.plan.tenant_id,
            "principalId": identity.principal_id,
            "clientId": identity.client_id,
        },
    }
