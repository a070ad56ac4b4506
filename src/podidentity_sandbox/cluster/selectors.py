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

_FIELD = re.compile(r"(!=|==|=)")
_REQUIREMENT = re.compile(
    r"\s*(?P<absent>!?)\s*(?P<key>[^\s=!<>(),]+)\s*"
    r"((?P<sign>==|=|!=)\s*(?P<value>[^\s=!<>(),]*)\s*|(?P<set>in|notin)\s*\((?P<values>[^()]*)\)\s*)?"
    r"(,(?=.)|$)"
)


class Unreadable(ValueError):
    """An invalid selector; the text says from where on."""


def parse(text: str) -> tuple[Obj, ...]:
    """Return what a selector requires, as matchExpressions have it; raise Unreadable."""
    found: list[Obj] = []
    place = 0
    while place < len(text):
        read = _REQUIREMENT.match(text, place)
        word = read and (read["sign"] or read["set"])
        if read is None or (read["absent"] and word):
            raise Unreadable(f"unable to parse requirement: {json.dumps(text[place:])}")
        place, key = read.end(), read["key"]
        values = [each.strip() for each in (read["value"] or read["values"] or "").split(",")]
        if not word:
            values = []
        for fault in (
            *names.qualified_faults(key),
            *(f for v in values for f in names.value_faults(v)),
        ):
            raise Unreadable(f"unable to parse requirement: {fault}")
        operator = {
            "": "DoesNotExist" if read["absent"] else "Exists",
            "!=": "NotIn",
            "notin": "NotIn",
        }
        found.append({"key": key, "operator": operator.get(word or "", "In"), "values": values})
    return tuple(found)


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
