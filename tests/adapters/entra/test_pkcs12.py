from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from podidentity.adapters.entra.pkcs12 import UnusableCertificate, opened
from tests.fakes import NOW
from tests.principals import certificate_of, pem_of, pfx_of, rsa_key

PLAIN = rsa_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
OWN = certificate_of(rsa_key())
ISSUER = certificate_of(ec.generate_private_key(ec.SECP256R1()), "issuer")
CURVE = ec.generate_private_key(ec.SECP256R1())
SMALL = rsa_key(1024)
EDWARDS = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("data", "password"),
    [
        (pfx_of(rsa_key(), OWN, ISSUER, password=b"p"), b"p"),
        (pfx_of(rsa_key(), OWN, ISSUER), None),
        (pfx_of(rsa_key(), OWN, ISSUER), b""),
        (pem_of(rsa_key(), OWN, ISSUER), None),
        (pem_of(rsa_key(), ISSUER, OWN), b""),
        (pem_of(rsa_key(), ISSUER, OWN), b"not needed"),
        (pem_of(rsa_key(), OWN, ISSUER, password=b"p"), b"p"),
        (b"Bag Attributes\n  x: y\n" + pem_of(rsa_key(), OWN, ISSUER), None),
    ],
    ids=["pfx", "pfx plain", "pfx empty", "pem", "pem any order", "pem idle", "pem locked", "bags"],
)
def test_pkcs12_and_pem_are_opened_and_the_keys_own_certificate_is_first(
    data: bytes, password: bytes | None
) -> None:
    found = opened(data, password)
    assert [b64decode(each) for each in found["chain"]] == [
        each.public_bytes(Encoding.DER) for each in (OWN, ISSUER)
    ]
    assert b64decode(found["key"]) == PLAIN
    assert (found["starts"], found["ends"]) == (NOW - 60, NOW + 86_400)


@pytest.mark.parametrize(
    ("data", "password", "why"),
    [
        (b"", None, "neither PKCS#12 nor PEM, or its password is missing"),
        (b"\x30\x80garbage", b"p", "neither PKCS#12 nor PEM, or its password is wrong"),
        (pfx_of(rsa_key(), OWN, password=b"p"), b"q", "or its password is wrong"),
        (pfx_of(rsa_key(), OWN, password=b"p"), None, "or its password is missing"),
        (pem_of(rsa_key(), OWN, password=b"p"), b"q", "password is wrong or missing"),
        (pem_of(rsa_key(), OWN, password=b"p"), None, "password is wrong or missing"),
        (pem_of(rsa_key()), None, "its PEM holds no certificate"),
        (OWN.public_bytes(Encoding.PEM), None, "its PEM holds no private key"),
        (pem_of(rsa_key(), ISSUER), None, "no certificate of its private key"),
        (pem_of(CURVE, certificate_of(CURVE)), None, "an elliptic curve's, and Entra takes RSA"),
        (pfx_of(CURVE, certificate_of(CURVE)), None, "an elliptic curve's, and Entra takes RSA"),
        (pem_of(EDWARDS, certificate_of(EDWARDS)), None, "no RSA key"),
        (pem_of(SMALL, certificate_of(SMALL)), None, "1024 bits, not 2048 to 8192"),
    ],
    ids=[
        "nothing",
        "garbage",
        "pfx of another password",
        "pfx without its password",
        "pem of another password",
        "pem without its password",
        "key alone",
        "certificate alone",
        "another's certificate",
        "curve in pem",
        "curve in pfx",
        "edwards",
        "small",
    ],
)
def test_what_cannot_be_used_is_told_by_its_reason(
    data: bytes, password: bytes | None, why: str
) -> None:
    with pytest.raises(UnusableCertificate) as caught:
        opened(data, password)
    assert why in str(caught.value)


def test_nothing_of_the_key_is_in_an_error() -> None:
    known: Any = pem_of(rsa_key(), ISSUER)
    with pytest.raises(UnusableCertificate) as caught:
        opened(known, b"pass-word")
    assert "pass-word" not in repr(caught.value)
