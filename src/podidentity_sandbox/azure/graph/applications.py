"""App registrations: made, shown and deleted, with their secrets and certificates.

https://learn.microsoft.com/graph/api/resources/application
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from podidentity_sandbox.azure import federated
from podidentity_sandbox.azure.graph.call import (
    GraphCall,
    GraphError,
    Rules,
    admitted,
    bad,
    unknown,
)
from podidentity_sandbox.azure.messages import Reply, moment
from podidentity_sandbox.azure.state import (
    Application,
    ClientCertificate,
    ClientSecret,
    FederatedCredential,
)

_AUDIENCES = {"AzureADMyOrg": False, "AzureADMultipleOrgs": True}
_SECRET_LIFE = 2 * 365 * 86_400.0
"""Seconds that a secret holds for which no end is named."""
_FILTERS: Rules[Application] = {
    r"appId eq QUOTED": lambda one, text: text == one.app_id,
    r"displayName eq QUOTED": lambda one, text: text == one.name.lower(),
    r"startswith\(displayName,\s*QUOTED\)": lambda one, text: one.name.lower().startswith(text),
}


def list_applications(call: GraphCall) -> Reply:
    """List the tenant's registrations, or those of one client id or name."""
    mine = [one for one in call.world.all(Application) if one.tenant_id == call.tenant.id]
    found = admitted(call, mine, _FILTERS)
    return call.collection("applications", [shown(one) for one in found])


def make_application(call: GraphCall) -> Reply:
    """Register an application in the caller's tenant; its service principal is made apart."""
    body = call.body()
    name, audience = body.get("displayName"), body.get("signInAudience", "AzureADMyOrg")
    if not isinstance(name, str) or not name:
        raise bad("A value is required for property 'displayName' of resource 'Application'.")
    if audience not in _AUDIENCES:
        raise bad(f"Invalid value '{audience}' specified for property 'signInAudience'.")
    object_id = str(uuid.uuid4())
    made = Application(
        id=f"/applications/{object_id}",
        object_id=object_id,
        app_id=str(uuid.uuid4()),
        name=name,
        tenant_id=call.tenant.id,
        multi_tenant=_AUDIENCES[audience],
    )
    call.world.put(made)
    return Reply.json(shown(made), status=201)


def change_application(call: GraphCall, name: str) -> Reply:
    """Replace an application's certificates: the one change that is served."""
    application, body = existing(call, name), call.body()
    others = sorted(set(body) - {"keyCredentials"})
    if others:
        raise bad(f"The sandbox does not change '{others[0]}' of an application.")
    given = body.get("keyCredentials")
    if not isinstance(given, list):
        raise bad("Invalid value specified for property 'keyCredentials'.")
    kept = {one.key_id: one for one in application.certificates}
    new = tuple(_certificate(one, kept) for one in given)
    call.world.put(replace(application, certificates=new))
    return Reply(status=204)


def delete_application(call: GraphCall, name: str) -> Reply:
    """Delete a registration, and its service principals with it."""
    application = existing(call, name)
    call.world.remove(application.id)
    for one in tuple(call.world.principals.values()):
        if one.app_id == application.app_id:
            del call.world.principals[one.object_id]
    return Reply(status=204)


def add_password(call: GraphCall, name: str) -> Reply:
    """Make a secret; its text is shown this once."""
    application = existing(call, name)
    given = call.body().get("passwordCredential") or {}
    now = call.world.clock()
    starts = _seconds(given.get("startDateTime"), now)
    made = ClientSecret(
        key_id=str(uuid.uuid4()),
        name=str(given.get("displayName") or ""),
        # Forty characters of 8Q~ in the middle, by which scanners know one of Entra's:
        # https://learn.microsoft.com/purview/sit-defn-azure-ad-client-secret
        value=f"{secrets.token_hex(2)[:3]}8Q~{secrets.token_urlsafe(26)[:34]}",
        starts=starts,
        ends=_seconds(given.get("endDateTime"), starts + _SECRET_LIFE),
    )
    call.world.put(replace(application, secrets=(*application.secrets, made)))
    return Reply.json({**_shown_secret(made), "secretText": made.value})


