from __future__ import annotations

import asyncio
import sys
from base64 import encodebytes
from dataclasses import replace
from math import inf
from typing import Any

import jwt
import pytest

from podidentity.adapters.entra.certificates import Certificate, Certificates
from podidentity.core.errors import TokenRefused, TokenSourceDown
from podidentity.core.resources import ObjectRef
from podidentity.core.secrets import Secret
from tests.fakes import NOW
from tests.principals import certificate_of, pem_of, pfx_of, rsa_key, secret
from tests.wire.test_entra import HERE, STACK

OWN = certificate_of(rsa_key())
NEVER = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud")}


def written(text: str) -> Certificates:
    """Return certificates that are opened by this Python program."""
    return Certificates((sys.executable, "-c", text), seconds=100)


async def proof(of: Secret, client: Any = HERE) -> str:
    return (await Certificates(seconds=100).of(of)).assertion(client, now=NOW, unique="u")


@pytest.mark.parametrize(
    "of",
    [
        secret(certificate=pfx_of(rsa_key(), OWN, password=b"p"), password=b"p"),
        secret(certificate=pem_of(rsa_key(), OWN)),
    ],
    ids=["pkcs12", "pem"],
)
async def test_an_assertion_bears_the_signature_of_the_certificates_key(of: Secret) -> None:
    text = await proof(of)
    header = jwt.get_unverified_header(text)
    options: Any = NEVER
    claims = jwt.decode(text, rsa_key().public_key(), algorithms=["PS256"], options=options)
    assert (header["alg"], claims["aud"], claims["exp"]) == ("PS256", HERE.url, NOW + 600)


async def test_the_assertion_for_adfs_is_signed_in_the_older_way() -> None:
    text = await proof(secret(certificate=pem_of(rsa_key(), OWN)), STACK)
    options: Any = NEVER
    assert jwt.decode(text, rsa_key().public_key(), algorithms=["RS256"], options=options)


async def test_out_of_its_time_a_certificate_is_told_with_the_date() -> None:
    data = pem_of(rsa_key(), certificate_of(rsa_key(), starts=NOW, ends=NOW + 60))
    found = await Certificates(seconds=100).of(secret(certificate=data))
    assert found.fault(NOW) == found.fault(NOW + 59) == ""
    assert found.fault(NOW - 1) == "the certificate is valid only from 2026-11-25 09:46 UTC on"
    assert found.fault(NOW + 60) == "the certificate expired on 2026-11-25 09:47 UTC"


async def test_what_cannot_be_opened_is_refused_by_the_name_of_the_secret_that_was_asked() -> None:
    certificates = Certificates(seconds=100)
    of = secret(certificate=pem_of(rsa_key(), OWN, password=b"p"), password=b"wr-ong")
    for _ in range(2):
        with pytest.raises(TokenRefused, match="Secret orders-secret cannot be used: its PEM") as e:
            await certificates.of(of)
        assert "wr-ong" not in str(e.value)


async def test_a_certificate_is_opened_once_as_long_as_it_is_the_same(tmp_path: Any) -> None:
    told = tmp_path / "told"
    certificates = written(f"open({str(told)!r}, 'a').write('x'); print('{{\"why\": \"no\"}}')")
    for digest in ("d1", "d1", "d2", "d1"):
        with pytest.raises(TokenRefused, match="no"):
            await certificates.of(secret(digest, certificate=b"c"))
    assert told.read_text() == "xx"


async def test_the_long_chains_of_one_namespace_end_none_of_another_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificates, opened = Certificates(), []

    async def open_long(data: bytes, password: bytes | None) -> Certificate:
        del password
        opened.append(data)
        return Certificate(key=rsa_key(), chain=[bytes(100_000)], starts=0, ends=inf)

    monkeypatch.setattr(certificates, "_opened", open_long)
    quiet = secret("quiet", certificate=b"quiet")
    await certificates.of(quiet)
    for number in range(1, 40):
        greedy = replace(secret(f"g{number}", certificate=b"g"), ref=ObjectRef("greedy", "s"))
        await certificates.of(greedy)
    await certificates.of(quiet)
    assert opened.count(b"quiet") == 1
    assert len(certificates._kept) < 12


