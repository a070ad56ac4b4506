"""The table of messages: each field's name, number and type.

`messages.txt` has one message after the other: `Name: field number type, field number type, …`.
Types are string, int, bool, bytes, time, quantity, int-or-string, fields (FieldsV1), or a message;
`[x]` is a list, `{x}` a map from strings. A star marks a field that can be unset: the zero of the
others is as good as nothing. `any` is what only larger clients send; it is not read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    name: str
    type: str
    """Without brackets and star."""
    many: str
    """"list", "map" or ""."""
    optional: bool
    """Its zero says something."""


Message = Mapping[int, Field]


@cache
def table() -> Mapping[str, Message]:
    """Return all messages by their names."""
    text = (resources.files(__package__) / "messages.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    entries = "\n".join(lines).replace("\n ", " ").splitlines()
    return {name: _message(fields) for name, _, fields in (e.partition(":") for e in entries)}


def _message(text: str) -> Message:
    fields = (field.split() for field in text.split(","))
    return {int(number): _field(name, kind) for name, number, kind in fields}


def _field(name: str, kind: str) -> Field:
    many = {"[": "list", "{": "map"}.get(kind[0], "")
    inner = kind[1:-1] if many else kind
    return Field(name, inner.removeprefix("*"), many, inner.startswith("*"))
