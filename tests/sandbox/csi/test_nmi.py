"""The request and what can be read of its answer, as the provider's own Go code was measured.

Source: pkg/auth/auth.go of https://github.com/Azure/secrets-store-csi-driver-provider-azure v1.8.2,
compiled with Go 1.24; what encoding/json takes.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity_sandbox.csi.parameters import MountFailed
from podidentity_sandbox.csi.provider import read_token, request

TOKEN = {
    "access_token": "t",
    "refresh_token": "",
    "expires_in": "3599",
    "expires_on": "1795603599",
    "not_before": "1795600000",
    "resource": "https://vault.azure.net",
    "token_type": "Bearer",
}
NUMBER = "json: Expected `str` matching regex"
ABSENT = "nmi did not return expected values in response: token and clientid"


def body(client: Any = "c", **changes: Any) -> bytes:
    token = {key: value for key, value in (TOKEN | changes).items() if value is not ...}
    return json.dumps({"token": token, "clientid": client}).encode()


def test_the_request_has_the_bytes_of_the_go_client() -> None:
    assert request("shop", "orders-0", "https://vault.azure.net") == (
        b"GET /host/token/?resource=https://vault.azure.net HTTP/1.1\r\n"
        b"Host: localhost:2579\r\n"
        b"User-Agent: Go-http-client/1.1\r\n"
        b"Podname: orders-0\r\n"
        b"Podns: shop\r\n"
        b"Accept-Encoding: gzip\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    "answer",
    [
        body(),
        body(expires_in=3599, expires_on=1795603599, not_before=0),
        body(expires_on=...),
        body(expires_in="1e3", not_before="-1"),
        body(refresh_token=None),
    ],
)
def test_what_the_go_types_hold_is_a_token(answer: bytes) -> None:
    assert read_token(200, answer) == "t"


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (200, body(expires_in=""), NUMBER),
        (200, body(not_before=""), NUMBER),
        (200, body(expires_on=""), NUMBER),
        (200, body(expires_on="2026-11-25"), NUMBER),
        (200, body(expires_on=True), "json: Expected `int | float | str | null`, got `bool`"),
        (200, json.dumps(TOKEN).encode(), ABSENT),
        (200, body(client=""), ABSENT),
        (200, body(client=None), ABSENT),
        (200, body(access_token=...), ABSENT),
        (200, body(access_token=3), "json: Expected `str | null`, got `int`"),
        (200, b"[]", "json: Expected `object`, got `array`"),
        (200, b"", "json: Input data was truncated"),
        (200, b"<html>", "json: JSON is malformed: invalid character"),
        (404, b"no", "nmi response failed with status code: 404, response body: no"),
    ],
)
def test_anything_else_fails_the_mount(status: int, answer: bytes, why: str) -> None:
    with pytest.raises(MountFailed) as failed:
        read_token(status, answer)
    assert str(failed.value).startswith(why)
