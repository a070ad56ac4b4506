"""Selection of the objects of a list or a watch: label and field selectors.

Grammar and meaning: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
and https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from podidentity_sandbox.cluster import Obj, names, status
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import field_of

Test = Callable[[Mapping[str, str]], bool]
"""A condition on an object's labels."""

_TOKEN = re.compile(r"==|!=|[=!<>(),]|[^\s=!<>(),]+")
_SYMBOLS = frozenset({"==", "!=", "=", "!", "<", ">", "(", ")", ","})
_OPERATORS = ("in", "notin", "=", "==", "!=", ">", "<")
_END = ""
"""The token after the last word."""


class Unreadable(ValueError):
    """An invalid selector; the text says which token was found in place of which."""


def parse(text: str) -> tuple[Test, ...]:
    """Return the conditions of a selector; raise Unreadable."""
    return tuple(_Parser(text).requirements())


def text(selector: Mapping[str, Any]) -> str:
    """Return a LabelSelector object as a query has it, in the order of its keys."""
    labels = selector.get("matchLabels") or {}
    parts = [(key, f"{key}={value}") for key, value in labels.items()]
    for rule in selector.get("matchExpressions") or ():
        key, values = rule.get("key", ""), ",".join(sorted(rule.get("values") or ()))
        match rule.get("operator"):
            case "In":
                parts.append((key, f"{key} in ({values})"))
            case "NotIn":
                parts.append((key, f"{key} notin ({values})"))
            case "Exists":
                parts.append((key, key))
            case "DoesNotExist":
                parts.append((key, f"!{key}"))
    return ",".join(part for _, part in sorted(parts, key=itemgetter(0)))


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _take(self) -> str:
        word = self._next()
        self._at += 1
        return word

    def requirements(self) -> list[Test]:
        """Read one requirement after the other, up to the end."""
        found: list[Test] = []
        if self._next() in _SYMBOLS - {"!"}:
            raise Unreadable(f"found '{self._next()}', expected: !, identifier, or 'end of string'")
        while self._next():
            try:
                found.append(self._requirement())
            except Unreadable as error:
                raise Unreadable(f"unable to parse requirement: {error}") from error
            after = self._take()
            if after and after != ",":
                raise Unreadable(f"found '{after}', expected: ',' or 'end of string'")
            if after and (self._next() == _END or self._next() in _SYMBOLS - {"!"}):
                raise Unreadable(f"found '{self._next()}', expected: identifier after ','")
        return found

    def _requirement(self) -> Test:
        word = self._take()
        absent = word == "!"
        key = self._take() if absent else word
        if not key or key in _SYMBOLS:
            raise Unreadable(f"found '{key}', expected: identifier")
        _refuse("<nil>", key, names.qualified_faults(key))
        if self._next() in (_END, ","):
            return (lambda labels: key not in labels) if absent else (lambda labels: key in labels)
        return self._comparison(key)

    def _comparison(self, key: str) -> Test:
        operator = self._take()
        if operator not in _OPERATORS:
            raise Unreadable(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
        if operator in ("in", "notin"):
            values = self._values()
            _check(key, sorted(values))
            if operator == "in":
                return lambda labels: key in labels and labels[key] in values
            return lambda labels: key not in labels or labels[key] not in values
        value = self._value()
        if operator in ("<", ">"):
            raise Unreadable(f"the sandbox compares no numbers: {key}{operator}{value}")
        _check(key, [value])
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value

    def _value(self) -> str:
        if self._next() in (_END, ","):
            return ""
        value = self._take()
        if value in _SYMBOLS:
            raise Unreadable(f"found '{value}', expected: identifier")
        return value

    def _values(self) -> frozenset[str]:
        """Read `(a, b)`; between commas, and in `()`, there may be nothing."""
        opening = self._take()
        if opening != "(":
            raise Unreadable(f"found '{opening}' expected: '('")
        if self._next() in _SYMBOLS - {",", ")"} or self._next() == _END:
            raise Unreadable(f"found '{self._next()}', expected: ',', ')' or identifier")
        values, value = set(), ""
        while (word := self._take()) != ")":
            if word == ",":
                values.add(value)
                value = ""
            elif word == _END or word in _SYMBOLS:
                wanted = "',' or ')'" if value else "',', or identifier"
                raise Unreadable(f"found '{word}', expected: {wanted}")
            elif value:
                raise Unreadable(f"found '{word}', expected: ',' or ')'")
            else:
                value = word
        return frozenset({*values, value})


def _check(key: str, values: list[str]) -> None:
    for index, value in enumerate(values):
        _refuse(f"values[{index}][{key}]", value, names.value_faults(value))


def _refuse(where: str, value: str, faults: list[str]) -> None:
    if faults:
        raise Unreadable(f"{where}: Invalid value: {json.dumps(value)}: {'; '.join(faults)}")


# ---- Selections


@dataclass(frozen=True, slots=True)
class Selection:
    """A namespace ("" for all), and conditions on labels and fields."""

    namespace: str = ""
    labels: tuple[Test, ...] = ()
    fields: tuple[tuple[str, bool, str], ...] = ()
    """Path, whether it must be equal, value."""

    def matches(self, obj: Obj) -> bool:
        """Whether an object is wanted."""
        metadata = obj["metadata"]
        if self.namespace and metadata.get("namespace") != self.namespace:
            return False
        labels = metadata.get("labels", {})
        return all(test(labels) for test in self.labels) and all(
            (_text(field_of(obj, path)) == value) == equal for path, equal, value in self.fields
        )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def select(kind: ResourceType, namespace: str, labels: str, fields: str) -> Selection:
    """Return the selection of a request; raise 400 for a selector that cannot be read."""
    return Selection(
        namespace if kind.namespaced else "",
        _label_tests(labels),
        tuple(_field_test(kind, part) for part in fields.split(",") if part.strip()),
    )


def _label_tests(text: str) -> tuple[Test, ...]:
    try:
        return parse(text)
    except Unreadable as error:
        raise status.bad_request(str(error)) from error


def _field_test(kind: ResourceType, part: str) -> tuple[str, bool, str]:
    label, sign, value = _field_parts(part)
    paths = {"metadata.name": "metadata.name", **kind.selectable}
    if kind.namespaced:
        paths["metadata.namespace"] = "metadata.namespace"
    if label not in paths:
        raise status.bad_request(f"field label not supported: {label}")
    return paths[label], sign != "!=", value


def _field_parts(part: str) -> tuple[str, str, str]:
    for sign in ("!=", "==", "="):
        label, found, value = part.partition(sign)
        if found:
            return label.strip(), sign, value.strip()
    raise status.bad_request(
        f"invalid selector: '{part.strip()}'; can't understand '{part.strip()}'"
    )


def matches_labels(selector: Obj, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy a LabelSelector object (matchLabels, matchExpressions)."""
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(satisfies(rule, labels) for rule in selector.get("matchExpressions") or [])


def satisfies(rule: Obj, values: Mapping[str, str]) -> bool:
    """Whether `values` satisfy one {key, operator, values} rule; an unknown operator never."""
    key, wanted = rule.get("key", ""), rule.get("values") or []
    match rule.get("operator"):
        case "In":
            return key in values and values[key] in wanted
        case "NotIn":
            return key not in values or values[key] not in wanted
        case "Exists":
            return key in values
        case "DoesNotExist":
            return key not in values
        case _:
            return False
