"""The front of Entra: which tenant, which document or token, and who has proved to be whom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from urllib.parse import parse_qsl

from podidentity_sandbox.azure.entra import credentials
from podidentity_sandbox.azure.entra.answers import (
    EntraError,
    answer,
    doubled,
    missing,
    refusal,
    resource_of,
    unknown_resource,
)
from podidentity_sandbox.azure.entra.credentials import (
    Assertion,
    Client,
    check_certificate,
    check_secret,
    client_of,
)
from podidentity_sandbox.azure.entra.issuers import IssuerUnreachable, PublishedKeys
from podidentity_sandbox.azure.faults import strike
from podidentity_sandbox.azure.messages import Reply, Request, RequestLog
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tenants import PUBLIC, Cloud, Tenant, Tenants, cloud_of
from podidentity_sandbox.azure.tokens import (
    APPLICATION_LIFETIME,
    MANAGED_LIFETIME,
    Grant,
    Issuers,
    SignedInBy,
)


def instances(tenants: Tenants, cloud: Cloud) -> dict[str, object]:
    """Return the names that this authority has: MSAL asks before it tells an error."""
    home = next(tenant for tenant in tenants.all if tenant.cloud is cloud)
    host = cloud.logins[0]
    names = {"preferred_network": host, "preferred_cache": cloud.logins[-1]}
    return {
        "tenant_discovery_endpoint": f"https://{host}/{home.id}/v2.0/.well-known"
        "/openid-configuration",
        "api-version": "1.1",
        "metadata": [{**names, "aliases": list(cloud.logins)}],
    }


def configuration(tenant: Tenant, *, v2: bool) -> dict[str, object]:
    base = f"https://{tenant.cloud.logins[0]}/{tenant.id}"
    path = f"{base}/oauth2{'/v2.0' if v2 else ''}"
    return {
        "token_endpoint": f"{path}/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "jwks_uri": f"{base}/discovery{'/v2.0' if v2 else ''}/keys",
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "issuer": tenant.issuer_v2 if v2 else tenant.issuer,
        "authorization_endpoint": f"{path}/authorize",
    }


FORM = "application/x-www-form-urlencoded"


def fields_of(request: Request) -> list[tuple[str, str]]:
    """Return the fields of a form; [] of a body of another type, in which Entra finds none.

    https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        return []
    return parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True)


# ---- The log's entry of a request for a token: caller and resource, never the secret


def asked(form: Mapping[str, str]) -> dict[str, str]:
    """Return the log's entry of a form that reached Entra."""
    assertion, secret = form.get("client_assertion"), form.get("client_secret")
    return {
        "grant_type": form.get("grant_type", ""),
        "client_id": form.get("client_id", ""),
        "credential": "assertion" if assertion else "secret" if secret else "",
        "scope": form.get("scope") or form.get("resource", ""),
    }


# ---- The front


