"""User-assigned managed identities.

https://learn.microsoft.com/rest/api/managedidentity/user-assigned-identities
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from podidentity_sandbox.azure import federated
from podidentity_sandbox.azure.arm.call import ArmCall, ArmError, location_of, tags_of
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import FederatedCredential, UserAssignedIdentity

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{2,127}")


def put_identity(call: ArmCall) -> Reply:
    group, body, name = call.group(), call.body(), call.params["name"]
    location, tags = location_of(body), tags_of(body)
    old = call.find(UserAssignedIdentity)
    if old:
        new = replace(old, tags=tags)
    else:
        if not _NAME.fullmatch(name):
            raise ArmError(400, "InvalidIdentityName", f"The identity name '{name}' is invalid.")
        principal = call.world.new_principal(name)
        place = f"{call.subscription}/resourcegroups/{group.name}/providers"
        new = UserAssignedIdentity(
            # The real service writes `resourcegroups` in this id, and only in this one.
            id=f"{place}/{UserAssignedIdentity.TYPE}/{name}",
            name=name,
            location=location,
            tags=tags,
            client_id=principal.app_id,
            principal_id=principal.object_id,
        )
    call.world.put(new)
    return Reply.json(shown(call, new), status=200 if old else 201)


def shown(call: ArmCall, identity: UserAssignedIdentity) -> dict[str, Any]:
    properties = {
        "tenantId": call.world.plan.tenant_id,
        "principalId": identity.principal_id,
        "clientId": identity.client_id,
    }
    return identity.shown(properties=properties)


# ---- Federated credentials of user-assigned identities
#
# https://learn.microsoft.com/rest/api/managedidentity/federated-identity-credentials

CREDENTIALS = "federatedIdentityCredentials"
CREDENTIAL_TYPE = f"{UserAssignedIdentity.TYPE}/{CREDENTIALS}"
WRITE_SECONDS = 0.05
"""For which a write lasts; another one to the same identity is refused meanwhile."""


def list_credentials(call: ArmCall) -> Reply:
    found = call.world.all(FederatedCredential, call.existing(UserAssignedIdentity).id)
    return Reply.json({"value": [_credential_json(one) for one in found]})


def get_credential(call: ArmCall) -> Reply:
    _, found = _owner_and_credential(call)
    if found is None:
        raise ArmError(
            404,
            "NotFound",
            f"The Federated Identity Credential '{call.params['credential']}' was not found.",
        )
    return Reply.json(_credential_json(found))


def put_credential(call: ArmCall) -> Reply:
    owner, old = _owner_and_credential(call)
    properties = call.body().get("properties")
    given = properties if isinstance(properties, dict) else {}
    written = _begin_write(call, owner)
    try:
        name = call.params["credential"]
        own_id = old.id if old else f"{owner.id}/{CREDENTIALS}/{name}"
        made = federated.put(call.world, owner.id, own_id, name, given, of="Managed Identity")
    except federated.BadCredential as error:
        written()
        raise ArmError(400, "BadRequest", str(error)) from error
    reply = Reply.json(_credential_json(made), status=200 if old else 201)
    return replace(reply, after=WRITE_SECONDS, ends=written)


def delete_credential(call: ArmCall) -> Reply:
    owner, old = _owner_and_credential(call)
    if old is None:
        return Reply(status=204)
    written = _begin_write(call, owner)
    call.world.remove(old.id)
    return Reply(status=200, after=WRITE_SECONDS, ends=written)


def _begin_write(call: ArmCall, owner: UserAssignedIdentity) -> Callable[[], None]:
    """Return what ends the write; raise ArmError where another one is under way."""
    key = owner.id.lower()
    if key in call.world.written:
        # https://github.com/Azure/bicep-registry-modules/issues/1447
        raise ArmError(
            409,
            "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity",
            "Too many Federated Identity Credentials are written concurrently for the managed"
            f" identity '{key}'. Concurrent Federated Identity Credentials writes under the same"
            " managed identity are not supported.",
        )
    call.world.written.add(key)
    return partial(call.world.written.discard, key)


def _owner_and_credential(
    call: ArmCall,
) -> tuple[UserAssignedIdentity, FederatedCredential | None]:
    """Return the identity of the path, and its credential, if there is one; raise ArmError."""
    owner = call.existing(UserAssignedIdentity)
    name = f"{owner.id}/{CREDENTIALS}/{call.params['credential']}"
    return owner, call.world.find(FederatedCredential, name)


def _credential_json(one: FederatedCredential) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "type": CREDENTIAL_TYPE,
        "properties": {
            "issuer": one.issuer,
            "subject": one.subject,
            "audiences": [one.audience],
        },
    }
