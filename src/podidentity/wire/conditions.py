"""Conditions of an object's status: what has been said of it, and what to say anew.

https://pkg.go.dev/k8s.io/apimachinery/pkg/apis/meta/v1#Condition
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

Raw = bytes | msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What is said by one condition; its message only explains, and so is not compared."""

    holds: bool
    reason: str
    generation: int
    """Of the object of which it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An object, as far as who speaks of it must know it."""

    uid: str = ""
    generation: int = 0
    word: Word | None = None
    """None where nothing is said yet, or nothing that can be read."""


class _Meta(msgspec.Struct, rename="camel"):
    uid: str = ""
    generation: int = 0
    resource_version: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta
    status: Any = None


_OBJECT = msgspec.json.Decoder(_Object)
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def parse_said(raw: Raw, kind: str) -> Said:
    """Return what the condition `kind` of the object says; of what cannot be read, nothing."""
    found = _decoded(raw)
    if found is None:
        return Said()
    words = [_word(each) for each in _conditions(found.status) if each.get("type") == kind]
    meta = found.metadata
    return Said(uid=meta.uid, generation=meta.generation, word=words[0] if words else None)


def render_said(raw: Raw, kind: str, word: Word, message: str, now: float) -> dict[str, Any]:
    """Return the merge patch by which the object in `raw` says so, and all else that it said.

    It is for this version of the object only: a merge replaces the whole list. The time of the
    last transition moves with the status alone. Raises ValueError.
    """
    found = _decoded(raw)
    if found is None:
        raise ValueError("not a Kubernetes object")
    before = _conditions(found.status)
    status = str(word.holds)
    same = [each for each in before if each.get("type") == kind and each.get("status") == status]
    since = same[0].get("lastTransitionTime") if same else None
    condition = {
        "type": kind,
        "status": status,
        "reason": word.reason,
        "message": message,
        "observedGeneration": word.generation,
        "lastTransitionTime": since or _time(now),
    }
    others = [each for each in before if each.get("type") != kind]
    return {
        "metadata": {"resourceVersion": found.metadata.resource_version},
        "status": {"conditions": [*others, condition]},
    }


def _decoded(raw: Raw) -> _Object | None:
    try:
        return _OBJECT.decode(raw)
    except _BROKEN:
        return None


def _conditions(status: object) -> list[dict[str, Any]]:
    found = status.get("conditions") if isinstance(status, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _word(condition: dict[str, Any]) -> Word | None:
    status, reason = condition.get("status"), condition.get("reason")
    generation = condition.get("observedGeneration")
    if status not in {"True", "False"} or not isinstance(reason, str):
        return None
    if not isinstance(generation, int):
        return None
    return Word(holds=status == "True", reason=reason, generation=generation)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
