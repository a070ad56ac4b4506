from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

from podidentity.wire.entra.assertion import signed, signing_input
from tests.fakes import CLIENT, NOW
from tests.wire.entra.test_exchange import HERE, STACK

CHAIN = [b"own", b"issuer"]


def parts(text: bytes) -> list[dict[str, Any]]:
    return [
        json.loads(urlsafe_b64decode(part + b"=" * (-len(part) % 4))) for part in text.split(b".")
    ]


def test_entras_assertion_names_the_certificate_by_sha_256() -> None:
    header, claims = parts(signing_input(HERE, CHAIN, now=NOW + 0.9, unique="u"))
    assert header == {
        "alg": "PS256",
        "typ": "JWT",
        "x5t#S256": "Wzl1ZRw8q5LQRMCW3DChwtlSVJdFdHLeSMUeyzY9H0o",
        "x5c": ["b3du", "aXNzdWVy"],
    }
    assert claims == {
        "aud": HERE.url,
        "iss": CLIENT,
        "sub": CLIENT,
        "jti": "u",
        "nbf": int(NOW),
        "iat": int(NOW),
        "exp": int(NOW) + 600,
    }


def test_the_assertion_for_adfs_is_the_older_one() -> None:
    header, claims = parts(signing_input(STACK, CHAIN, now=NOW, unique="u"))
    assert (header["alg"], header["x5t"]) == ("RS256", "-_Y8atulf_KhjYPVXe_z216JsEM")
    assert claims["aud"] == "https://adfs.local.azurestack.external/adfs/oauth2/token"


def test_the_signature_comes_last_without_padding() -> None:
    assert signed(b"a.b", b"\xff\xfe") == "a.b.__4"
