"""Kubernetes Secrets: their entries out of base64, and a digest that stands for them.

`core.secrets` knows which entry an identity needs.

https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from podidentity.core.budgets import BUDGETS
from podidentity.core.resources import ObjectRef
from podidentity.core.secrets import Secret
from podidentity.wire import BROKEN_JSON

LARGEST = BUDGETS["Secret"].object
"""Bytes of base64: an agent keeps dozens of secrets, and a certificate with its chain has 20 kB."""


class _Meta(msgspec.Struct):
    name: str
    namespace: str = ""


class _Secret(msgspec.Struct):
    metadata: _Meta
    data: dict[str, str] | None = None


_SECRET = msgspec.json.Decoder(_Secret)


def parse_secret(raw: bytes | msgspec.Raw, *, key: bytes) -> Secret:
    """Return the Secret, its digest keyed with `key` (1 to 64 bytes).

    Raises ValueError, which names no value.
    """
    try:
        found = _SECRET.decode(raw)
    except BROKEN_JSON:
        # The decoder's message may quote the bytes around the fault.
        raise ValueError("not a Secret") from None
    if sum(map(len, (found.data or {}).values())) > LARGEST:
        raise ValueError(f"it is not what an identity needs: it holds more than {LARGEST} bytes")
    try:
        entries = {
            name: binascii.a2b_base64(value.encode()) for name, value in (found.data or {}).items()
        }
    except ValueError:
        raise ValueError("an entry of it is not base64") from None
    return Secret(
        ref=ObjectRef(found.metadata.namespace, found.metadata.name),
        entries=entries,
        digest=_digest(entries, key),
    )


def changed_at(secret: Mapping[str, Any]) -> float:
    """Return when a Secret's entries were written last, in seconds since 1970, by its metadata.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    meta = secret["metadata"]
    fields = meta.get("managedFields") or ()
    written = [each.get("time") for each in fields if "f:data" in (each.get("fieldsV1") or ())]
    times = (meta["creationTimestamp"], *written)
    return max(datetime.fromisoformat(each).timestamp() for each in times if each)


def _digest(entries: Mapping[str, bytes], key: bytes) -> str:
    digest = blake2b(key=key, digest_size=16)
    for name, value in sorted(entries.items()):
        digest.update(f"{name}:{len(value)}:".encode() + value)
    return digest.hexdigest()
