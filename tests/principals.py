"""Identities that sign in to Entra, what they sign in with, and certificates made in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from podidentity.core.errors import TokenUnavailable
from podidentity.core.resources import (
    AzureIdentity,
    Entra,
    Federation,
    IdentityType,
    ObjectRef,
    Tenant,
)
from podidentity.core.secrets import Secret
from tests.fakes import NOW, identity

TENANT = "aaaaaaaa-2222-3333-4444-555555555555"
REF = ObjectRef("shop", "orders-secret")
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def principal(kind: IdentityType = IdentityType.SERVICE_PRINCIPAL, **changes: Any) -> AzureIdentity:
    """Return an identity of type 1 or 2 with the secret `orders-secret`; `changes` of its Entra."""
    entra = Entra(**{"tenant": Tenant.parse(TENANT), "secret": REF, **changes})
    return identity(type=kind, resource_id=None, entra=entra)


def federated(federation: Federation | None = None, **changes: Any) -> AzureIdentity:
    """Return an identity of type 3."""
    told = {"secret": None, "federation": federation or Federation(), **changes}
    return principal(IdentityType.FEDERATED, **told)


def secret(digest: str = "d1", **entries: bytes) -> Secret:
    """Return the secret `orders-secret` with these entries."""
    return Secret(ref=REF, entries=entries, digest=digest)


class FakeSecrets:
    """Knows what the test puts in; reads what is not known yet, or fails."""

    def __init__(self, *known: Secret) -> None:
        self.of = {each.ref: each for each in known}
        self.to_read: dict[ObjectRef, Secret | TokenUnavailable] = {}

    def known(self, ref: ObjectRef) -> Secret | None:
        return self.of.get(ref)

    async def read(self, ref: ObjectRef) -> Secret:
        found = self.to_read[ref]
        if isinstance(found, TokenUnavailable):
            raise found
        self.of[ref] = found
        return found


@cache
def rsa_key(size: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=size)


def certificate_of(
    key: Key, name: str = "orders", *, starts: float = NOW - 60, ends: float = NOW + 86_400
) -> x509.Certificate:
    """Return a self-signed certificate."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(zero + timedelta(seconds=starts))
        .not_valid_after(zero + timedelta(seconds=ends))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )


def pem_of(key: Key, *certificates: x509.Certificate, password: bytes | None = None) -> bytes:
    """Return PEM: the certificates, then the key."""
    how = BestAvailableEncryption(password) if password else NoEncryption()
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates) + plain


def pfx_of(key: Key, *certificates: x509.Certificate, password: bytes | None = None) -> bytes:
    """Return PKCS#12: the first certificate is the key's."""
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    how = BestAvailableEncryption(password) if password else NoEncryption()
    return pkcs12.serialize_key_and_certificates(b"x", key, certificates[0], certificates[1:], how)
