"""Microsoft Graph, as far as it is needed to look up and to register principals.

An application reads and changes the directory only where it was given permission to, which is no
role of Azure: the operator was, managed identities were not. There are no people and no groups.

https://learn.microsoft.com/graph/api/overview
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from cryptography import x509

from podidentity_sandbox.azure import federated
from podidentity_sandbox.azure.messages import Reply, Request, ServiceError, moment
from podidentity_sandbox.azure.state import (
    Application,
    ClientCertificate,
    ClientSecret,
    FederatedCredential,
    Principal,
    World,
)
from podidentity_sandbox.azure.tenants import CLOUDS, PUBLIC, Tenant
from podidentity_sandbox.azure.tokens import Issuers
from podidentity_sandbox.azure.verification import Caller, TokenFault, TokenRefused, Verifier

HOSTS = frozenset(cloud.graph for cloud in CLOUDS)

# ---- Refusals: https://learn.microsoft.com/graph/errors


class GraphError(ServiceError):
    """A refusal of Graph."""


def _unknown(name: str) -> GraphError:
    return GraphError(
        404,
        "Request_ResourceNotFound",
        f"Resource '{name}' does not exist or one of its queried reference-property objects are"
        " not present.",
    )


def _bad(message: str) -> GraphError:
    return GraphError(400, "Request_BadRequest", message)


def _taken(message: str) -> GraphError:
    return GraphError(409, "Request_MultipleObjectsWithSameKeyValue", message)


# ---- The request


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCall:
    """One request."""

    world: World
    tenant: Tenant
    """Of the caller: nobody sees another tenant's directory."""
    request: Request

    @property
    def principals(self) -> list[Principal]:
        everybody = self.world.principals.values()
        return [one for one in everybody if one.tenant_id == self.tenant.id]

    def body(self) -> dict[str, Any]:
        return self.request.json_object(lambda why: GraphError(400, "BadRequest", why))

    def collection(self, kind: str, value: list[dict[str, Any]]) -> Reply:
        context = f"https://{self.tenant.cloud.graph}/v1.0/$metadata#{kind}"
        return Reply.json({"@odata.context": context, "value": value})


# ---- `$filter` as far as it is served: one clause, of those that a kind of object has.
#
# https://learn.microsoft.com/graph/filter-query-parameter

_T = TypeVar("_T")
Rules = Mapping[str, Callable[[_T, str], bool]]
"""Clauses as patterns, with QUOTED for the value; and what each admits, the value in lower case."""


def _admitted(call: GraphCall, found: Iterable[_T], rules: Rules[_T]) -> list[_T]:
    """Return those of `found` that the request asks for; raise GraphError."""
    asked = call.request.parameter("$filter").strip()
    if not asked:
        return list(found)
    for clause, admits in rules.items():
        pattern = clause.replace("QUOTED", "'(?P<value>[^']*)'")
        if match := re.fullmatch(pattern, asked, re.IGNORECASE):
            return [one for one in found if admits(one, match["value"].lower())]
    message = f"Unsupported or invalid query filter clause specified: {asked}."
    raise GraphError(400, "Request_UnsupportedQuery", message)


# ---- Service principals: looked up by anything that names them, made for applications.
#
# https://learn.microsoft.com/graph/api/resources/serviceprincipal

_OF_PRINCIPALS: Rules[Principal] = {
    r"servicePrincipalNames/any\(c:\s*c eq QUOTED\)": lambda who, text: text == who.app_id,
    r"appId eq QUOTED": lambda who, text: text == who.app_id,
    r"id eq QUOTED": lambda who, text: text == who.object_id,
    r"displayName eq QUOTED": lambda who, text: text == who.name.lower(),
    r"startswith\(displayName,\s*QUOTED\)": lambda who, text: who.name.lower().startswith(text),
}


def list_principals(call: GraphCall) -> Reply:
    """List those that `$filter` admits."""
    found = _admitted(call, call.principals, _OF_PRINCIPALS)
    return call.collection("servicePrincipals", [_shown_principal(call, one) for one in found])


def get_principal(call: GraphCall, name: str) -> Reply:
    return Reply.json(_shown_principal(call, _principal(call, name)))


