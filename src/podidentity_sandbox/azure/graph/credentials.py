"""Federated credentials of applications.

https://learn.microsoft.com/graph/api/resources/federatedidentitycredentials-overview
"""

from __future__ import annotations

import uuid
from typing import Any

from podidentity_sandbox.azure import federated
from podidentity_sandbox.azure.directory import Application, FederatedCredential
from podidentity_sandbox.azure.graph.applications import existing
from podidentity_sandbox.azure.graph.call import Call
from podidentity_sandbox.azure.graph.errors import GraphError, bad, unknown
from podidentity_sandbox.azure.messages import Reply

CHILD = "federatedIdentityCredentials"


def list_credentials(call: Call, name: str) -> Reply:
    """List the credentials of an application."""
    found = call.world.all(FederatedCredential, existing(call, name).id)
    return call.collection(CHILD, [_json(one) for one in found])


def get_credential(call: Call, name: str, which: str) -> Reply:
    """Return a credential, found by its id or its name."""
    return Reply.json(_json(_find(call, existing(call, name), which)))


def make_credential(call: Call, name: str) -> Reply:
    """Make a credential."""
    application, body = existing(call, name), call.body()
    have = call.world.all(FederatedCredential, application.id)
    if any(one.name.lower() == str(body.get("name")).lower() for one in have):
        raise GraphError(
            409,
            "Request_MultipleObjectsWithSameKeyValue",
            f"FederatedIdentityCredential with name {body.get('name')} already exists.",
        )
    own_id = f"{application.id}/{CHILD}/{uuid.uuid4()}"
    return Reply.json(_json(_put(call, application, own_id, body)), status=201)


def change_credential(call: Call, name: str, which: str) -> Reply:
    """Change anything of a credential but its name."""
    application, body = existing(call, name), call.body()
    old = _find(call, application, which)
    if body.get("name", old.name) != old.name:
        raise bad("The name of a federated identity credential cannot be changed.")
    before = {key: value for key, value in _json(old).items() if key != "id"}
    _put(call, application, old.id, {**before, **body})
    return Reply(status=204)


def delete_credential(call: Call, name: str, which: str) -> Reply:
    """Delete a credential."""
    call.world.remove(_find(call, existing(call, name), which).id)
    return Reply(status=204)


def _put(
    call: Call, application: Application, own_id: str, body: dict[str, Any]
) -> FederatedCredential:
    try:
        want = federated.wanted(body.get("name"), body)
        return federated.put(call.world, application.id, own_id, want, of="Application")
    except federated.BadCredential as error:
        raise bad(str(error)) from error


def _find(call: Call, application: Application, which: str) -> FederatedCredential:
    for one in call.world.all(FederatedCredential, application.id):
        if which.lower() in {one.name.lower(), one.id.rpartition("/")[2]}:
            return one
    raise unknown(which)


def _json(one: FederatedCredential) -> dict[str, Any]:
    return {
        "id": one.id.rpartition("/")[2],
        "name": one.name,
        "issuer": one.issuer,
        "subject": one.subject,
        "description": one.description,
        "audiences": [one.audience],
    }