def existing(call: GraphCall, name: str) -> Application:
    """Return the application of an object id, or of `appId='…'`; raise GraphError."""
    match = re.fullmatch(r"appId='([^']*)'", name)
    found = (
        call.world.application(match[1])
        if match
        else call.world.find(Application, f"/applications/{name}")
    )
    if found is None or found.tenant_id != call.tenant.id:
        raise unknown(name)
    return found


def shown(one: Application) -> dict[str, Any]:
    """Return an application as Graph shows it: without the text of a secret."""
    return {
        "id": one.object_id,
        "appId": one.app_id,
        "displayName": one.name,
        "identifierUris": [],
        "signInAudience": "AzureADMultipleOrgs" if one.multi_tenant else "AzureADMyOrg",
        "passwordCredentials": [_shown_secret(secret) for secret in one.secrets],
        "keyCredentials": [_shown_certificate(certificate) for certificate in one.certificates],
    }


def _certificate(given: object, kept: dict[str, ClientCertificate]) -> ClientCertificate:
    """Return a certificate that is sent whole, or one that is there and named by its key id."""
    if not isinstance(given, dict):
        raise bad("Invalid value specified for property 'keyCredentials'.")
    if not given.get("key") and (old := kept.get(str(given.get("keyId")))):
        return old
    if (given.get("type"), given.get("usage")) != ("AsymmetricX509Cert", "Verify"):
        raise bad("Key credential must have the type AsymmetricX509Cert and the usage Verify.")
    try:
        # az sends the lines of a PEM file as they are.
        der = base64.b64decode("".join(str(given.get("key")).split()), validate=True)
        certificate = x509.load_der_x509_certificate(der)
    except (binascii.Error, ValueError) as error:
        raise bad("Key credential key value is invalid certificate") from error
    return ClientCertificate(
        key_id=str(uuid.uuid4()),
        name=str(given.get("displayName") or certificate.subject.rfc4514_string()),
        der=der,
        starts=certificate.not_valid_before_utc.timestamp(),
        ends=certificate.not_valid_after_utc.timestamp(),
    )


def _shown_secret(one: ClientSecret) -> dict[str, Any]:
    return {
        "keyId": one.key_id,
        "displayName": one.name,
        "hint": one.value[:3],
        "startDateTime": _stamp(one.starts),
        "endDateTime": _stamp(one.ends),
        "secretText": None,
    }


def _shown_certificate(one: ClientCertificate) -> dict[str, Any]:
    return {
        "keyId": one.key_id,
        "displayName": one.name,
        "type": "AsymmetricX509Cert",
        "usage": "Verify",
        "customKeyIdentifier": one.sha1.hex().upper(),
        "startDateTime": _stamp(one.starts),
        "endDateTime": _stamp(one.ends),
        "key": None,
    }


def _seconds(value: object, otherwise: float) -> float:
    if value is None:
        return otherwise
    try:
        read = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise bad(f"Cannot convert the literal '{value}' to DateTimeOffset.") from error
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def _stamp(seconds: float) -> str:
    return f"{moment(seconds):%Y-%m-%dT%H:%M:%SZ}"


# ---- Federated credentials of applications.
#
# https://learn.microsoft.com/graph/api/resources/federatedidentitycredentials-overview

CHILD = "federatedIdentityCredentials"


def list_credentials(call: GraphCall, name: str) -> Reply:
    """List the credentials of an application."""
    found = call.world.all(FederatedCredential, existing(call, name).id)
    return call.collection(CHILD, [_json(one) for one in found])


def make_credential(call: GraphCall, name: str) -> Reply:
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
    try:
        want = federated.wanted(body.get("name"), body)
        made = federated.put(call.world, application.id, own_id, want, of="Application")
    except federated.BadCredential as error:
        raise bad(str(error)) from error
    return Reply.json(_json(made), status=201)


def _json(one: FederatedCredential) -> dict[str, Any]:
    return {
        "id": one.id.rpartition("/")[2],
        "name": one.name,
        "issuer": one.issuer,
        "subject": one.subject,
        "description": one.description,
        "audiences": [one.audience],
    }
