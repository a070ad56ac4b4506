"""Rules of names, labels and annotations.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

from __future__ import annotations

import re
import secrets

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"


def _limited(text: str, limit: int, pattern: str, what: str) -> list[str]:
    if len(text.encode()) <= limit and re.fullmatch(pattern, text, re.ASCII):
        return []
    return [f"{what} must be of the form '{pattern}', of no more than {limit} bytes"]


def subdomain_faults(name: str) -> list[str]:
    """Return the faults of a DNS-1123 subdomain, the rule of most names."""
    return _limited(name, 253, _SUBDOMAIN, "a lowercase RFC 1123 subdomain")


def label_faults(name: str) -> list[str]:
    """Return the faults of a DNS-1123 label, the rule of namespaces, services and containers."""
    return _limited(name, 63, _LABEL, "a lowercase RFC 1123 label")


def path_faults(name: str) -> list[str]:
    """Return the faults of a path segment, the rule of RBAC names."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{mark}'" for mark in "/%" if mark in name]


def qualified_faults(key: str) -> list[str]:
    """Return the faults of the key of a label or annotation: `[prefix/]name`."""
    prefix, slash, name = key.rpartition("/")
    faults = subdomain_faults(prefix) if slash else []
    return faults + _limited(name, 63, _QUALIFIED, "a qualified name")


def value_faults(value: str) -> list[str]:
    return _limited(value, 63, f"({_QUALIFIED})?", "a valid label")


LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated names. No vowels, so that none is a word: k8s.io/apimachinery/pkg/util/rand."""


def generated(prefix: str) -> str:
    """Return a name as generateName makes it: the prefix and five letters."""
    return prefix[:58] + "".join(secrets.choice(LETTERS) for _ in range(5))
