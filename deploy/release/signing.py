"""The signature of a release's checksums: ECDSA over SHA-256 on P-256, in base64.

It is what `cosign sign-blob --key` writes for such a key: cosign and OpenSSL verify it alike, and
cosign need not be here. Newer versions of it read bundles alone, so there is one, too.
https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.release.statement import NotReleasable

_MAKE_ONE = "Make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY"
_COSIGNS_OWN = (b"ENCRYPTED SIGSTORE PRIVATE KEY", b"ENCRYPTED COSIGN PRIVATE KEY")


def key_of(path: Path, password: str = "") -> ec.EllipticCurvePrivateKey:
    """Return the key of a PEM file; raise NotReleasable if it signs nothing that cosign takes."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise NotReleasable(f"The key cannot be read: {path}: {error.strerror}.") from error
    if any(each in text for each in _COSIGNS_OWN):
        raise NotReleasable(
            f"{path} is in cosign's own form, which cosign alone opens. Release without --key, "
            f"then: cosign sign-blob --key {path} --output-signature SHA256SUMS.sig SHA256SUMS"
        )
    try:
        key = serialization.load_pem_private_key(text, password.encode() or None)
    except TypeError as error:  # a password is missing, or one too many
        raise NotReleasable(
            f"{path} and PODIDENTITY_RELEASE_PASSWORD do not fit: {error}."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise NotReleasable(
            f"{path} is no private key in PEM, or its password is wrong."
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise NotReleasable(f"{path} is no key of the curve P-256. {_MAKE_ONE}")
    return key


def signed(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return a signature of `data` in base64; each is another, because ECDSA draws a number."""
    return base64.b64encode(key.sign(data, ec.ECDSA(hashes.SHA256())))


def bundle(key: ec.EllipticCurvePrivateKey, signature: bytes, data: bytes) -> bytes:
    """Return a signature of `data` as a bundle of Sigstore; the key is no part of it."""
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    document = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": _digest(public)}},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": _digest(data)},
            "signature": signature.decode(),
        },
    }
    return json.dumps(document).encode() + b"\n"


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
