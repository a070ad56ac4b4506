"""What the tenants of Entra hold: service principals, app registrations and their credentials."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography import x509


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A service principal: of an application in one tenant, or of a managed identity."""

    object_id: str
    app_id: str
    name: str
    tenant_id: str
    reads_directory: bool = False
    """Whether Graph shows it other principals, and lets it register applications."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """A password of an application."""

    key_id: str
    name: str
    value: str = field(repr=False)
    starts: float
    """Seconds since 1970."""
    ends: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A certificate of an application: its public half, which is all that Entra has."""

    key_id: str
    name: str
    der: bytes = field(repr=False)
    starts: float
    """Seconds since 1970."""
    ends: float

    @property
    def sha1(self) -> bytes:
        """The thumbprint that the portal shows."""
        return hashlib.sha1(self.der, usedforsecurity=False).digest()

    @property
    def sha256(self) -> bytes:
        """The thumbprint of today's clients."""
        return hashlib.sha256(self.der).digest()

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate itself."""
        return x509.load_der_x509_certificate(self.der)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An app registration; its federated credentials are resources below it."""

    id: str
    """`/applications/OBJECT-ID`: Graph's path to it."""
    object_id: str
    app_id: str
    name: str
    tenant_id: str
    """Its home."""
    multi_tenant: bool = False
    """Whether other tenants may provision it."""
    secrets: tuple[ClientSecret, ...] = ()
    certificates: tuple[ClientCertificate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedCredential:
    """Whose tokens an application or a user-assigned identity is signed in by."""

    id: str
    """Below that of the application or the identity."""
    name: str
    issuer: str
    subject: str
    audience: str
    description: str = ""
    since: float = 0.0
    """Seconds since 1970 from which on the sign-in service knows it, as it is now."""
