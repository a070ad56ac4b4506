"""Bodies in protobuf are the objects that they say, and nonsense is refused with its reason."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity_sandbox.cluster.protobuf.decoder import MAGIC, PROTOBUF, Malformed, decode, table

SCALARS = {"string", "int", "bool", "bytes", "time", "quantity", "int-or-string", "fields", "any"}


def part(number: int, content: bytes | str | int) -> bytes:
    """Return one field, as https://protobuf.dev/programming-guides/encoding/ has it."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    raw = content.encode() if isinstance(content, str) else content
    return bytes([number << 3 | 2, len(raw)]) + raw


def body(version: str, kind: str, *parts: bytes) -> bytes:
    return MAGIC + part(1, part(1, version) + part(2, kind)) + part(2, b"".join(parts))


def test_a_secret_is_read_with_its_data_in_base64() -> None:
    metadata = part(1, part(1, "s") + part(3, "shop") + part(7, 0) + part(8, b""))
    data = part(2, part(1, "k") + part(2, b"v\x00"))
    assert decode(body("v1", "Secret", metadata, data, part(3, ""))) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "shop"},
        "data": {"k": "dgA="},
    }


def test_a_zero_is_kept_only_where_it_says_something() -> None:
    container = part(1, "c") + part(6, part(2, 0) + part(3, 80))
    template = part(2, part(2, container))
    spec = decode(body("apps/v1", "Deployment", part(2, part(1, 0) + part(3, template))))["spec"]
    assert spec["replicas"] == 0
    assert spec["template"]["spec"]["containers"] == [
        {"name": "c", "ports": [{"containerPort": 80}]}
    ]


def test_every_type_in_the_table_is_known() -> None:
    used = {field.type for message in table().values() for field in message.values()}
    assert used - SCALARS - set(table()) == {"[string]"}
    assert len(table()) > 40


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{}", "provided data does not appear to be a protobuf message"),
        (body("v1", "Gadget"), 'no kind "Gadget" is read from protobuf here'),
        (body("v1", "Secret", part(9, "x")), "field 9 of Secret is not read"),
        (body("v1", "Secret") + b"\x0a\x7f", "unexpected EOF"),
        (body("v1", "Secret", part(1, 1)), "a number stands where bytes are expected"),
        (body("v1", "ConfigMap", b"\x22\x00"), "bytes stand where a number is expected"),
        (MAGIC + b"\x0b", "illegal wireType 3"),
    ],
)
def test_what_cannot_be_read_is_said(raw: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        decode(raw)


@given(st.binary(max_size=200), st.sampled_from(sorted(table())))
def test_no_bytes_do_worse_than_be_refused(raw: bytes, kind: str) -> None:
    try:
        found = decode(body("v1", kind)[:-2] + part(2, raw))
    except (ValueError, OverflowError):
        return
    assert found["kind"] == kind


async def test_the_server_reads_and_refuses_them(api: httpx2.AsyncClient) -> None:
    path, headers = "/api/v1/namespaces/default/configmaps", {"Content-Type": PROTOBUF}
    raw = body("v1", "ConfigMap", part(1, part(1, "c")), part(2, part(1, "k") + part(2, "v")))
    made = await api.post(path, content=raw, headers=headers)
    assert (made.status_code, made.json()["data"]) == (201, {"k": "v"})
    refused = await api.post(path, content=raw[:-1], headers=headers)
    assert (refused.status_code, refused.json()["message"]) == (400, "unexpected EOF")
