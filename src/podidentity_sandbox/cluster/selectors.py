"""Which objects a list or a watch is about: label and field selectors.

Grammar and meaning: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
and https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from podidentity_sandbox.cluster import names, status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import field_of

Test = Callable[[Mapping[str, str]], bool]
"""A condition on an object's labels."""

_SETTED = re.compile(r"^\s*(?P<key>\S+)\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\)\s*$")
_EQUAL = re.compile(r"^\s*(?P<key>[^\s=!<>]+)\s*(?P<sign>==|=|!=)\s*(?P<value>[^\s=!<>]*)\s*$")
_EXISTS = re.compile(r"^\s*(?P<no>!?)\s*(?P<key>[^\s=!<>(),]+)\s*$")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted of a type: a namespace ("" all), and conditions on labels and fields."""

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
        tuple(_label_test(part) for part in _parts(labels)),
        tuple(_field_test(kind, part) for part in fields.split(",") if part.strip()),
    )


def _parts(text: str) -> list[str]:
    """Split at commas that are not in brackets."""
    return [part for part in re.split(r",(?![^(]*\))", text) if part.strip()] if text else []


def _label_test(part: str) -> Test:
    if match := _SETTED.match(part):
        values = frozenset(value.strip() for value in match["values"].split(","))
        key = _checked(part, match["key"], *values)
        if match["word"] == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: key not in labels or labels[key] not in values
    if match := _EQUAL.match(part):
        key, value = _checked(part, match["key"], match["value"]), match["value"]
        if match["sign"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _EXISTS.match(part):
        key = _checked(part, match["key"])
        if match["no"]:
            return lambda labels: key not in labels
        return lambda labels: key in labels
    raise status.bad_request(f"unable to parse requirement: found '{part.strip()}'")


def _checked(part: str, key: str, *values: str) -> str:
    faults = names.qualified_faults(key) + [f for v in values for f in names.value_faults(v)]
    if faults:
        raise status.bad_request(f"unable to parse requirement: {part.strip()}: {faults[0]}")
    return key


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
