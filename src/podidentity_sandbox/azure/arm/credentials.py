"""Federated credentials of user-assigned identities.

https://learn.microsoft.com/rest/api/managedidentity/federated-identity-credentials
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from podidentity_sandbox.azure import federated
from podidentity_sandbox.azure.arm.call import ArmError, Call
from podidentity_sandbox.azure.arm.identities import KIND as IDENTITIES
from podidentity_sandbox.azure.directory import FederatedCredential
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import UserAssignedIdentity

CHILD = "federatedIdentityCredentials"
KIND = f"{IDENTITIES}/{CHILD}"
WRITE_SECONDS = 0.05
"""For which a write lasts; another one to the same identity is refused meanwhile."""


def list_credentials(call: Call) -> Reply:
    """List the credentials of an identity."""
    found = call.world.all(FederatedCredential, _identity(call).id)
    return Reply.json({"value": [_json(one) for one in found]})


def get_credential(call: Call) -> Reply:
    """Return a credential."""
    found = _find(call)
    if found is None:
        raise ArmError(
            404,
            "NotFound",
            f"The Federated Identity Credential '{call.params['credential']}' was not found.",
        )
    return Reply.json(_json(found))


def put_credential(call: Call) -> Reply:
    """Make a credential, or change one."""
    owner, old = _identity(call), _find(call)
    properties = call.body().get("properties")
    given = properties if isinstance(properties, dict) else {}
    written = _begin_write(call, owner)
    try:
        want = federated.wanted(call.params["credential"], given)
        own_id = old.id if old else f"{owner.id}/{CHILD}/{want.name}"
        made = federated.put(call.world, owner.id, own_id, want, of="Managed Identity")
    except federated.BadCredential as error:
        written()
        raise ArmError(400, "BadRequest", str(error)) from error
    reply = Reply.json(_json(made), status=200 if old else 201)
    return replace(reply, after=WRITE_SECONDS, ends=written)


def delete_credential(call: Call) -> Reply:
    """Delete a credential."""
    owner, old = _identity(call), _find(call)
    if old is None:
        return Reply(status=204)
    written = _begin_write(call, owner)
    call.world.remove(old.id)
    return Reply(status=200, after=WRITE_SECONDS, ends=written)


def _begin_write(call: Call, owner: UserAssignedIdentity) -> Callable[[], None]:
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


def _identity(call: Call) -> UserAssignedIdentity:
    call.group()
    name = call.params["name"]
    path = f"{call.world.subscription}/resourcegroups/{call.params['group']}"
    found = call.world.find(UserAssignedIdentity, f"{path}/providers/{IDENTITIES}/{name}")
    if found is None:
        raise call.missing(IDENTITIES)
    return found


def _find(call: Call) -> FederatedCredential | None:
    return call.world.find(
        FederatedCredential, f"{_identity(call).id}/{CHILD}/{call.params['credential']}"
    )


def _json(one: FederatedCredential) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "type": KIND,
        "properties": {
            "issuer": one.issuer,
            "subject": one.subject,
            "audiences": [one.audience],
        },
    }
