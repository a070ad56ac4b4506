"""Client certificates: the user of one is its common name, and its groups are its organisations.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates
As the real server does, this one asks every client for a certificate and judges it only once there
is a request: a certificate that does not hold is 401, or no matter beside a good token.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from podidentity_sandbox.cluster.authentication import AUTHENTICATED, User

_CERTIFICATE = 11
"""The TLS message with a certificate chain: RFC 5246 section 7.4.2, RFC 8446 section 4.4.2."""
_HOOK = ssl.SSLContext.__base__._msg_callback  # type: ignore[union-attr] # not in typeshed
_NO_CHECK_OF_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, for which Python's ssl has no name."""
_NO_COMPRESSED_CERTIFICATES = 1 << 33
"""SSL_OP_NO_RX_CERTIFICATE_COMPRESSION of OpenSSL 3.2: else that message may come compressed."""


def ask_clients(tls: ssl.SSLContext) -> None:
    """Have a server's context ask for certificates, and end no handshake because of one.

    Python's ssl verifies while it shakes hands, and has no hook for it but the one for debugging:
    it sees a chain before that is verified, and makes its first certificate one to trust.
    """

    def seen(_: object, direction: str, version: int, __: int, kind: int, raw: bytes) -> None:
        if (direction, kind) == ("read", _CERTIFICATE) and (shown := _first(raw, version)):
            with suppress(ssl.SSLError):
                tls.load_verify_locations(cadata=shown)

    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_OF_TIME
    tls.options |= _NO_COMPRESSED_CERTIFICATES
    # It is told of each record of data, too: ssl's own setter would make enums of all its numbers.
    _HOOK.__set__(tls, seen)


def _first(message: bytes, version: int) -> bytes:
    """Return the client's own certificate in a message Certificate, DER; empty for none."""
    rest = message[4:]
    if version >= ssl.TLSVersion.TLSv1_3:
        rest = rest[1 + rest[0] :]
    length = int.from_bytes(rest[3:6])
    return rest[6 : 6 + length]


class ClientCertificates:
    """Finds the user of a certificate that the authority has signed."""

    def __init__(self, authority: str, now: Callable[[], datetime]) -> None:
        """`authority` is the certificate of the authority, PEM."""
        self._authority = x509.load_pem_x509_certificate(authority.encode()) if authority else None
        self._now = now

    def user(self, presented: bytes | None) -> User | None:
        """Return the user of a certificate (DER); None for one that does not hold."""
        if presented is None or self._authority is None:
            return None
        try:
            found = x509.load_der_x509_certificate(presented)
            found.verify_directly_issued_by(self._authority)
            usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return None
        began, ends = found.not_valid_before_utc, found.not_valid_after_utc
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usage or not began <= self._now() <= ends:
            return None
        names = [str(each.value) for each in _named(found, NameOID.COMMON_NAME)]
        if not names:
            return None
        groups = [str(each.value) for each in _named(found, NameOID.ORGANIZATION_NAME)]
        digest = f"X509SHA256={found.fingerprint(hashes.SHA256()).hex()}"
        return User(
            names[-1],
            (*groups, AUTHENTICATED),
            extra={"authentication.kubernetes.io/credential-id": [digest]},
        )


def _named(found: x509.Certificate, oid: x509.ObjectIdentifier) -> list[x509.NameAttribute[Any]]:
    return found.subject.get_attributes_for_oid(oid)
