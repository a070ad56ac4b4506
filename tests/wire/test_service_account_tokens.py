from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from podidentity.core.resources import ObjectRef
from podidentity.wire.service_account_tokens import (
    parse_token_request,
    render_token_request,
    token_path,
)
from tests.fakes import pod


def test_a_token_is_asked_for_one_audience_and_bound_to_the_pod() -> None:
    assert token_path(ObjectRef("shop", "web")) == (
        "/api/v1/namespaces/shop/serviceaccounts/web/token"
    )
    assert render_token_request("api://x", pod())["spec"] == {
        "audiences": ["api://x"],
        "expirationSeconds": 3600,
        "boundObjectRef": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "orders-0",
            "uid": "uid-orders-0",
        },
    }
    unbound = render_token_request("api://x", None)
    assert unbound == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["api://x"], "expirationSeconds": 3600},
    }


@pytest.mark.parametrize(
    "stamp", ["2026-11-25T12:00:00Z", "2026-11-25T13:00:00+01:00", "2026-11-25T12:00:00"]
)
def test_a_minted_token_says_when_it_ends(stamp: str) -> None:
    body = {"status": {"token": "a.b.c", "expirationTimestamp": stamp}}
    found = parse_token_request(json.dumps(body).encode())
    assert found.expires_on == datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
    assert "a.b.c" not in repr(found)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"status": {"token": "t"}}',
        b'{"status": {"token": "t", "expirationTimestamp": 1}}',
    ],
)
def test_an_answer_without_a_token_is_none(body: bytes) -> None:
    with pytest.raises(ValueError, match="without a token"):
        parse_token_request(body)