def make_principal(call: GraphCall) -> Reply:
    """Provision an application in the caller's tenant."""
    app_id = call.body().get("appId")
    application = call.world.application(app_id) if isinstance(app_id, str) else None
    home = application and call.world.tenants.find(application.tenant_id)
    invited = application and application.multi_tenant and home and home.cloud is call.tenant.cloud
    if application is None or not (invited or application.tenant_id == call.tenant.id):
        raise _bad(
            f"The appId '{app_id}' of the service principal does not reference a valid application"
            " object."
        )
    if call.world.principal_of(application.app_id, call.tenant.id):
        raise _taken(
            f"The service principal cannot be created, updated, or restored because the service"
            f" principal name {application.app_id} is already in use.",
        )
    made = Principal.new(application.name, call.tenant.id, application.app_id)
    call.world.principals[made.object_id] = made
    return Reply.json(_shown_principal(call, made), status=201)


def by_ids(call: GraphCall) -> Reply:
    """Return those of some object ids that there are."""
    ids = call.body().get("ids")
    if not isinstance(ids, list):
        raise _bad("The property 'ids' is required.")
    wanted = {str(one).lower() for one in ids}
    kind = {"@odata.type": "#microsoft.graph.servicePrincipal"}
    found = [one for one in call.principals if one.object_id in wanted]
    return call.collection(
        "directoryObjects", [{**kind, **_shown_principal(call, one)} for one in found]
    )


def _shown_principal(call: GraphCall, one: Principal) -> dict[str, Any]:
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


def _principal(call: GraphCall, name: str) -> Principal:
    match = re.fullmatch(r"appId='([^']*)'", name)
    world = call.world
    if match:
        found = world.principal_of(match[1], call.tenant.id)
    else:
        found = world.principals.get(name.lower())
    if found is None or found.tenant_id != call.tenant.id:
        raise _unknown(name)
    return found


# ---- App registrations: made, shown and deleted, with their secrets and certificates.
#
# https://learn.microsoft.com/graph/api/resources/application

_AUDIENCES = {"AzureADMyOrg": False, "AzureADMultipleOrgs": True}
_SECRET_LIFE = 2 * 365 * 86_400.0
"""Seconds that a secret holds for which no end is named."""
_OF_APPLICATIONS: Rules[Application] = {
    r"appId eq QUOTED": lambda one, text: text == one.app_id,
    r"displayName eq QUOTED": lambda one, text: text == one.name.lower(),
    r"startswith\(displayName,\s*QUOTED\)": lambda one, text: one.name.lower().startswith(text),
}


def list_applications(call: GraphCall) -> Reply:
    """List the tenant's registrations, or those of one client id or name."""
    mine = [one for one in call.world.all(Application) if one.tenant_id == call.tenant.id]
    found = _admitted(call, mine, _OF_APPLICATIONS)
    return call.collection("applications", [_shown_application(one) for one in found])


def get_application(call: GraphCall, name: str) -> Reply:
    return Reply.json(_shown_application(_application(call, name)))


def make_application(call: GraphCall) -> Reply:
    """Register an application in the caller's tenant; its service principal is made apart."""
    body = call.body()
    name, audience = body.get("displayName"), body.get("signInAudience", "AzureADMyOrg")
    if not isinstance(name, str) or not name:
        raise _bad("A value is required for property 'displayName' of resource 'Application'.")
    if audience not in _AUDIENCES:
        raise _bad(f"Invalid value '{audience}' specified for property 'signInAudience'.")
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
    return Reply.json(_shown_application(made), status=201)


def change_application(call: GraphCall, name: str) -> Reply:
    """Replace an application's certificates: the one change that is served."""
    application, body = _application(call, name), call.body()
    others = sorted(set(body) - {"keyCredentials"})
    if others:
        raise _bad(f"The sandbox does not change '{others[0]}' of an application.")
    given = body.get("keyCredentials")
    if not isinstance(given, list):
        raise _bad("Invalid value specified for property 'keyCredentials'.")
    kept = {one.key_id: one for one in application.certificates}
    new = tuple(_certificate(one, kept) for one in given)
    call.world.put(replace(application, certificates=new))
    return Reply(status=204)


def delete_application(call: GraphCall, name: str) -> Reply:
    """Delete a registration, and its service principals with it."""
    application = _application(call, name)
    call.world.remove(application.id)
    for one in tuple(call.world.principals.values()):
        if one.app_id == application.app_id:
            del call.world.principals[one.object_id]
    return Reply(status=204)


