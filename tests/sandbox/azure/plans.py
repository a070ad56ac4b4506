"""A plan of two nodes, its certificates, and a clock: what every test of Azure starts from."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from podidentity_sandbox.plan import NodePlan, Plan, stable_guid

NAMES = (
    "login.microsoftonline.com",
    "sts.windows.net",
    "login.windows.net",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "login.chinacloudapi.cn",
    "graph.microsoft.com",
    "graph.microsoft.us",
    "microsoftgraph.chinacloudapi.cn",
    "management.azure.com",
    "*.vault.azure.net",
    "*.blob.core.windows.net",
)


class Clock:
    """Seconds since 1970 that a test turns."""

    def __init__(self) -> None:
        self.now = datetime.datetime.now(datetime.UTC).timestamp()

    def __call__(self) -> float:
        return self.now


def node(index: int, pod_cidr: str) -> NodePlan:
    name = f"node-{index}"
    return NodePlan(
        name=name,
        index=index,
        address=f"10.240.0.{4 + index}",
        pod_cidr=pod_cidr,
        gateway="127.0.0.1",
        provider_id=f"azure://{stable_guid('test', name)}",
        token="kubelet-token",
    )


def make_plan(folder: Path) -> Plan:
    plan = Plan(
        name="test",
        folder=str(folder),
        rootless=False,
        tenant_id=stable_guid("test", "tenant"),
        subscription_id=stable_guid("test", "subscription"),
        operator_id=stable_guid("test", "operator"),
        operator_secret="operator-secret",
        admin_token="admin-token",
        aks_token="aks-token",
        nodes=(),
    )
    first, second = node(0, "127.0.0.0/24"), node(1, "127.0.1.0/24")
    instance = f"azure://{plan.scale_set_id}/virtualMachines/"
    nodes = tuple(replace(one, provider_id=f"{instance}{one.index}") for one in (first, second))
    return replace(plan, nodes=nodes)


def certify(folder: Path) -> None:
    """Write ca.crt, azure.crt and azure.key as the world would."""
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    base = x509.CertificateBuilder().not_valid_before(now - day).not_valid_after(now + day)
    ca = (
        base.subject_name(ca_name)
        .issuer_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
        .add_extension(_ca_usage(), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.DNSName(name) for name in NAMES]
    certificate = (
        base.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "azure")]))
        .issuer_name(ca_name)
        .public_key(key.public_key())
        .serial_number(2)
        .add_extension(
            x509.SubjectAlternativeName(
                [*names, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(ca.public_bytes(pem))
    (folder / "azure.crt").write_bytes(certificate.public_bytes(pem))
    (folder / "azure.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _ca_usage() -> x509.KeyUsage:
    never = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **never)
