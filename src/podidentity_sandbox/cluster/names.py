"""Rules of names, labels and annotations, with the real server's messages.

The rules and their texts:
https://github.com/kubernetes/apimachinery/blob/master/pkg/util/validation/validation.go
"""

from __future__ import annotations

import re
import secrets

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"

_SERVICE = "[a-z]([-a-z0-9]*[a-z0-9])?"
_SERVICE_FAULT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    f"regex used for validation is '{_SERVICE}')"
)

_SUBDOMAIN_FAULT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    rf"for validation is '{_LABEL}(\.{_LABEL})*')"
)
_LABEL_FAULT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    f"for validation is '{_LABEL}')"
)
_QUALIFIED_FAULT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    f"validation is '{_QUALIFIED}')"
)
_VALUE_FAULT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',"
    f"  or '12345', regex used for validation is '{_VALUE}')"
)


def _limited(text: str, limit: int, pattern: str, fault: str) -> list[str]:
    faults = [f"must be no more than {limit} bytes"] if len(text.encode()) > limit else []
    if not re.fullmatch(pattern, text, re.ASCII):
        faults.append(fault)
    return faults


def subdomain_faults(name: str) -> list[str]:
    """Return the faults of a DNS-1123 subdomain, the rule of most names."""
    return _limited(name, 253, _SUBDOMAIN, _SUBDOMAIN_FAULT)


def label_faults(name: str) -> list[str]:
    """Return the faults of a DNS-1123 label, the rule of namespaces and containers."""
    return _limited(name, 63, _LABEL, _LABEL_FAULT)


def service_faults(name: str) -> list[str]:
    """Return the faults of a DNS-1035 label, the rule of services."""
    return _limited(name, 63, _SERVICE, _SERVICE_FAULT)


def path_faults(name: str) -> list[str]:
    """Return the faults of a path segment, the rule of RBAC names."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{mark}'" for mark in "/%" if mark in name]


def qualified_faults(key: str) -> list[str]:
    """Return the faults of the key of a label or annotation: `[prefix/]name`."""
    prefix, slash, name = key.rpartition("/")
    if slash and "/" in prefix:
        return [
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character with an optional DNS subdomain prefix "
            "and '/' (e.g. 'example.com/MyName')"
        ]
    faults = []
    if slash:
        faults = [f"prefix part {fault}" for fault in subdomain_faults(prefix)]
        if not prefix:
            faults = ["prefix part must be non-empty"]
    if not name:
        return [*faults, "name part must be non-empty"]
    return faults + _limited(name, 63, _QUALIFIED, _QUALIFIED_FAULT)


def value_faults(value: str) -> list[str]:
    """Return the faults of the value of a label."""
    return _limited(value, 63, _VALUE, _VALUE_FAULT)


LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated names. No vowels, so that none is a word: k8s.io/apimachinery/pkg/util/rand."""


def generated(prefix: str) -> str:
    """Return a name as generateName makes it: the prefix and five letters."""
    return prefix[:58] + "".join(secrets.choice(LETTERS) for _ in range(5))
