"""The strictest client that Python has trusts the sandbox's servers, by exactly their names."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from podidentity_sandbox.world.authority import (
    APISERVER_NAMES,
    AZURE_NAMES,
    machine_authorities,
    write_certificates,
)
from podidentity_sandbox.world.blueprint import TWO_NODES, draw_plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(draw_plan("one", folder, TWO_NODES))
    return folder


def shake_hands(folder: Path, part: str, name: str, authorities: str) -> None:
    """Let a client and a server of `part` talk in memory; raise ssl.SSLError."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(folder / f"{part}.crt", folder / f"{part}.key")
    client_side = ssl.create_default_context(cafile=str(folder / authorities))
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


CASES = [
    *(("apiserver", name) for name in APISERVER_NAMES),
    *(("azure", name.replace("*", "some-vault")) for name in AZURE_NAMES),
]


@pytest.mark.parametrize(("part", "name"), CASES)
@pytest.mark.parametrize("authorities", ["ca.crt", "bundle.pem"])
def test_a_strict_client_trusts_a_server_by_its_name(
    folder: Path, part: str, name: str, authorities: str
) -> None:
    shake_hands(folder, part, name, authorities)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("apiserver", "login.microsoftonline.com"),
        ("apiserver", "127.0.0.2"),
        ("azure", "vault.azure.net"),
        ("azure", "a.b.vault.azure.net"),
        ("azure", "kubernetes.default.svc"),
    ],
)
def test_no_server_is_trusted_by_another_name(folder: Path, part: str, name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        shake_hands(folder, part, name, "ca.crt")


def test_the_authoritys_key_is_nowhere(folder: Path) -> None:
    assert sorted(path.name for path in folder.glob("*.key")) == [
        "apiserver.key",
        "azure.key",
        "masterclient.key",
    ]
    for path in folder.glob("*.crt"):
        assert "PRIVATE" not in path.read_text()
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.glob("*.key"))


def test_the_bundle_holds_the_machines_authorities_too(folder: Path) -> None:
    bundle = (folder / "bundle.pem").read_text()
    assert machine_authorities() in bundle
    assert (folder / "ca.crt").read_text() in bundle
    ssl.create_default_context(cafile=str(folder / "bundle.pem"))
