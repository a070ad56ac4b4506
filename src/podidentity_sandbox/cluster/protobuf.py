"""From a protobuf body to the JSON of the same object, which is what the server works on.

client-go sends built-in kinds so, and kubectl's typed commands do too; JSON as answer they take.
https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
A body is MAGIC and a runtime.Unknown, which names the type and holds the object's message:
https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/runtime/generated.proto
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources

from podidentity_sandbox.cluster import Json, Obj

# ---- The wire format of protobuf: numbered fields, one after the other.
#
# https://protobuf.dev/programming-guides/encoding/

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIDTH = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10


class Malformed(ValueError):
    """Bytes that are no protobuf."""


def fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field; raise Malformed."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, form = tag >> 3, tag & 7
        if form == VARINT:
            value, at = _varint(raw, at)
            yield number, value
            continue
        if form == BYTES:
            length, at = _varint(raw, at)
        elif form in _WIDTH:
            length = _WIDTH[form]
        else:
            raise Malformed(f"illegal wireType {form}")
        if at + length > len(raw):
            raise Malformed("unexpected EOF")
        yield number, raw[at : at + length]
        at += length


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins there, and where it ends."""
    value = 0
    for place in range(_LONGEST_VARINT):
        if at + place >= len(raw):
            raise Malformed("unexpected EOF")
        byte = raw[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise Malformed("integer overflow")


def signed(value: int) -> int:
    """Return a varint as the number of 64 bits with a sign that it stands for."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


# ---- The table of messages: each field's name, number and type.
#
# `protobuf.txt` has one message after the other: `Name: field number type, field number type, …`.
# Types are string, int, bool, bytes, double, time, micro-time, quantity, int-or-string, fields
# (FieldsV1), json, or a message; `[x]` is a list, `{x}` a map from strings. A star marks a field
# whose zero says something: a pointer in Go, or one that is always written (no `omitempty`). The
# zero of the others counts as unset. A field named `+` has no name in JSON: its fields are the
# message's own. `=x` is a message that JSON writes as one of its fields: the last that is set.


@dataclass(frozen=True, slots=True)
class MessageField:
    """One field of a message."""

    name: str
    type: str
    """Without brackets, star and equals sign."""
    form: str
    """"list", "map", "either" for a message that JSON writes as one of its fields, or ""."""
    optional: bool
    """Its zero says something."""


Message = Mapping[int, MessageField]


@cache
def table() -> Mapping[str, Message]:
    """Return all messages by their names."""
    text = (resources.files(__package__) / "protobuf.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    entries = "\n".join(lines).replace("\n ", " ").splitlines()
    return {name: _table_message(fields) for name, _, fields in (e.partition(":") for e in entries)}


def _table_message(text: str) -> Message:
    fields = (field.split() for field in text.split(",") if field.strip())
    return {int(number): _table_field(name, kind) for name, number, kind in fields}


def _table_field(name: str, kind: str) -> MessageField:
    form = {"[": "list", "{": "map", "=": "either"}.get(kind[0], "")
    inner = kind[1:-1] if form in ("list", "map") else kind.removeprefix("=")
    return MessageField(name, inner.removeprefix("*"), form, inner.startswith("*"))


# ---- Objects

PROTOBUF = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"


def decode(body: bytes) -> Obj:
    """Return the object of a body, `apiVersion` and `kind` first; raise Malformed."""
    if not body.startswith(MAGIC):
        raise Malformed(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        )
    unknown = dict(fields(body[len(MAGIC) :]))
    about = dict(fields(_bytes(unknown.get(1, b""))))
    version, kind = (_bytes(about.get(number, b"")).decode() for number in (1, 2))
    if kind not in table():
        raise Malformed(f'no kind "{kind}" is read from protobuf here')
    return {"apiVersion": version, "kind": kind, **_message(kind, _bytes(unknown.get(2, b"")))}


def _message(name: str, raw: bytes) -> Obj:
    known = table()[name]
    found: Obj = {}
    for number, value in fields(raw):
        if number in known:  # a later version may have more: they are skipped, as in Go
            _put(found, known[number], value)
    return found


def _put(found: Obj, field: MessageField, raw: int | bytes) -> None:
    """Add a field to those found so far."""
    if field.name == "+":
        found.update(_message(field.type, _bytes(raw)))
        return
    if field.form == "map":
        entry = dict(fields(_bytes(raw)))
        key = _bytes(entry.get(1, b"")).decode()
        found.setdefault(field.name, {})[key] = _value(field, entry.get(2, b""))
        return
    value = _value(field, raw)
    if field.form == "list":
        found.setdefault(field.name, []).append(value)
    elif field.optional or value not in (0, "", False, None):
        found[field.name] = value


def _value(field: MessageField, raw: int | bytes) -> Json:
    if field.type in _READERS:
        return _READERS[field.type](raw)
    found = _message(field.type, _bytes(raw))
    if field.form == "either":
        said = [found[each.name] for each in table()[field.type].values() if each.name in found]
        return said[-1] if said else None
    return found


def _bytes(raw: int | bytes) -> bytes:
    if isinstance(raw, int):
        raise Malformed("a number stands where bytes are expected")
    return raw


def _int(raw: int | bytes) -> int:
    if not isinstance(raw, int):
        raise Malformed("bytes stand where a number is expected")
    return signed(raw)


def _time(raw: int | bytes) -> str | None:
    """Return a Time, None for its zero, which JSON writes as null."""
    seconds = _int(_inner(raw).get(1, 0))
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(raw: int | bytes) -> str | None:
    """Return a MicroTime: the same with six digits behind the point."""
    whole = _time(raw)
    micros = _int(_inner(raw).get(2, 0)) // 1000
    return whole and f"{whole[:-1]}.{micros:06}Z"


def _inner(raw: int | bytes) -> dict[int, int | bytes]:
    return dict(fields(_bytes(raw)))


def _text(raw: int | bytes) -> str:
    return _bytes(raw).decode()


def _int_or_string(raw: int | bytes) -> int | str:
    parts = _inner(raw)
    return _text(parts.get(3, b"")) if parts.get(1) else _int(parts.get(2, 0))


def _json(raw: int | bytes) -> Json:
    """Return the JSON that a message holds as bytes: FieldsV1, or a default of a schema."""
    found: Json = json.loads(_text(_inner(raw).get(1, b"null")))
    return found


_READERS: dict[str, Callable[[int | bytes], Json]] = {
    "string": _text,
    "int": _int,
    "bool": lambda raw: bool(_int(raw)),
    "bytes": lambda raw: base64.b64encode(_bytes(raw)).decode(),
    "double": lambda raw: struct.unpack("<d", _bytes(raw).rjust(8, b"\0"))[0],
    "time": _time,
    "micro-time": _micro_time,
    "quantity": lambda raw: _text(_inner(raw).get(1, b"")),
    "int-or-string": _int_or_string,
    "fields": _json,
    "json": _json,
    "[string]": lambda raw: [_text(value) for _, value in fields(_bytes(raw))],
}
