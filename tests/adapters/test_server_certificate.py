"""The agent's TLS port has a certificate: given, and renewed with its files, or its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509

from podidentity.adapters.self_signed_certificate import self_signed
from podidentity.adapters.server_certificate import ServerCertificate
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


def keys_in_memory() -> list[str]:
    """Return the files in memory that this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return [each for each in found if "memfd:certificate" in each]


def name_of(certificate: x509.Certificate) -> str:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    (name,) = extension.value.get_values_for_type(x509.DNSName)
    return name


@asynccontextmanager
async def running(certificate: ServerCertificate, clock: FakeClock) -> AsyncIterator[int]:
    """Run and serve it, from its first look at its files on."""
    task = asyncio.create_task(certificate.run(clock))
    await clock.somebody_sleeps()
    async with serving(certificate) as port:
        yield port
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def look_again(clock: FakeClock) -> None:
    clock.advance(10)
    await asyncio.sleep(0)
    await clock.somebody_sleeps()


async def test_a_certificate_is_made_where_none_is_given() -> None:
    certificate = ServerCertificate("n1")
    async with running(certificate, FakeClock()) as port:
        found = await shown(port)
    assert (name_of(found), found.issuer) == ("n1", found.subject)
    assert keys_in_memory() == []


async def test_a_given_certificate_is_served_and_renewed_with_its_files(tmp_path: Path) -> None:
    clock = FakeClock()
    certificate = ServerCertificate("n1", files=written(tmp_path, "first"))
    async with running(certificate, clock) as port:
        assert name_of(await shown(port)) == "first"
        written(tmp_path, "second")
        await look_again(clock)
        assert name_of(await shown(port)) == "second"


ENCRYPTED = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
AAAA
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.mark.parametrize(
    "content",
    [b"", b"rubbish", self_signed("other"), ENCRYPTED],
    ids=["empty", "rubbish", "other", "encrypted"],
)
async def test_files_that_do_not_fit_leave_the_one_before_and_are_said(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A key is replaced before its certificate: for a moment the two do not belong together."""
    clock, files = FakeClock(), written(tmp_path, "first")
    async with running(ServerCertificate("n1", files=files), clock) as port:
        files[1].write_bytes(content)
        await look_again(clock)
        assert name_of(await shown(port)) == "first"
        assert "cannot be used" in caplog.text
        written(tmp_path, "second")
        await look_again(clock)
        assert name_of(await shown(port)) == "second"


async def test_before_its_files_are_there_nobody_is_served_and_then_all_are(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    files = tmp_path / "tls.crt", tmp_path / "tls.key"
    async with running(ServerCertificate("n1", files=files), clock) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shown(port)
        written(tmp_path, "late")
        await look_again(clock)
        assert name_of(await shown(port)) == "late"


def test_what_is_older_than_tls_1_2_is_not_spoken() -> None:
    assert ServerCertificate("n1").context.minimum_version is ssl.TLSVersion.TLSv1_2
