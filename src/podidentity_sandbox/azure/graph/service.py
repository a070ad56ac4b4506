"""The front of Graph: whose token, whose directory, which object.

An application reads and changes the directory only where it was given permission to, which is no
role of Azure: the operator was, managed identities were not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from podidentity_sandbox.azure.graph import applications, principals
from podidentity_sandbox.azure.graph.call import GraphCall, GraphError, unknown
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tenants import CLOUDS, PUBLIC, Tenant
from podidentity_sandbox.azure.tokens import Issuers
from podidentity_sandbox.azure.verification import Caller, TokenFault, TokenRefused, Verifier

HOSTS = frozenset(cloud.graph for cloud in CLOUDS)
_ONE = "([^/]+)"
_FEDERATED = f"applications/{_ONE}/{applications.CHILD}"


def _nobody(call: GraphCall) -> Reply:
    kind = call.request.path.rstrip("/").rpartition("/")[2]
    return call.collection(kind, [])  # the sandbox's directory has no people


def _no_such(_: GraphCall, __: str, name: str) -> Reply:
    raise unknown(name)


def _not_a_person(_: GraphCall) -> Reply:
    message = "/me request is only valid with delegated authentication flow."
    raise GraphError(400, "BadRequest", message)


_ROUTES: tuple[tuple[str, str, Callable[..., Reply]], ...] = (
    ("GET", "servicePrincipals", principals.list_principals),
    ("POST", "servicePrincipals", principals.make_principal),
    ("GET", f"servicePrincipals/{_ONE}", principals.get_principal),
    ("POST", "directoryObjects/getByIds", principals.by_ids),
    ("GET", "applications", applications.list_applications),
    ("POST", "applications", applications.make_application),
    ("GET", f"applications/{_ONE}", lambda call, name: Reply.json(_shown(call, name))),
    ("PATCH", f"applications/{_ONE}", applications.change_application),
    ("DELETE", f"applications/{_ONE}", applications.delete_application),
    ("POST", f"applications/{_ONE}/addPassword", applications.add_password),
    ("GET", _FEDERATED, applications.list_credentials),
    ("POST", _FEDERATED, applications.make_credential),
    ("GET", "(?:users|groups)", _nobody),
    ("GET", f"(users|groups)/{_ONE}", _no_such),
    ("GET", "me", _not_a_person),
)


class Graph:
    """The directories of all tenants; each sees its own."""

    def __init__(self, world: World, issuers: Issuers) -> None:
        self._world = world
        self._verifiers = {
            tenant.id: (tenant, _verifier(tenant, issuers)) for tenant in world.tenants.all
        }

    def handle(self, request: Request) -> Reply:
        """Answer one request to a host of Graph, such as graph.microsoft.com."""
        try:
            tenant = self._admit(request)
            return _answer(GraphCall(world=self._world, tenant=tenant, request=request))
        except GraphError as error:
            return error.reply(self._world.clock())

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
        for tenant, verifier in self._verifiers.values():
            if tenant.cloud.graph != host:
                continue
            try:
                return tenant, verifier.verify(request.bearer, self._world.clock())
            except TokenRefused as error:
                if error.fault is not TokenFault.ISSUER:
                    refused = error
        raise GraphError(401, "InvalidAuthenticationToken", _words(refused)) from refused


def _verifier(tenant: Tenant, issuers: Issuers) -> Verifier:
    resource = f"https://{tenant.cloud.graph}"
    return Verifier(
        keys=issuers.of(tenant).jwks, issuer=tenant.issuer, audiences=(resource, f"{resource}/")
    )


def _answer(call: GraphCall) -> Reply:
    method, path = call.request.method, call.request.path.rstrip("/")
    # `applications(appId='…')` is another way to write `applications/…`.
    below = re.sub(r"^/v1\.0/(\w+)\(([^)]*)\)", r"/v1.0/\1/\2", path).removeprefix("/v1.0/")
    for verb, pattern, handler in _ROUTES:
        if verb == method and (match := re.fullmatch(pattern, below)):
            return handler(call, *match.groups())
    raise GraphError(400, "BadRequest", f"The sandbox's Graph has no {method} {path}.")


def _shown(call: GraphCall, name: str) -> dict[str, object]:
    return applications.shown(applications.existing(call, name))


def _words(error: TokenRefused) -> str:
    if error.fault is TokenFault.EXPIRED:
        return "Lifetime validation failed, the token is expired."
    if error.fault is TokenFault.AUDIENCE:
        return "Access token validation failure. Invalid audience."
    return "Access token validation failure."
