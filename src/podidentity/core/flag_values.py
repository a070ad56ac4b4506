"""Values that people write into flags of commands and programs alike."""

from __future__ import annotations

import re

_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|[smh]|$)")
_LONGEST_PREFIX, _LONGEST_NAME = 253, 63
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def parse_duration(text: str) -> float:
    """Return the seconds of `90`, `120s`, `2m`, `500ms` or `1h30m`; raise ValueError."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 90s or 2m")
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def parse_taint_key(text: str) -> str:
    """Return the key, a qualified name of Kubernetes; raise ValueError.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    """
    prefix, slash, name = text.rpartition("/")
    good = (
        len(name) <= _LONGEST_NAME
        and _NAME.fullmatch(name)
        and (not slash or (len(prefix) <= _LONGEST_PREFIX and _PREFIX.fullmatch(prefix)))
    )
    if not good:
        raise ValueError(
            f"{text!r} is no key of a taint: it must be a name of at most 63 letters, digits, "
            "'-', '_' and '.', with or without a domain and a slash before it"
        )
    return text
