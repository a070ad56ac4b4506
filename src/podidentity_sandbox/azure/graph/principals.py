"""Service principals: looked up by anything that names them, made for applications.

https://learn.microsoft.com/graph/api/resources/serviceprincipal
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from podidentity_sandbox.azure.graph.call import (
    GraphCall,
    GraphError,
    Rules,
    admitted,
    bad,
    unknown,
)
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import Application, Principal

_FILTERS: Rules[Principal] = {
    r"servicePrincipalNames/any\(c:\s*c eq QUOTED\)": lambda who, text: text == who.app_id,
    r"appId eq QUOTED": lambda who, text: text == who.app_id,
    r"id eq QUOTED": lambda who, text: text == who.object_id,
    r"displayName eq QUOTED": lambda who, text: text == who.name.lower(),
    r"startswith\(displayName,\s*QUOTED\)": lambda who, text: who.name.lower().startswith(text),
}


def list_principals(call: GraphCall) -> Reply:
    """List those that `$filter` admits."""
    found = admitted(call, call.principals, _FILTERS)
    return call.collection("servicePrincipals", [shown(call, one) for one in found])


def get_principal(call: GraphCall, name: str) -> Reply:
    """Return one."""
    return Reply.json(shown(call, _existing(call, name)))


def make_principal(call: GraphCall) -> Reply:
    """Provision an application in the caller's tenant."""
    app_id = call.body().get("appId")
    application = call.world.application(app_id) if isinstance(app_id, str) else None
    if application is None or not _may_be_here(call, application):
        raise bad(
            f"The appId '{app_id}' of the service principal does not reference a valid application"
            " object."
        )
    if call.world.principal_of(application.app_id, call.tenant.id):
        raise GraphError(
            409,
            "Request_MultipleObjectsWithSameKeyValue",
            f"The service principal cannot be created, updated, or restored because the service"
            f" principal name {application.app_id} is already in use.",
        )
    made = Principal(
        object_id=str(uuid.uuid4()),
        app_id=application.app_id,
        name=application.name,
        tenant_id=call.tenant.id,
    )
    call.world.principals[made.object_id] = made
    return Reply.json(shown(call, made), status=201)


def by_ids(call: GraphCall) -> Reply:
    """Return those of some object ids that there are."""
    ids = call.body().get("ids")
    if not isinstance(ids, list):
        raise bad("The property 'ids' is required.")
    wanted = {str(one).lower() for one in ids}
    kind = {"@odata.type": "#microsoft.graph.servicePrincipal"}
    found = [one for one in call.principals if one.object_id in wanted]
    return call.collection("directoryObjects", [{**kind, **shown(call, one)} for one in found])


def shown(call: GraphCall, one: Principal) -> dict[str, Any]:
    """Return a service principal as Graph shows it."""
    application = call.world.application(one.app_id)
    return {
        "id": one.object_id,
        "appId": one.app_id,
        "displayName": one.name,
        "appDisplayName": one.name if application else None,
        "appOwnerOrganizationId": application.tenant_id if application else None,
        "accountEnabled": True,
        "servicePrincipalNames": [one.app_id],
        "servicePrincipalType": "Application" if application else "ManagedIdentity",
    }


def _may_be_here(call: GraphCall, application: Application) -> bool:
    home = call.world.tenants.find(application.tenant_id)
    if application.tenant_id == call.tenant.id:
        return True
    return application.multi_tenant and home is not None and home.cloud is call.tenant.cloud


def _existing(call: GraphCall, name: str) -> Principal:
    match = re.fullmatch(r"appId='([^']*)'", name)
    found = next(
        (
            one
            for one in call.principals
            if (one.app_id == match[1].lower() if match else one.object_id == name.lower())
        ),
        None,
    )
    if found is None:
        raise unknown(name)
    return found
