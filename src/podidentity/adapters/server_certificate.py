"""The certificate of the agent's TLS port: given by files, or made at the start.

A certificate that the agent makes is signed by nobody: Prometheus is told `insecure_skip_verify`,
as for controller-runtime's default. It is made by a process of its own, because `cryptography`
would cost the agent 3 MB for one key.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from podidentity.core.ports import Clock

DAYS = 3650
"""The agent makes another at its next start."""
_LOOK_AGAIN = 10.0
"""Seconds between two looks at whether given files have changed."""
_COMMAND = (sys.executable, "-I", "-m", "podidentity.adapters.server_certificate")


_log = logging.getLogger("podidentity.tls")


class CertificateError(Exception):
    """There is no certificate to serve with; says why."""


class ServerCertificate:
    """A TLS context whose certificate is renewed when its files are."""

    def __init__(self, context: ssl.SSLContext, files: tuple[Path, Path] | None = None) -> None:
        self.context = context
        self._files = files
        self._seen = _state(files)

    @classmethod
    def of_files(cls, certificate: Path, key: Path) -> ServerCertificate:
        """Return what serves with a certificate (its chain behind it) and a key, both PEM."""
        context = _context()
        _load(context, certificate, key)
        return cls(context, (certificate, key))

    @classmethod
    async def made(cls, name: str) -> ServerCertificate:
        """Return what serves with a new certificate for `name`, signed by itself."""
        process = await asyncio.create_subprocess_exec(
            *_COMMAND, name, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        pem, _ = await process.communicate()
        if process.returncode != 0:
            raise CertificateError(f"no certificate was made: exit status {process.returncode}")
        context = _context()
        # The key is on no disk: OpenSSL reads it from memory, by a name.
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(pem)
            where = Path(f"/proc/self/fd/{descriptor}")
            _load(context, where, where)
        finally:
            os.close(descriptor)
        return cls(context)

    async def follow(self, clock: Clock) -> None:
        """Load the files again whenever they have changed, until cancelled.

        While they cannot be used, the certificate of before is served.
        """
        while True:
            await clock.sleep(_LOOK_AGAIN)
            try:
                self.refresh()
            except CertificateError as error:
                _log.error("%s; the one before it is served", error)

    def refresh(self) -> None:
        """Load the files again if they have changed; raise CertificateError, changing nothing."""
        seen = _state(self._files)
        if self._files is None or seen == self._seen:
            return
        self._seen = seen
        # First into a context that serves nobody: a key that does not fit must break none.
        _load(_context(), *self._files)
        _load(self.context, *self._files)


def _state(files: tuple[Path, Path] | None) -> tuple[tuple[int, int], ...]:
    """Return what changes when the files do; kubelets replace them by a link."""
    try:
        found = [each.stat() for each in files or ()]
    except OSError:
        return ()
    return tuple((each.st_mtime_ns, each.st_ino) for each in found)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Nothing of a client is kept for its next connection.
    context.num_tickets = 0
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(f"{certificate} and {key} cannot be used: {error}") from error


def self_signed(name: str) -> bytes:
    """Return a key and a certificate for the DNS name `name`, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "podidentity-nmi")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return plain + certificate.public_bytes(Encoding.PEM)


if __name__ == "__main__":
    sys.stdout.buffer.write(self_signed(sys.argv[1]))
