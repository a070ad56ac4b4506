"""From a protobuf body to the JSON of the same object.

A body is MAGIC and a runtime.Unknown, which names the type and holds the object's message:
https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/runtime/generated.proto
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime

from podidentity_sandbox.cluster.jsontypes import Json, Obj
from podidentity_sandbox.cluster.protobuf.messages import Field, table
from podidentity_sandbox.cluster.protobuf.wire import Malformed, fields, signed

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
        if number not in known:
            raise Malformed(f"field {number} of {name} is not read from protobuf here")
        _put(found, known[number], value)
    return found


def _put(found: Obj, field: Field, raw: int | bytes) -> None:
    """Add a field to those found so far."""
    if field.many == "map":
        entry = dict(fields(_bytes(raw)))
        key = _bytes(entry.get(1, b"")).decode()
        found.setdefault(field.name, {})[key] = _value(field, entry.get(2, b""))
        return
    value = _value(field, raw)
    if field.many == "list":
        found.setdefault(field.name, []).append(value)
    elif field.optional or value not in (0, "", False, None):
        found[field.name] = value


def _value(field: Field, raw: int | bytes) -> Json:
    if field.type in _READERS:
        return _READERS[field.type](raw)
    if field.type == "any":
        if raw:
            raise Malformed(f"{field.name} is not read from protobuf here")
        return {}
    return _message(field.type, _bytes(raw))


def _bytes(raw: int | bytes) -> bytes:
    if isinstance(raw, int):
        raise Malformed("a number stands where bytes are expected")
    return raw


def _int(raw: int | bytes) -> int:
    if not isinstance(raw, int):
        raise Malformed("bytes stand where a number is expected")
    return signed(raw)


def _bool(raw: int | bytes) -> bool:
    return bool(_int(raw))


def _string(raw: int | bytes) -> str:
    return _bytes(raw).decode()


def _base64(raw: int | bytes) -> str:
    return base64.b64encode(_bytes(raw)).decode()


def _time(raw: int | bytes) -> str | None:
    """Return a Time, None for its zero, which JSON writes as null."""
    seconds = _int(dict(fields(_bytes(raw))).get(1, 0))
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _quantity(raw: int | bytes) -> str:
    return _string(dict(fields(_bytes(raw))).get(1, b""))


def _int_or_string(raw: int | bytes) -> int | str:
    parts = dict(fields(_bytes(raw)))
    return _string(parts.get(3, b"")) if parts.get(1) else _int(parts.get(2, 0))


def _fields(raw: int | bytes) -> Json:
    found: Json = json.loads(_string(dict(fields(_bytes(raw))).get(1, b"{}")))
    return found


def _strings(raw: int | bytes) -> list[str]:
    return [_string(value) for _, value in fields(_bytes(raw))]


_READERS: dict[str, Callable[[int | bytes], Json]] = {
    "string": _string,
    "int": _int,
    "bool": _bool,
    "bytes": _base64,
    "time": _time,
    "quantity": _quantity,
    "int-or-string": _int_or_string,
    "fields": _fields,
    "[string]": _strings,
}
