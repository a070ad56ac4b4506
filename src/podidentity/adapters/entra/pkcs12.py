"""Opens a certificate with its key in a process of its own, within limits of time and memory.

The author of a Secret chooses the cost of its password's key derivation, and the library blocks the
whole process meanwhile: one file could stop the agent of a node for an hour. So this process opens
the file and returns the plain key.

It reads `{"data": …, "password": … or null}` on standard input and prints `{"key": PKCS#8, "chain":
[DER, …], "starts": …, "ends": …}`, in base64 and seconds since 1970, or `{"why": …}`, a reason that
contains nothing of the input.
"""

from __future__ import annotations

import json
import resource
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)

CPU_SECONDS = 5
"""At this limit the kernel sends SIGXCPU; one second later SIGKILL."""
MEMORY = 32 << 20
"""Bytes of address space beyond those at the start. The file chooses the memory of a scrypt
derivation, and the kubelet kills the agent's whole container if that exceeds its limit."""
GREEDY = "it takes too much time or memory to open"
SMALLEST, LARGEST = 2048, 8192
"""Bits of an RSA key: fewer are not safe, more make signatures too slow."""


class UnusableCertificate(ValueError):
    """Why the file yields no usable certificate, as a clause."""


class Found(NamedTuple):
    """The contents of a file; its certificates are in no order."""

    key: object
    certificates: Sequence[x509.Certificate]


def opened(data: bytes, password: bytes | None) -> dict[str, Any]:
    """Return key, chain and validity of PKCS#12 or PEM; raise UnusableCertificate."""
    pem = b"-----BEGIN" in data
    found = _pem(data, password) if pem else _pkcs12(data, password)
    key = _suitable(found.key)
    chain = _chain(key, found.certificates)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return {
        "key": b64encode(plain).decode(),
        "chain": [b64encode(each.public_bytes(Encoding.DER)).decode() for each in chain],
        "starts": chain[0].not_valid_before_utc.timestamp(),
        "ends": chain[0].not_valid_after_utc.timestamp(),
    }


def _pkcs12(data: bytes, password: bytes | None) -> Found:
    # PKCS#12 distinguishes no password from an empty one, and tools write either.
    for attempt in (password,) if password else (None, b""):
        try:
            found = pkcs12.load_pkcs12(data, attempt)
        except (ValueError, UnsupportedAlgorithm):
            continue
        own = [found.cert] if found.cert else []
        return Found(found.key, [each.certificate for each in (*own, *found.additional_certs)])
    wrong = "or its password is wrong" if password else "or its password is missing"
    raise UnusableCertificate(f"it is neither PKCS#12 nor PEM, {wrong}")


def _pem(data: bytes, password: bytes | None) -> Found:
    try:
        return Found(_pem_key(data, password), x509.load_pem_x509_certificates(data))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    if b"-----BEGIN CERTIFICATE" not in data:
        raise UnusableCertificate("its PEM holds no certificate")
    if b"PRIVATE KEY-----" not in data:
        raise UnusableCertificate("its PEM holds no private key")
    raise UnusableCertificate("its PEM cannot be read, or its password is wrong or missing")


def _pem_key(data: bytes, password: bytes | None) -> object:
    try:
        return load_pem_private_key(data, password or None)
    except TypeError:
        # The secret has a password, but the key is not encrypted.
        return load_pem_private_key(data, None)


def _suitable(key: object) -> rsa.RSAPrivateKey:
    if key is None:
        raise UnusableCertificate("it holds no private key")
    if isinstance(key, ec.EllipticCurvePrivateKey):
        # https://github.com/AzureAD/microsoft-identity-web/issues/1809
        raise UnusableCertificate("its key is an elliptic curve's, and Entra takes RSA keys only")
    if not isinstance(key, rsa.RSAPrivateKey):
        raise UnusableCertificate("its key is no RSA key, and Entra takes no other")
    if not SMALLEST <= key.key_size <= LARGEST:
        raise UnusableCertificate(
            f"its RSA key has {key.key_size} bits, not {SMALLEST} to {LARGEST}"
        )
    return key


def _chain(
    key: rsa.RSAPrivateKey, certificates: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Return the key's own certificate, then the others."""
    own = _public(key)
    mine = [each for each in certificates if _public(each) == own]
    if not mine:
        raise UnusableCertificate("it holds no certificate of its private key")
    return [mine[-1], *(each for each in certificates if each not in mine)]


def _public(holder: rsa.RSAPrivateKey | x509.Certificate) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _address_space() -> int:
    """Return the address space of this process in bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()


def main() -> None:
    """Open the certificate on standard input."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    most = _address_space() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    asked = json.load(sys.stdin)
    password = asked["password"]
    try:
        answer = opened(b64decode(asked["data"]), None if password is None else b64decode(password))
    except UnusableCertificate as error:
        answer = {"why": str(error)}
    except MemoryError:
        answer = {"why": GREEDY}
    except InternalError as error:
        # OpenSSL's word for it: ERR_R_MALLOC_FAILURE in
        # https://github.com/openssl/openssl/blob/master/include/openssl/err.h.in
        if "malloc failure" not in str(error):
            raise
        answer = {"why": GREEDY}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
