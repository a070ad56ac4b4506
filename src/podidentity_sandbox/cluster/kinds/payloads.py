"""What secrets and configmaps hold: which keys, how much, and when it is fixed.

https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause

LIMIT = 1024 * 1024
"""Bytes of all values together."""
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_WANTED = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
    "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_FIXED = "field is immutable when `immutable` is set"


def key_faults(obj: Obj, field: str) -> Iterator[Cause]:
    """Yield the faults of the keys of a field."""
    for key in obj.get(field) or {}:
        if not _KEY.fullmatch(key) or len(key) > 253 or key in (".", ".."):
            yield status.invalid(f"{field}[{key}]", key, _KEY_WANTED)


def size(obj: Obj) -> int:
    """Return the bytes of all values."""
    texts = sum(len(text.encode()) for text in (obj.get("data") or {}).values())
    return texts + binary_size(obj, "binaryData")


def binary_size(obj: Obj, field: str) -> int:
    """Return the bytes of the values of a field that stand there in base64."""
    return sum(len(base64.b64decode(text)) for text in (obj.get(field) or {}).values())


def check_base64(kind: str, values: Iterable[str]) -> None:
    """Refuse what the real server's decoder cannot read: raise 400."""
    for value in values:
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error as error:
            stray = _NOT_BASE64.search(value)
            place = stray.start() if stray else len(value) - len(value) % 4
            raise status.bad_request(
                f'{kind} in version "v1" cannot be handled as a {kind}: '
                f"illegal base64 data at input byte {place}"
            ) from error


class ConfigMapStrategy(Strategy):
    """Texts and bytes under keys of their own."""

    def prepare_create(self, new: Obj) -> None:
        """Read the bytes."""
        check_base64("ConfigMap", (new.get("binaryData") or {}).values())

    def prepare_update(self, new: Obj, old: Obj) -> None:
        """Do the same."""
        del old
        self.prepare_create(new)

    def validate(self, new: Obj, old: Obj | None) -> Sequence[Cause]:
        """Check keys and size; nothing of an immutable one changes."""
        faults = [*key_faults(new, "data"), *key_faults(new, "binaryData")]
        for key in (new.get("data") or {}).keys() & (new.get("binaryData") or {}).keys():
            detail = "duplicate of key present in binaryData"
            faults.append(status.invalid(f"data[{key}]", key, detail))
        if size(new) > LIMIT:
            # As the real server words a fault of the object as a whole.
            faults.append(status.too_long("[]", LIMIT))
        if old is not None and old.get("immutable"):
            if not new.get("immutable"):
                faults.append(status.forbidden_field("immutable", _FIXED))
            faults += [
                status.forbidden_field(field, _FIXED)
                for field in ("data", "binaryData")
                if new.get(field) != old.get(field)
            ]
        return faults
