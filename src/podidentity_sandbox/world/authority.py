"""The sandbox's own certificate authority: a new one at each `up`, trusted by nobody else.

The authority's key is never written: after its certificates are signed it is forgotten, so
nothing on the machine can sign another name, and trusting the authority is no risk.

Strict clients (OpenSSL 3, Python's VERIFY_X509_STRICT from 3.13 on) want key identifiers, key usage
and critical basic constraints as RFC 5280 section 4.2 asks: https://www.rfc-editor.org/rfc/rfc5280.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from podidentity_sandbox.azure.tenants import CLOUDS, MANAGEMENT, PUBLIC
from podidentity_sandbox.plan import (
    APISERVER_ADDRESS,
    AZURE_ADDRESS,
    KUBERNETES_ADDRESS,
    KUBERNETES_SERVICE,
    MACHINE_BUNDLES,
    Plan,
)
from podidentity_sandbox.world import SandboxError

_LIFE = timedelta(days=365)
APISERVER_NAMES = (
    "127.0.0.1",
    APISERVER_ADDRESS,
    KUBERNETES_ADDRESS,
    KUBERNETES_SERVICE,
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
AZURE_NAMES = (
    AZURE_ADDRESS,
    *(name for cloud in CLOUDS for name in cloud.logins),
    *MANAGEMENT,
    *(cloud.graph for cloud in CLOUDS),
    "*.vault.azure.net",
    f"*{PUBLIC.blobs}",
)
"""The names that the sandbox's Azure serves: see `azure.server`."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority whose key lives in this object only."""

    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, name: str) -> Self:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(f"podidentity sandbox {name}")
        certificate = (
            _begin(subject, subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @property
    def pem(self) -> str:
        return _pem(self.certificate)

    def issue(self, names: Sequence[str], certificate: Path, key: Path) -> None:
        """Write a server's certificate for DNS names and addresses, and its key (mode 0600)."""
        self._write(
            _subject(names[-1]),
            ExtendedKeyUsageOID.SERVER_AUTH,
            (certificate, key),
            x509.SubjectAlternativeName([_name(n) for n in names]),
        )

    def issue_client(
        self,
        user: str,
        groups: Sequence[str],
        certificate: Path,
        key: Path,
        *,
        life: timedelta = _LIFE,
    ) -> None:
        """Write the certificate of a user of the API server in groups, and its key (mode 0600).

        It began an hour ago; `life` is the time from now on, so that a negative one has expired.
        """
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        self._write(_subject(user, groups), usage, (certificate, key), life=life)

    def _write(
        self,
        subject: x509.Name,
        usage: x509.ObjectIdentifier,
        paths: tuple[Path, Path],
        *more: x509.ExtensionType,
        life: timedelta = _LIFE,
    ) -> None:
        own = ec.generate_private_key(ec.SECP256R1())
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _begin(subject, self.certificate.subject, own.public_key(), life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(signer, critical=False)
        )
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        certificate, key = paths
        certificate.write_text(_pem(builder.sign(self._key, hashes.SHA256())))
        key.touch(mode=0o600)
        key.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def write_certificates(plan: Plan, *addresses: str) -> None:
    """Write ca.crt, bundle.pem and the certificates of the API server, of Azure and of a person.

    The API server is at these addresses, too. The person is the cluster's administrator without
    Entra, by the name that AKS gives him.
    """
    authority = Authority.new(plan.name)
    plan.ca_certificate.write_text(authority.pem)
    plan.ca_bundle.write_text(machine_authorities() + "\n" + authority.pem)
    for part, names in (("apiserver", (*addresses, *APISERVER_NAMES)), ("azure", AZURE_NAMES)):
        authority.issue(names, plan.path / f"{part}.crt", plan.path / f"{part}.key")
    authority.issue_client("masterclient", ["system:masters"], *plan.administrator_files)
    if plan.kubernetes:
        authority.issue_client("kube-apiserver", [], *plan.kubelet_client_files)
        authority.issue_client("front-proxy", [], *plan.front_proxy_files)
        for node in plan.nodes:
            authority.issue([node.address, node.name], *plan.kubelet_files(node))


def machine_authorities() -> str:
    """Return the machine's own authorities, PEM.

    SSL_CERT_FILE is not asked: in a shell that has a sandbox's environment it names that sandbox's
    bundle.
    """
    for candidate in map(Path, MACHINE_BUNDLES):
        if candidate.is_file():
            return candidate.read_text()
    raise SandboxError(
        "this machine has no file of certificate authorities "
        f"({', '.join(MACHINE_BUNDLES)}). Install the package ca-certificates"
    )


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    life: timedelta = _LIFE,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str, groups: Sequence[str] = ()) -> x509.Name:
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    return x509.Name([*organisations, *names])


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
