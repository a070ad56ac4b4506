"""Kubernetes Secrets: their entries, out of base64.

https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from podidentity.core.ids import ObjectRef

LARGEST = 256 << 10
"""Bytes of base64: an agent keeps dozens of secrets, and a certificate with its chain has 20 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """What a secret holds."""

    ref: ObjectRef
    data: Mapping[str, bytes] = field(repr=False)


class _Meta(msgspec.Struct):
    name: str
    namespace: str = ""


class _Secret(msgspec.Struct):
    metadata: _Meta
    data: dict[str, str] | None = None


_SECRET = msgspec.json.Decoder(_Secret)


def parse_secret(raw: bytes | msgspec.Raw) -> Entries:
    """Return the entries of a Secret; raise ValueError, which names no value."""
    try:
        found = _SECRET.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # What the decoder says may quote the bytes around the fault.
        raise ValueError("not a Secret") from None
    if sum(map(len, (found.data or {}).values())) > LARGEST:
        raise ValueError(f"it is not what an identity needs: it holds more than {LARGEST} bytes")
    try:
        data = {
            key: binascii.a2b_base64(value.encode()) for key, value in (found.data or {}).items()
        }
    except ValueError:
        raise ValueError("an entry of it is not base64") from None
    return Entries(ref=ObjectRef(found.metadata.namespace, found.metadata.name), data=data)
