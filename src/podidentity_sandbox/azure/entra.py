"""Microsoft Entra ID of the sandbox: discovery, keys, and the client-credentials grant.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from podidentity_sandbox.azure.entra_errors import EntraError, missing, unknown_resource
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.state import Principal, World
from podidentity_sandbox.azure.tokens import Issuer, is_resource

HOST = "login.microsoftonline.com"
LOGIN = f"https://{HOST}"
LIFETIME = 3600
"""Seconds that an application's token lives."""


class Entra:
    """The sign-in service."""

    def __init__(self, world: World, issuer: Issuer) -> None:
        self._world = world
        self._issuer = issuer

    def handle(self, request: Request) -> Reply:
        """Answer one request to login.microsoftonline.com or sts.windows.net."""
        if (request.method, request.path) == ("GET", "/common/discovery/instance"):
            return Reply.json(self._instances())
        match = _PATH.fullmatch(request.path)
        method = "POST" if match and match["token"] else "GET"
        if match is None or request.method != method:
            return Reply(status=404, content_type="text/html")
        try:
            self._known_tenant(match["tenant"])
            return self._answer(request, match)
        except EntraError as error:
            return error.reply(self._world.clock())

    def _answer(self, request: Request, match: re.Match[str]) -> Reply:
        if match["keys"]:
            return Reply.json(self._issuer.jwks())
        if match["configuration"] is not None:
            return Reply.json(self._configuration(v2=bool(match["configuration"])))
        form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
        v2 = bool(match["v2"])
        principal = self._authenticated(form)
        resource = _resource(form, v2=v2)
        return self._token(principal, resource, v2=v2)

    def _instances(self) -> dict[str, object]:
        # MSAL asks which names this authority has, before it tells an error to its caller.
        names = {"preferred_network": HOST, "preferred_cache": "login.windows.net"}
        tenant = f"{LOGIN}/{self._world.plan.tenant_id}"
        return {
            "tenant_discovery_endpoint": f"{tenant}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [{**names, "aliases": [HOST, "login.windows.net", "sts.windows.net"]}],
        }

    def _known_tenant(self, tenant: str) -> None:
        if tenant.lower() != self._world.plan.tenant_id:
            raise EntraError(
                400,
                "invalid_request",
                90002,
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID"
                " and are signing into the correct cloud. Check with your subscription"
                " administrator, this may happen if there are no active subscriptions for the"
                " tenant.",
            )

    def _configuration(self, *, v2: bool) -> dict[str, object]:
        tenant = self._world.plan.tenant_id
        path = f"{LOGIN}/{tenant}/oauth2{'/v2.0' if v2 else ''}"
        return {
            "token_endpoint": f"{path}/token",
            "token_endpoint_auth_methods_supported": [
                "client_secret_post",
                "private_key_jwt",
                "client_secret_basic",
            ],
            "jwks_uri": f"{LOGIN}/{tenant}/discovery{'/v2.0' if v2 else ''}/keys",
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "issuer": f"{LOGIN}/{tenant}/v2.0" if v2 else self._issuer.issuer,
            "authorization_endpoint": f"{path}/authorize",
        }

    def _authenticated(self, form: Mapping[str, str]) -> Principal:
        for name in ("grant_type", "client_id"):
            if not form.get(name):
                raise missing(name)
        if form["grant_type"] != "client_credentials":
            raise EntraError(
                400,
                "unsupported_grant_type",
                70003,
                f"The app requested an unsupported grant type '{form['grant_type']}'.",
            )
        app = form["client_id"]
        principal = self._application(app)
        if principal is None:
            raise EntraError(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{app}' was not found in the directory"
                f" '{self._world.plan.tenant_id}'. This can happen if the application has not been"
                " installed by the administrator of the tenant or consented to by any user in the"
                " tenant. You may have sent your authentication request to the wrong tenant.",
            )
        if not form.get("client_secret"):
            raise EntraError(
                401,
                "invalid_client",
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or"
                " 'client_secret'.",
            )
        if not hmac.compare_digest(form["client_secret"].encode(), principal.secret.encode()):
            raise EntraError(
                401,
                "invalid_client",
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is"
                " the client secret value, not the client secret ID, for a secret added to app"
                f" '{app}'.",
            )
        return principal

    def _application(self, app_id: str) -> Principal | None:
        # A managed identity has a principal but no credential of its own: no secret fits it.
        for principal in self._world.principals.values():
            if principal.secret and principal.app_id == app_id.lower():
                return principal
        return None

    def _token(self, principal: Principal, resource: str, *, v2: bool) -> Reply:
        if not is_resource(resource):
            raise unknown_resource(resource, self._world.plan.tenant_id)
        now = self._world.clock()
        token = self._issuer.mint(
            app_id=principal.app_id,
            object_id=principal.object_id,
            audience=resource,
            now=now,
            lifetime=LIFETIME,
        )
        left = LIFETIME - 1
        headers = {"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"}
        if v2:
            body = {"token_type": "Bearer", "expires_in": left, "ext_expires_in": left}
            return Reply.json({**body, "access_token": token}, headers=headers)
        old = {
            "token_type": "Bearer",
            "expires_in": str(left),
            "ext_expires_in": str(left),
            "expires_on": str(int(now) + LIFETIME),
            "not_before": str(int(now) - 300),
            "resource": resource,
        }
        return Reply.json({**old, "access_token": token}, headers=headers)


def _resource(form: Mapping[str, str], *, v2: bool) -> str:
    name = "scope" if v2 else "resource"
    asked = form.get(name, "")
    if not asked:
        raise missing(name)
    if not v2:
        return asked
    if not asked.endswith("/.default") or " " in asked:
        raise EntraError(
            400,
            "invalid_scope",
            1002012,
            f"The provided value for scope {asked} is not valid. Client credential flows must have"
            " a scope value with /.default suffixed to the resource identifier (application ID"
            " URI).",
        )
    # Everything before the last segment is the resource: `https://x//.default` keeps its slash.
    return asked.removesuffix("/.default")


_PATH = re.compile(
    r"/(?P<tenant>[^/]+)/(?:"
    r"(?P<configuration>(?:v2\.0/)?)\.well-known/openid-configuration"
    r"|(?P<keys>discovery/(?:v2\.0/)?keys)"
    r"|(?P<token>oauth2/(?P<v2>v2\.0/)?token))"
)
