"""The certificate of the agent's TLS port: loaded from files, or self-signed at the start.

For the self-signed one Prometheus needs `insecure_skip_verify`, as for controller-runtime's
default. A process of its own makes it, because `cryptography` would cost the agent 3 MB.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import sys
from pathlib import Path

from podidentity.core.ports import Clock

_LOOK_AGAIN = 10.0
"""Seconds between two checks whether the files have changed."""
_COMMAND = (sys.executable, "-I", "-m", "podidentity.adapters.self_signed_certificate")


_log = logging.getLogger("podidentity.tls")


class CertificateError(Exception):
    """Why no certificate can be served."""


class ServerCertificate:
    """A TLS context whose certificate `run` loads and renews; until then it has none."""

    def __init__(self, name: str, *, files: tuple[Path, Path] | None = None) -> None:
        """`files` are a certificate with its chain, and its key, both PEM.

        None: a self-signed certificate for the DNS name `name` is made.
        """
        self.context = _context()
        self._name = name
        self._files = files
        self._seen: tuple[tuple[int, int], ...] | None = None

    async def run(self, clock: Clock) -> None:
        """Load or make the certificate; load the files again after each change.

        While they cannot be used, the previous certificate is served.
        """
        while True:
            try:
                if self._files is not None:
                    self.refresh(*self._files)
                elif self._seen is None:
                    await self._make()
            except CertificateError as error:
                _log.error("%s", error)
            await clock.sleep(_LOOK_AGAIN)

    def refresh(self, certificate: Path, key: Path) -> None:
        """Load the files if they have changed; raise CertificateError, changing nothing."""
        seen = _state(certificate, key)
        if seen == self._seen:
            return
        self._seen = seen
        # Try them in an unused context first: a wrong key must not break the one in use.
        _load(_context(), certificate, key)
        _load(self.context, certificate, key)

    async def _make(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *_COMMAND, self._name, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        try:
            pem, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise CertificateError(f"no certificate was made: exit status {process.returncode}")
        # The key never touches a disk: OpenSSL reads it from an anonymous file in memory.
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(pem)
            where = Path(f"/proc/self/fd/{descriptor}")
            _load(self.context, where, where)
        finally:
            os.close(descriptor)
        self._seen = ()


def _state(*files: Path) -> tuple[tuple[int, int], ...]:
    """Return times and inodes of the files; a kubelet updates them by replacing a link."""
    try:
        found = [each.stat() for each in files]
    except OSError:
        return ()
    return tuple((each.st_mtime_ns, each.st_ino) for each in found)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # No session tickets: clients connect rarely.
    context.num_tickets = 0
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(f"{certificate} and {key} cannot be used: {error}") from error
