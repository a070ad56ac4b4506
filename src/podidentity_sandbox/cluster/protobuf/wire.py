"""The wire format of protobuf: numbered fields, one after the other.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

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
