from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from podidentity.core.resources import ObjectRef
from podidentity.wire.secrets import LARGEST, changed_at, parse_secret


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


def test_a_secret_may_hold_so_much_and_no_more() -> None:
    half = "A" * (LARGEST // 2)
    assert len(parse_secret(secret(a=half, b=half), key=b"k").entries) == 2
    with pytest.raises(ValueError, match="it holds more than 262144 bytes"):
        parse_secret(secret(a=half, b=half + "AAAA"), key=b"k")


def test_a_digest_is_that_of_the_entries_whatever_their_order_and_of_the_agents_key() -> None:
    def digest(raw: bytes, key: bytes = b"k") -> str:
        return parse_secret(raw, key=key).digest

    known = digest(secret(a="YWE=", b="YmI="))
    assert known == digest(secret(b="YmI=", a="YWE="))
    others = [
        digest(secret(a="YWE=", b="YmI="), b"another"),
        digest(secret(a="YWE=")),
        digest(secret(a="YWE=", b="YWE=")),
        digest(secret(a="YmI=", b="YWE=")),
        digest(secret(A="YWE=", b="YmI=")),
        digest(secret()),
    ]
    assert len({known, *others}) == 1 + len(others)


def test_no_entry_looks_like_two_others() -> None:
    """Without lengths both would be `a:xb:y`."""
    one = {"a": b"xb:y"}
    two = {"a": b"x", "b": b"y"}

    def digest(entries: dict[str, bytes]) -> str:
        data = {name: b64encode(value).decode() for name, value in entries.items()}
        return parse_secret(secret(**data), key=b"k").digest

    assert digest(one) != digest(two)


def test_a_secret_is_of_the_time_when_its_entries_were_written_last() -> None:
    def managed(hour: int, *fields: str) -> dict[str, object]:
        return {"time": f"2026-01-02T0{hour}:00:00Z", "fieldsV1": {key: {} for key in fields}}

    fields = [managed(4, "f:data", "f:type"), managed(3, "f:data"), managed(5, "f:metadata")]
    fields.append({"fieldsV1": {"f:data": {}}})  # a tenant may write it so, without its time
    meta: dict[str, object] = {"creationTimestamp": "2026-01-02T02:00:00Z"}
    made = changed_at({"metadata": meta})
    assert changed_at({"metadata": {**meta, "managedFields": fields}}) - made == 2 * 3600
