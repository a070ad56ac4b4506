"""Applications in Entra without sockets: registered through Graph, signed in by what they have."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.tenants import Tenant
from tests.principals import certificate_of
from tests.sandbox.azure.direct import Direct

VAULT = "https://vault.azure.net"
DAY = 86_400
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Registered:
    """An application."""

    direct: Direct
    object_id: str
    client_id: str
    tenant: Tenant

    def graph(self, method: str, below: str = "", body: object = None) -> tuple[int, Any]:
        """Call Graph about it, as the operator at its home."""
        path = f"applications/{self.object_id}{below}"
        return graph(self.direct, method, path, body, tenant=self.tenant)

    def add_secret(self, **times: str) -> str:
        """Make a secret, by its startDateTime and endDateTime; return it."""
        status, made = self.graph("POST", "/addPassword", {"passwordCredential": times})
        assert status == 200, made
        return str(made["secretText"])

    def add_certificate(self, certificate: x509.Certificate) -> None:
        """Register a certificate beside those that are there."""
        der = certificate.public_bytes(serialization.Encoding.DER)
        new = {"type": "AsymmetricX509Cert", "usage": "Verify"}
        new["key"] = base64.b64encode(der).decode()
        have = self.graph("GET")[1]["keyCredentials"]
        status, answer = self.graph("PATCH", "", {"keyCredentials": [*have, new]})
        assert status == 204, answer

    def trust(self, name: str, issuer: str, subject: str, audience: str) -> None:
        """Make a federated credential."""
        body = {"name": name, "issuer": issuer, "subject": subject, "audiences": [audience]}
        status, answer = self.graph("POST", "/federatedIdentityCredentials", body)
        assert status == 201, answer

    def sign_in(self, *, tenant: str = "", **form: str) -> tuple[Reply, Any]:
        """Ask for a token for Key Vault in a tenant, its home by default."""
        whole = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "scope": f"{VAULT}/.default",
            **form,
        }
        return self.direct.sign_in(whole, tenant=tenant or self.tenant.id)

    def present(self, assertion: str, **more: str) -> tuple[int, list[int]]:
        """Sign in by an assertion; return the status and the AADSTS numbers."""
        reply, body = self.sign_in(
            client_assertion=assertion, client_assertion_type=ASSERTION, **more
        )
        return reply.status, body.get("error_codes", [])


def graph(
    direct: Direct, method: str, path: str, body: object = None, *, tenant: Tenant | None = None
) -> tuple[int, Any]:
    """Call Graph as the operator in a tenant, at home by default."""
    where = tenant or direct.world.tenants.home
    operator = direct.world.principal_of(direct.plan.operator_id, where.id)
    assert operator is not None
    host = where.cloud.graph
    token = direct.token(f"https://{host}", operator, issuer=direct.issuers.of(where))
    request = Request(
        method=method,
        target=f"/v1.0/{path}",
        host=host,
        headers={"authorization": f"Bearer {token}"},
        body=json.dumps(body).encode() if body is not None else b"",
    )
    reply = direct.graph.handle(request)
    return reply.status, json.loads(reply.body) if reply.body else None


def register(
    direct: Direct, name: str = "mine", *, tenant: Tenant | None = None, multi_tenant: bool = False
) -> Registered:
    """Register an application with its service principal."""
    where = tenant or direct.world.tenants.home
    audience = "AzureADMultipleOrgs" if multi_tenant else "AzureADMyOrg"
    wanted = {"displayName": name, "signInAudience": audience}
    status, made = graph(direct, "POST", "applications", wanted, tenant=where)
    assert status == 201, made
    body = {"appId": made["appId"]}
    assert graph(direct, "POST", "servicePrincipals", body, tenant=where)[0] == 201
    return Registered(direct, made["id"], made["appId"], where)


def certified(key: Key, *, starts: float = -DAY, ends: float = DAY) -> x509.Certificate:
    """Return a certificate of a key, from and until so many seconds after now."""
    now = time.time()
    return certificate_of(key, starts=now + starts, ends=now + ends)


NOW = 1_000_000_000
"""Stands in claims for the time of an application's clock."""


def dated(app: Registered, claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return claims with their whole numbers moved from NOW to the clock; None is left out."""
    shift = int(app.direct.clock.now) - NOW
    moved = {name: one + shift if type(one) is int else one for name, one in claims.items()}
    return {name: one for name, one in moved.items() if one is not None}
