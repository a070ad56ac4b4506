from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity.core.resources import ObjectRef
from podidentity.wire.secrets import parse_secret


def secret(**data: Any) -> bytes:
    return json.dumps({"metadata": {"namespace": "shop", "name": "orders"}, "data": data}).encode()


HUGE = secret(a="c2VjcmV0" * 20_000, b="c2VjcmV0" * 20_000)


def test_a_secrets_entries_come_out_of_base64() -> None:
    found = parse_secret(secret(clientSecret="czNjcmV0"), key=b"k")
    assert (found.ref, found.entries) == (ObjectRef("shop", "orders"), {"clientSecret": b"s3cret"})
    assert "s3cret" not in repr(found)


def test_a_secret_may_be_empty() -> None:
    assert parse_secret(b'{"metadata": {"name": "a"}, "data": null}', key=b"k").entries == {}


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"\xff", b"{}", secret(a=["c2VjcmV0"]), secret(a="c2VjcmV0x"), HUGE]
)
def test_what_is_no_secret_is_not_quoted(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not") as caught:
        parse_secret(raw, key=b"k")
    assert caught.value.__cause__ is None
    assert "c2Vj" not in str(caught.value)