async def test_one_that_takes_all_the_time_it_is_given_is_refused_and_remembered() -> None:
    certificates = written("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)")
    with pytest.raises(TokenRefused, match="too much time or memory"):
        await certificates.of(secret(certificate=b"c"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import sys; sys.exit(3)", "ended with 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with -9"),
    ],
    ids=["a fault of its own", "killed from outside"],
)
async def test_a_crash_for_another_reason_is_told_by_its_status_and_not_remembered(
    tmp_path: Any, text: str, why: str
) -> None:
    told = tmp_path / "told"
    certificates = written(f"open({str(told)!r}, 'a').write('x'); {text}")
    for _ in range(2):
        with pytest.raises(TokenSourceDown, match=why):
            await certificates.of(secret(certificate=b"c"))
    assert told.read_text() == "xx"


async def test_a_process_that_cannot_be_started_says_nothing_of_the_certificate() -> None:
    certificates = Certificates(("/no/such/program",))
    with pytest.raises(TokenSourceDown, match="could not be opened: No such file"):
        await certificates.of(secret(certificate=b"c"))


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([tag, len(body)]) + body


def locked_by_scrypt(blocks: int) -> bytes:
    """Return a key whose derivation takes two megabytes for each of so many blocks."""
    work = der(2, b"\x40\x00"), der(2, bytes([blocks])), der(2, b"\x01")
    scrypt = der(6, bytes.fromhex("2b06010401da47040b")), der(0x30, der(4, b"saltsalt"), *work)
    aes = der(6, bytes.fromhex("60864801650304012a")), der(4, bytes(16))
    both = der(0x30, der(0x30, *scrypt), der(0x30, *aes))
    how = der(0x30, der(6, bytes.fromhex("2a864886f70d01050d")), both)
    text = encodebytes(der(0x30, how, der(4, bytes(16))))
    name = b"ENCRYPTED PRIVATE KEY-----\n"
    return b"-----BEGIN " + name + text + b"-----END " + name


@pytest.mark.parametrize(
    ("blocks", "why"), [(8, "password is wrong"), (120, "too much time or memory")]
)
async def test_one_that_takes_more_memory_than_the_agent_has_is_refused(
    blocks: int, why: str
) -> None:
    greedy = secret(certificate=locked_by_scrypt(blocks) + pem_of(rsa_key(), OWN), password=b"p")
    with pytest.raises(TokenRefused, match=why):
        await Certificates(seconds=100).of(greedy)


async def test_slow_ones_of_one_namespace_leave_a_turn_for_the_others() -> None:
    certificates = written(
        "import base64, json, signal, sys\n"
        "if base64.b64decode(json.load(sys.stdin)['data']) == b'slow': signal.pause()\n"
        'print(\'{"why": "it is quick"}\')'
    )

    def of(namespace: str, data: bytes, digest: str) -> Secret:
        return replace(secret(certificate=data), ref=ObjectRef(namespace, "orders"), digest=digest)

    slow = [
        asyncio.create_task(certificates.of(of("greedy", b"slow", str(number))))
        for number in range(4)
    ]
    with pytest.raises(TokenRefused, match="it is quick"):
        await certificates.of(of("shop", b"c", "shop"))
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_on_a_busy_node_it_is_tried_again() -> None:
    certificates = Certificates((sys.executable, "-c", "input()"), seconds=0.0)
    for _ in range(2):
        with pytest.raises(TokenSourceDown, match="could not be opened in time"):
            await certificates.of(secret(certificate=b"c"))


async def test_a_key_shows_itself_nowhere() -> None:
    found = await Certificates(seconds=100).of(secret(certificate=pem_of(rsa_key(), OWN)))
    assert "key" not in repr(found)
