"""Rules of federated credentials, for Resource Manager and Graph alike.

https://learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from podidentity_sandbox.azure.state import FederatedCredential, World

MOST = 20
"""For one application or identity."""
LONGEST = 600
"""Characters of a field."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,119}")


class BadCredential(Exception):
    """The credential cannot be; the text says why, as Azure does where its words are known."""


def put(
    world: World, owner: str, new_id: str, name: object, body: dict[str, Any], *, of: str
) -> FederatedCredential:
    """Store the credential of a request for `owner`, an id; raise BadCredential.

    It replaces one of the same id. `of` names the kind of owner in a refusal.
    """
    new = _wanted(name, body)
    others = [
        one for one in world.all(FederatedCredential, owner) if one.id.lower() != new_id.lower()
    ]
    if any((one.issuer, one.subject) == (new.issuer, new.subject) for one in others):
        raise BadCredential(f"Issuer and subject combination already exists for this {of}.")
    if len(others) >= MOST:
        raise BadCredential(
            f"The {of} has {MOST} federated identity credentials, which is the most it can have."
        )
    since = world.clock() + world.weather.seconds("credentials")
    made = replace(new, id=new_id, since=since)
    world.put(made)
    return made


def _wanted(name: object, body: dict[str, Any]) -> FederatedCredential:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadCredential(
            f"The federated identity credential name '{name}' is invalid. It must be 3 to 120"
            " letters, digits, hyphens or underscores, and begin with a letter or digit."
        )
    audiences = body.get("audiences")
    if not isinstance(audiences, list) or len(audiences) != 1:
        raise BadCredential("Federated Identity Credential must have exactly one audience.")
    named = {what: body.get(what) for what in ("issuer", "subject")}
    fields: dict[str, Any] = {**named, "audience": audiences[0]}
    for what, value in fields.items():
        if not isinstance(value, str) or not 0 < len(value) <= LONGEST:
            raise BadCredential(f"The property '{what}' must have 1 to {LONGEST} characters.")
    if not fields["issuer"].startswith("https://"):
        raise BadCredential("The property 'issuer' must be a URL that begins with https://.")
    described = str(body.get("description") or "")
    return FederatedCredential(id="", name=name, description=described, **fields)