def add_password(call: GraphCall, name: str) -> Reply:
    """Make a secret; its text is shown this once."""
    application = _application(call, name)
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


def _application(call: GraphCall, name: str) -> Application:
    """Return the application of an object id, or of `appId='…'`; raise GraphError."""
    match = re.fullmatch(r"appId='([^']*)'", name)
    found = (
        call.world.application(match[1])
        if match
        else call.world.find(Application, f"/applications/{name}")
    )
    if found is None or found.tenant_id != call.tenant.id:
        raise _unknown(name)
    return found


def _shown_application(one: Application) -> dict[str, Any]:
    """Return an application as Graph shows it: without the text of a secret."""
    kind = {"type": "AsymmetricX509Cert", "usage": "Verify", "key": None}
    return {
        "id": one.object_id,
        "appId": one.app_id,
        "displayName": one.name,
        "identifierUris": [],
        "signInAudience": "AzureADMultipleOrgs" if one.multi_tenant else "AzureADMyOrg",
        "passwordCredentials": [_shown_secret(secret) for secret in one.secrets],
        "keyCredentials": [
            {**_dated(each), **kind, "customKeyIdentifier": each.sha1.hex().upper()}
            for each in one.certificates
        ],
    }


def _certificate(given: object, kept: dict[str, ClientCertificate]) -> ClientCertificate:
    """Return a certificate that is sent whole, or one that is there and named by its key id."""
    if not isinstance(given, dict):
        raise _bad("Invalid value specified for property 'keyCredentials'.")
    if not given.get("key") and (old := kept.get(str(given.get("keyId")))):
        return old
    if (given.get("type"), given.get("usage")) != ("AsymmetricX509Cert", "Verify"):
        raise _bad("Key credential must have the type AsymmetricX509Cert and the usage Verify.")
    try:
        # az sends the lines of a PEM file as they are.
        der = base64.b64decode("".join(str(given.get("key")).split()), validate=True)
        certificate = x509.load_der_x509_certificate(der)
    except (binascii.Error, ValueError) as error:
        raise _bad("Key credential key value is invalid certificate") from error
    return ClientCertificate(
        key_id=str(uuid.uuid4()),
        name=str(given.get("displayName") or certificate.subject.rfc4514_string()),
        der=der,
        starts=certificate.not_valid_before_utc.timestamp(),
        ends=certificate.not_valid_after_utc.timestamp(),
    )


def _shown_secret(one: ClientSecret) -> dict[str, Any]:
    return {**_dated(one), "hint": one.value[:3], "secretText": None}


def _dated(one: ClientSecret | ClientCertificate) -> dict[str, Any]:
    starts, ends = (f"{moment(at):%Y-%m-%dT%H:%M:%SZ}" for at in (one.starts, one.ends))
    named = {"keyId": one.key_id, "displayName": one.name}
    return {**named, "startDateTime": starts, "endDateTime": ends}


def _seconds(value: object, otherwise: float) -> float:
    if value is None:
        return otherwise
    try:
        read = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise _bad(f"Cannot convert the literal '{value}' to DateTimeOffset.") from error
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


# ---- Federated credentials of applications.
#
# https://learn.microsoft.com/graph/api/resources/federatedidentitycredentials-overview

_CREDENTIALS = "federatedIdentityCredentials"


def list_credentials(call: GraphCall, name: str) -> Reply:
    found = call.world.all(FederatedCredential, _application(call, name).id)
    return call.collection(_CREDENTIALS, [_shown_credential(one) for one in found])


def make_credential(call: GraphCall, name: str) -> Reply:
    application, body = _application(call, name), call.body()
    have = call.world.all(FederatedCredential, application.id)
    if any(one.name.lower() == str(body.get("name")).lower() for one in have):
        raise _taken(f"FederatedIdentityCredential with name {body.get('name')} already exists.")
    own_id = f"{application.id}/{_CREDENTIALS}/{uuid.uuid4()}"
    try:
        named = body.get("name")
        made = federated.put(call.world, application.id, own_id, named, body, of="Application")
    except federated.BadCredential as error:
        raise _bad(str(error)) from error
    return Reply.json(_shown_credential(made), status=201)


