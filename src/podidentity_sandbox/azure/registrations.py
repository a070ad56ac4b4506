"""App registrations and federated credentials, as the operator makes them: one call each."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from podidentity_sandbox.azure.connection import ARM, Connection, Json
from podidentity_sandbox.azure.tenants import EXCHANGE, Tenant

_CREDENTIALS = "federatedIdentityCredentials"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An app registration."""

    name: str
    client_id: str
    object_id: str
    """Of the registration."""
    principal_id: str
    """Object id of its service principal at home."""
    tenant: Tenant
    """Its home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSecret:
    """A new secret of an application."""

    key_id: str
    value: str = field(repr=False)


class Registrations(Connection):
    """What the operator does in the directories of the sandbox's tenants."""

    async def make_app(
        self, name: str, *, tenant: Tenant | None = None, multi_tenant: bool = False
    ) -> App:
        """Register an application, with its service principal; at home unless `tenant` says else.

        `tenants` has them all: home, partner, government, china.
        """
        where = tenant or self.tenants.home
        audience = "AzureADMultipleOrgs" if multi_tenant else "AzureADMyOrg"
        wanted = {"displayName": name, "signInAudience": audience}
        made = await self.graph("POST", "applications", wanted, tenant=where)
        principal = await self.graph(
            "POST", "servicePrincipals", {"appId": made["appId"]}, tenant=where
        )
        return App(
            name=name,
            client_id=made["appId"],
            object_id=made["id"],
            principal_id=principal["id"],
            tenant=where,
        )

    async def provision(self, app: App, tenant: Tenant) -> str:
        """Make the service principal of an app in another tenant; return its object id there."""
        body = {"appId": app.client_id}
        return str((await self.graph("POST", "servicePrincipals", body, tenant=tenant))["id"])

    async def add_secret(
        self, app: App, *, starts: datetime | None = None, ends: datetime | None = None
    ) -> AppSecret:
        """Give an app one more secret; by default it holds from now on for two years."""
        asked = {"displayName": app.name}
        asked |= {"startDateTime": _stamp(starts)} if starts else {}
        asked |= {"endDateTime": _stamp(ends)} if ends else {}
        made = await self._on(app, "POST", "/addPassword", {"passwordCredential": asked})
        return AppSecret(key_id=made["keyId"], value=made["secretText"])

    async def remove_secret(self, app: App, key_id: str) -> None:
        """Take a secret away from an app."""
        await self._on(app, "POST", "/removePassword", {"keyId": key_id})

    async def add_certificate(self, app: App, pem: bytes) -> None:
        """Register a certificate, PEM, of an app; those that it has stay."""
        der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        have = (await self._on(app, "GET", ""))["keyCredentials"]
        new = {"type": "AsymmetricX509Cert", "usage": "Verify"}
        new["key"] = base64.b64encode(der).decode()
        await self._on(app, "PATCH", "", {"keyCredentials": [*have, new]})

    async def remove_certificates(self, app: App) -> None:
        """Take all certificates away from an app."""
        await self._on(app, "PATCH", "", {"keyCredentials": []})

    async def add_federated_credential(
        self, owner: App | str, name: str, *, issuer: str, subject: str, audience: str = EXCHANGE
    ) -> None:
        """Let tokens of `issuer` for `subject` sign in an app, or an identity by its resource id.

        Of the sandbox's cluster the issuer is `cluster.tokens.ISSUER`, a subject
        `system:serviceaccount:NAMESPACE:NAME`. A credential of an identity is replaced by one of
        the same name. Raises AzureError.
        """
        wanted = {"issuer": issuer, "subject": subject, "audiences": [audience]}
        if isinstance(owner, App):
            await self._on(owner, "POST", f"/{_CREDENTIALS}", {"name": name, **wanted})
        else:
            await self._of_identity("PUT", owner, name, {"properties": wanted})

    async def delete_federated_credential(self, owner: App | str, name: str) -> None:
        """Delete a credential of an app, or of an identity by its resource id."""
        if isinstance(owner, App):
            await self._on(owner, "DELETE", f"/{_CREDENTIALS}/{name}")
        else:
            await self._of_identity("DELETE", owner, name)

    async def graph(
        self, method: str, path: str, body: object = None, *, tenant: Tenant | None = None
    ) -> Json:
        """Call Graph in a tenant; `path` is below /v1.0/. Raises AzureError."""
        where = tenant or self.tenants.home
        host = f"https://{where.cloud.graph}"
        url = f"{host}/v1.0/{path}"
        return (await self._call(method, url, body, resource=host, tenant=where)).body

    async def _on(self, app: App, method: str, below: str, body: object = None) -> Json:
        path = f"applications/{app.object_id}{below}"
        return await self.graph(method, path, body, tenant=app.tenant)

    async def _of_identity(
        self, method: str, identity_id: str, name: str, body: object = None
    ) -> None:
        url = f"{ARM}{identity_id}/{_CREDENTIALS}/{name}?api-version=2024-11-30"
        await self._call(method, url, body, resource=f"{ARM}/")


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
