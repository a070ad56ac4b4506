"""Selection of the objects of a list or a watch: label and field selectors.

Grammar and meaning: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
and https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from podidentity_sandbox.cluster import Obj, names, status
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import field_of

_TOKEN = re.compile(r"==|!=|[=!<>(),]|[^\s=!<>(),]+")
_SYMBOLS = frozenset({"==", "!=", "=", "!", "<", ">", "(", ")", ","})
_FIELD = re.compile(r"(!=|==|=)")
_NO_BEGINNING = _SYMBOLS - {"!"}
_OPERATORS = {"in": "In", "notin": "NotIn", "=": "In", "==": "In", "!=": "NotIn", "<": "", ">": ""}
_END = ""
"""The token after the last word."""


class Unreadable(ValueError):
    """An invalid selector; the text says which token was found in place of which."""


def parse(text: str) -> tuple[Obj, ...]:
    """Return what a selector requires, as matchExpressions have it; raise Unreadable."""
    tokens = [*_TOKEN.findall(text), _END]
    found: list[Obj] = []
    if tokens[0] in _NO_BEGINNING:
        raise Unreadable(f"found '{tokens[0]}', expected: !, identifier, or 'end of string'")
    while tokens[0]:
        try:
            found.append(_requirement(tokens))
        except Unreadable as error:
            raise Unreadable(f"unable to parse requirement: {error}") from error
        if tokens[0] not in (_END, ","):
            raise Unreadable(f"found '{tokens[0]}', expected: ',' or 'end of string'")
        if tokens[0] and tokens[1] in {_END, *_NO_BEGINNING}:
            raise Unreadable(f"found '{tokens[1]}', expected: identifier after ','")
        del tokens[: tokens[0] == ","]
    return tuple(found)


def _requirement(tokens: list[str]) -> Obj:
    """Take one requirement off the tokens."""
    absent = tokens[0] == "!"
    del tokens[:absent]
    key = _identifier(tokens)
    _refuse("<nil>", key, names.qualified_faults(key))
    if tokens[0] in (_END, ","):
        return {"key": key, "operator": "DoesNotExist" if absent else "Exists"}
    sign = tokens.pop(0)
    if sign not in _OPERATORS:
        raise Unreadable(f"found '{sign}', expected: in, notin, =, ==, !=, gt, lt")
    if sign in ("in", "notin"):
        values = _values(tokens)
    else:
        values = [""] if tokens[0] in (_END, ",") else [_identifier(tokens)]
    if not _OPERATORS[sign]:
        raise Unreadable(f"the sandbox compares no numbers: {key}{sign}{values[0]}")
    for index, value in enumerate(sorted(values)):
        _refuse(f"values[{index}][{key}]", value, names.value_faults(value))
    return {"key": key, "operator": _OPERATORS[sign], "values": values}


def _identifier(tokens: list[str]) -> str:
    if not tokens[0] or tokens[0] in _SYMBOLS:
        raise Unreadable(f"found '{tokens[0]}', expected: identifier")
    return tokens.pop(0)


def _values(tokens: list[str]) -> list[str]:
    """Take `(a, b)` off the tokens; between commas, and in `()`, there may be nothing."""
    if tokens[0] != "(":
        raise Unreadable(f"found '{tokens[0]}' expected: '('")
    if tokens[1] in {_END, *_SYMBOLS} - {",", ")"}:
        raise Unreadable(f"found '{tokens[1]}', expected: ',', ')' or identifier")
    del tokens[0]
    values, value = [], ""
    while (word := tokens.pop(0)) != ")":
        if word == ",":
            values.append(value)
            value = ""
        elif value or not word or word in _SYMBOLS:
            wanted = "',' or ')'" if value else "',', or identifier"
            raise Unreadable(f"found '{word}', expected: {wanted}")
        else:
            value = word
    return [*values, value]


def _refuse(where: str, value: str, faults: list[str]) -> None:
    if faults:
        raise Unreadable(f"{where}: Invalid value: {json.dumps(value)}: {'; '.join(faults)}")


# ---- LabelSelector objects


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


# ---- Selections


@dataclass(frozen=True, slots=True)
class Selection:
    """A namespace ("" for all), and conditions on labels and fields."""

    namespace: str = ""
    labels: tuple[Obj, ...] = ()
    fields: tuple[tuple[str, bool, str], ...] = ()
    """Path, whether it must be equal, value."""

    def matches(self, obj: Obj) -> bool:
        """Whether an object is wanted."""
        metadata = obj["metadata"]
        if self.namespace and metadata.get("namespace") != self.namespace:
            return False
        labels = metadata.get("labels", {})
        return all(satisfies(rule, labels) for rule in self.labels) and all(
            (_text(field_of(obj, path)) == value) == equal for path, equal, value in self.fields
        )


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def select(kind: ResourceType, namespace: str, labels: str, fields: str) -> Selection:
    """Return the selection of a request; raise 400 for a selector that cannot be read."""
    try:
        rules = parse(labels)
    except Unreadable as error:
        raise status.bad_request(str(error)) from error
    return Selection(namespace if kind.namespaced else "", rules, tuple(_field_tests(kind, fields)))


def _field_tests(kind: ResourceType, text: str) -> Iterator[tuple[str, bool, str]]:
    paths = {"metadata.name": "metadata.name", **kind.selectable}
    if kind.namespaced:
        paths["metadata.namespace"] = "metadata.namespace"
    for part in filter(None, map(str.strip, text.split(","))):
        label, sign, value = _FIELD.split(part, 1) if _FIELD.search(part) else (part, "", "")
        if not sign:
            raise status.bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if label.strip() not in paths:
            raise status.bad_request(f"field label not supported: {label.strip()}")
        yield paths[label.strip()], sign != "!=", value.strip()
