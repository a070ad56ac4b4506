from __future__ import annotations

import pytest

from podidentity.core.errors import TokenRefused
from podidentity.core.resources import ObjectRef
from podidentity.core.secrets import Secret, certificate, client_secret


def secret(**entries: bytes) -> Secret:
    return Secret(ref=ObjectRef("shop", "orders"), entries=entries, digest="d")


@pytest.mark.parametrize(
    "entries",
    [
        {"clientSecret": b"s3cret"},
        {"clientSecret": b"s3cret\n", "other": b"x"},
        {"ClientSecret": b"s3cret", "other": b"x"},
        {"clientSecret": b"s3cret", "clientsecret": b"another"},
        {"whatever": b"s3cret"},
    ],
)
def test_a_client_secret_is_found_by_its_key_or_alone(entries: dict[str, bytes]) -> None:
    assert client_secret(secret(**entries)) == "s3cret"


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({}, "it has no key clientSecret, only: nothing"),
        ({"a": b"s3cret", "b": b"s3cret"}, "it has no key clientSecret, only: a, b"),
        (
            {f"key-{number}": b"s3cret" for number in range(4000)},
            "it has no key clientSecret, only: key-0, key-1, key-10, key-100, key-1000 and 3995 "
            "more",
        ),
        ({"clientSecret": b""}, "its key clientSecret holds no text"),
        ({"clientSecret": b"\xffs3cret"}, "its key clientSecret holds no text"),
    ],
)
def test_with_several_entries_nothing_is_guessed_and_no_value_is_told(
    entries: dict[str, bytes], why: str
) -> None:
    with pytest.raises(TokenRefused) as caught:
        client_secret(secret(**entries))
    assert str(caught.value) == f"Secret orders cannot be used: {why}."
    assert (caught.value.status, caught.value.error) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ({"certificate": b"c"}, (b"c", None)),
        ({"certificate": b"c", "password": b""}, (b"c", b"")),
        ({"Certificate": b"c", "Password": b"p", "other": b"x"}, (b"c", b"p")),
        ({"orders.pfx": b"c", "password": b"p"}, (b"c", b"p")),
        ({"orders.pem": b"c"}, (b"c", None)),
    ],
)
def test_a_certificate_is_found_with_its_password(
    entries: dict[str, bytes], found: tuple[bytes, bytes | None]
) -> None:
    assert certificate(secret(**entries)) == found


def test_a_password_alone_is_no_certificate() -> None:
    with pytest.raises(TokenRefused, match="no key certificate, only: nothing"):
        certificate(secret(password=b"p"))


def test_a_secret_shows_its_entries_nowhere() -> None:
    assert "s3cret" not in repr(secret(clientSecret=b"s3cret"))
