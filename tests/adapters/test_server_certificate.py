"""The agent's TLS port has a certificate: given, and renewed with its files, or its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509

from podidentity.adapters.server_certificate import (
    CertificateError,
    ServerCertificate,
    self_signed,
)
from tests.fakes import FakeClock


@asynccontextmanager
async def serving(certificate: ServerCertificate) -> AsyncIterator[int]:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=certificate.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def shown(port: int) -> x509.Certificate:
    """Return the certificate that a client is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(found)


def written(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate and its key beside each other, as a mounted Secret has them."""
    pem = self_signed(name)
    key, begin, certificate = pem.partition(b"-----BEGIN CERTIFICATE-----")
    files = folder / "tls.crt", folder / "tls.key"
    for file, content in zip(files, (begin + certificate, key), strict=True):
        new = file.with_suffix(".new")
        new.write_bytes(content)
        new.replace(file)
    return files


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def name_of(certificate: x509.Certificate) -> str:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    (name,) = extension.value.get_values_for_type(x509.DNSName)
    return name


async def test_a_certificate_is_made_where_none_is_given() -> None:
    before = descriptors()
    certificate = await ServerCertificate.made("n1")
    assert descriptors() == before
    async with serving(certificate) as port:
        found = await shown(port)
    assert (name_of(found), found.issuer) == ("n1", found.subject)


async def test_a_given_certificate_is_served_and_renewed_with_its_files(tmp_path: Path) -> None:
    certificate = ServerCertificate.of_files(*written(tmp_path, "first"))
    clock = FakeClock()
    following = asyncio.create_task(certificate.follow(clock))
    async with serving(certificate) as port:
        assert name_of(await shown(port)) == "first"
        written(tmp_path, "second")
        await clock.somebody_sleeps()
        clock.advance(10)
        await asyncio.sleep(0)
        await clock.somebody_sleeps()
        assert name_of(await shown(port)) == "second"
    following.cancel()


@pytest.mark.parametrize("content", [b"", b"rubbish", self_signed("other")])
async def test_files_that_do_not_fit_leave_the_one_before(tmp_path: Path, content: bytes) -> None:
    """A key is replaced before its certificate: for a moment the two do not belong together."""
    files = written(tmp_path, "first")
    certificate = ServerCertificate.of_files(*files)
    files[1].write_bytes(content)
    with pytest.raises(CertificateError):
        certificate.refresh()
    async with serving(certificate) as port:
        assert name_of(await shown(port)) == "first"


async def test_a_key_with_a_password_is_refused_and_asks_nobody(tmp_path: Path) -> None:
    files = written(tmp_path, "first")
    files[1].write_bytes(
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    with pytest.raises(CertificateError):
        ServerCertificate.of_files(*files)


async def test_what_is_older_than_tls_1_2_is_not_spoken(tmp_path: Path) -> None:
    certificate = ServerCertificate.of_files(*written(tmp_path, "n1"))
    assert certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2