class Entra:
    """The sign-in service of all clouds."""

    def __init__(self, world: World, issuers: Issuers, published: PublishedKeys) -> None:
        self._world = world
        self._issuers = issuers
        self._published = published
        self.journal = RequestLog()

    async def handle(self, request: Request) -> Reply:
        """Answer one request to a host of Entra, such as login.microsoftonline.com."""
        cloud = cloud_of(request.host) or PUBLIC
        if (request.method, request.path) == ("GET", "/common/discovery/instance"):
            return Reply.json(instances(self._world.tenants, cloud))
        match = _PATH.fullmatch(request.path)
        method = "POST" if match and match["token"] else "GET"
        if match is None or request.method != method:
            return Reply(status=404, content_type="text/html")
        if match["token"]:
            return await self._recorded(request, match, cloud)
        try:
            tenant = self._tenant(match["tenant"], cloud)
        except EntraError as error:
            return error.reply(self._world.clock())
        if match["keys"]:
            return Reply.json(self._issuers.of(tenant).jwks())
        return Reply.json(configuration(tenant, v2=bool(match["configuration"])))

    async def _recorded(self, request: Request, match: re.Match[str], cloud: Cloud) -> Reply:
        fields = fields_of(request)
        form = dict(fields)
        now, name = self._world.clock(), match["tenant"]
        who = {"source": request.source, "host": request.host, "tenant": name}
        entry = self.journal.open(time=now, **who, **asked(form), code=0)
        try:
            weather = self._world.weather
            reply = await strike(weather, "entra", "token", partial(refusal, now=now))
            if reply is None:
                if len(form) < len(fields):
                    names = [name for name, _ in fields]
                    raise doubled(next(one for one in names if names.count(one) > 1))
                reply = await self._token(self._tenant(name, cloud), form, v2=bool(match["v2"]))
        except EntraError as error:
            entry["code"] = error.code
            reply = error.reply(now)
        entry["status"] = reply.status
        return reply

    def _tenant(self, name: str, cloud: Cloud) -> Tenant:
        tenant = self._world.tenants.find(name)
        if tenant is None:
            raise EntraError(
                90002,
                f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID"
                " and are signing into the correct cloud. Check with your subscription"
                " administrator, this may happen if there are no active subscriptions for the"
                " tenant.",
            )
        if tenant.cloud is not cloud:
            # https://learn.microsoft.com/entra/identity-platform/reference-error-codes
            words = "Confidential Client is not supported in Cross Cloud request."
            raise EntraError(900382, words)
        return tenant

    async def _token(self, tenant: Tenant, form: Mapping[str, str], *, v2: bool) -> Reply:
        for name in ("grant_type", "client_id"):
            if not form.get(name):
                raise missing(name)
        if (kind := form["grant_type"]) != "client_credentials":
            raise EntraError(70003, f"The app requested an unsupported grant type '{kind}'.")
        client = client_of(self._world, form["client_id"], tenant)
        signed_in_by = await self._authenticated(client, tenant, form)
        resource = resource_of(form, v2=v2)
        app_id = resource.removeprefix("api://").removesuffix("/")
        known = tenant.cloud.has_resource(resource) or self._world.principal_of(app_id, tenant.id)
        if not known:
            raise unknown_resource(resource, tenant.id)
        grant = Grant(
            principal=client.principal,
            audience=resource,
            signed_in_by=signed_in_by,
            managed_identity=client.managed_identity,
        )
        lifetime = MANAGED_LIFETIME if client.managed_identity else APPLICATION_LIFETIME
        now = self._world.clock()
        token = self._issuers.of(tenant).mint(grant, now=now, lifetime=lifetime)
        return answer(token, lifetime, resource, now, v2=v2)

    async def _authenticated(
        self, client: Client, tenant: Tenant, form: Mapping[str, str]
    ) -> SignedInBy:
        now = self._world.clock()
        if given := form.get("client_assertion"):
            if form.get("client_assertion_type") != credentials.TYPE:
                raise missing("client_assertion_type")
            assertion = credentials.read(given)
            if assertion.said("iss").startswith(("https://", "http://")):
                await self._check_federated(client, assertion, now)
            else:
                check_certificate(client, assertion, tenant, now)
            return SignedInBy.ASSERTION
        if not form.get("client_secret"):
            raise EntraError(
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or"
                " 'client_secret'.",
            )
        check_secret(client, form["client_secret"], now)
        return SignedInBy.SECRET

    async def _check_federated(self, client: Client, assertion: Assertion, now: float) -> None:
        credential = credentials.check_match(client, assertion, now)
        if credentials.is_own(credential.issuer):
            self._check_own(client, assertion)
            return
        try:
            keys = await self._published.find(credential.issuer, assertion.header.get("kid"))
        except IssuerUnreachable as error:
            raise credentials.unreachable() from error
        if not any(assertion.signed_by(key) for key in keys):
            raise credentials.unproved()

    def _check_own(self, client: Client, assertion: Assertion) -> None:
        tenant = self._world.tenants.find(assertion.said("tid"))
        signer = self._world.principals.get(assertion.said("oid"))
        application = self._world.application(client.principal.app_id)
        if tenant is None or not self._issuers.of(tenant).signed(assertion.text):
            raise credentials.unproved()
        home = application.tenant_id if application else ""
        credentials.check_own_token(client, assertion, home, signer)


_PATH = re.compile(
    r"/(?P<tenant>[^/]+)/(?:"
    r"(?P<configuration>(?:v2\.0/)?)\.well-known/openid-configuration"
    r"|(?P<keys>discovery/(?:v2\.0/)?keys)"
    r"|(?P<token>oauth2/(?P<v2>v2\.0/)?token))"
)