def _shown_credential(one: FederatedCredential) -> dict[str, Any]:
    return {
        "id": one.id.rpartition("/")[2],
        "name": one.name,
        "issuer": one.issuer,
        "subject": one.subject,
        "description": one.description,
        "audiences": [one.audience],
    }


# ---- The front: whose token, whose directory, which object


def _not_a_person(_: GraphCall) -> Reply:
    message = "/me request is only valid with delegated authentication flow."
    raise GraphError(400, "BadRequest", message)


_ONE = "([^/]+)"
_FEDERATED = f"applications/{_ONE}/{_CREDENTIALS}"
_ROUTES: tuple[tuple[str, str, Callable[..., Reply]], ...] = (
    ("GET", "servicePrincipals", list_principals),
    ("POST", "servicePrincipals", make_principal),
    ("GET", f"servicePrincipals/{_ONE}", get_principal),
    ("POST", "directoryObjects/getByIds", by_ids),
    ("GET", "applications", list_applications),
    ("POST", "applications", make_application),
    ("GET", f"applications/{_ONE}", get_application),
    ("PATCH", f"applications/{_ONE}", change_application),
    ("DELETE", f"applications/{_ONE}", delete_application),
    ("POST", f"applications/{_ONE}/addPassword", add_password),
    ("GET", _FEDERATED, list_credentials),
    ("POST", _FEDERATED, make_credential),
    ("GET", "me", _not_a_person),
)


class Graph:
    """The directories of all tenants; each sees its own."""

    def __init__(self, world: World, issuers: Issuers) -> None:
        self._world = world
        self._verifiers: list[tuple[Tenant, Verifier]] = []
        for tenant in world.tenants.all:
            keys, resource = issuers.of(tenant).jwks, f"https://{tenant.cloud.graph}"
            audiences = (resource, f"{resource}/")
            verifier = Verifier(keys=keys, issuer=tenant.issuer, audiences=audiences)
            self._verifiers.append((tenant, verifier))

    def handle(self, request: Request) -> Reply:
        try:
            tenant = self._admit(request)
            return _answer(GraphCall(world=self._world, tenant=tenant, request=request))
        except GraphError as error:
            tracking = str(uuid.uuid4())
            date = datetime.fromtimestamp(self._world.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S")
            ids = {"request-id": tracking, "client-request-id": tracking}
            return error.reply(innerError={"date": date, **ids})

    def _admit(self, request: Request) -> Tenant:
        if not request.bearer:
            raise GraphError(401, "InvalidAuthenticationToken", "Access token is empty.")
        tenant, caller = self._caller(request)
        principal = self._world.principals.get(caller.object_id)
        if principal is None or not principal.reads_directory:
            message = "Insufficient privileges to complete the operation."
            raise GraphError(403, "Authorization_RequestDenied", message)
        return tenant

    def _caller(self, request: Request) -> tuple[Tenant, Caller]:
        host = request.host or PUBLIC.graph
        refused = TokenRefused(TokenFault.ISSUER)
        for tenant, verifier in self._verifiers:
            if tenant.cloud.graph != host:
                continue
            try:
                return tenant, verifier.verify(request.bearer, self._world.clock())
            except TokenRefused as error:
                if error.fault is not TokenFault.ISSUER:
                    refused = error
        raise GraphError(401, "InvalidAuthenticationToken", _words(refused)) from refused


def _answer(call: GraphCall) -> Reply:
    method, path = call.request.method, call.request.path.rstrip("/")
    # `applications(appId='…')` is another way to write `applications/…`.
    below = re.sub(r"^/v1\.0/(\w+)\(([^)]*)\)", r"/v1.0/\1/\2", path).removeprefix("/v1.0/")
    for verb, pattern, handler in _ROUTES:
        if verb == method and (match := re.fullmatch(pattern, below)):
            return handler(call, *match.groups())
    raise GraphError(400, "BadRequest", f"The sandbox's Graph has no {method} {path}.")


def _words(error: TokenRefused) -> str:
    if error.fault is TokenFault.EXPIRED:
        return "Lifetime validation failed, the token is expired."
    if error.fault is TokenFault.AUDIENCE:
        return "Access token validation failure. Invalid audience."
    return "Access token validation failure."
