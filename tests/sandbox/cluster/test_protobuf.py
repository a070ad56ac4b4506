"""Bodies in protobuf are the objects that they say, and nonsense is refused with its reason."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity_sandbox.cluster.kinds.table import BUILT_IN
from podidentity_sandbox.cluster.protobuf import MAGIC, PROTOBUF, Malformed, decode, table
from podidentity_sandbox.cluster.reviews import TYPES
from tests.sandbox.cluster.conftest import MAPS, Client, check_refusal

SCALARS = {
    *("string", "int", "bool", "bytes", "double", "time", "micro-time"),
    *("quantity", "int-or-string", "fields", "json"),
}


def part(number: int, content: bytes | str | int) -> bytes:
    """Return one field, as https://protobuf.dev/programming-guides/encoding/ has it."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    raw = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + varint(number >> 7)


def body(version: str, kind: str, *parts: bytes) -> bytes:
    return MAGIC + part(1, part(1, version) + part(2, kind)) + part(2, b"".join(parts))


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
    assert {each.kind for each in (*BUILT_IN, *TYPES)} <= set(table())


def test_a_lease_is_read_as_client_go_elects_its_leaders() -> None:
    now = part(1, 1_733_011_200) + part(2, 318_914_999)
    spec = part(1, "me") + part(2, 15) + part(3, part(1, 1)) + part(4, now) + part(5, 0)
    assert decode(body("coordination.k8s.io/v1", "Lease", part(2, spec)))["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "1970-01-01T00:00:01.000000Z",
        "renewTime": "2024-12-01T00:00:00.318914Z",
        "leaseTransitions": 0,
    }


def test_what_go_embeds_has_no_name_of_its_own() -> None:
    source = part(19, part(3, 0o644))
    spec = decode(body("v1", "Pod", part(2, part(1, part(1, "v") + part(2, source)))))["spec"]
    assert spec["volumes"] == [{"name": "v", "configMap": {"defaultMode": 0o644}}]
    named = part(19, part(1, part(1, "settings")))
    spec = decode(body("v1", "Pod", part(2, part(1, part(2, named)))))["spec"]
    assert spec["volumes"] == [{"configMap": {"name": "settings"}}]


def test_a_definition_is_read_with_its_schema() -> None:
    """A double, JSON in bytes, and a schema where a boolean or a list may stand as well."""
    half = bytes([11 << 3 | 1]) + struct.pack("<d", 1.5)
    number = part(5, "number") + half + part(8, part(1, "2.5"))
    fields = part(29, part(1, "size") + part(2, number))
    items = part(24, part(1, part(5, "string")))
    extra = part(30, part(1, 1) + part(2, items)) + part(33, part(1, 0))
    schema = part(4, part(1, part(5, "object") + fields + extra))
    spec = part(2, part(7, part(1, "v1") + part(2, 0) + schema))
    found = decode(body("apiextensions.k8s.io/v1", "CustomResourceDefinition", spec))
    assert found["spec"]["versions"] == [
        {
            "name": "v1",
            "served": False,
            "schema": {
                "openAPIV3Schema": {
                    "type": "object",
                    "properties": {"size": {"type": "number", "minimum": 1.5, "default": 2.5}},
                    "additionalProperties": {"items": {"type": "string"}},
                    "additionalItems": False,
                }
            },
        }
    ]


def test_a_field_of_a_later_version_is_skipped() -> None:
    assert decode(body("v1", "Secret", part(9, "x"), part(3, "t")))["type"] == "t"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{}", "provided data does not appear to be a protobuf message"),
        (body("v1", "Gadget"), 'no kind "Gadget" is read from protobuf here'),
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


async def test_the_server_refuses_what_it_cannot_read(api: Client) -> None:
    raw = body("v1", "ConfigMap", part(1, part(1, "c")))[:-1]
    refused = await api.post(MAPS, content=raw, headers={"Content-Type": PROTOBUF})
    check_refusal(refused, 400, "unexpected EOF")
