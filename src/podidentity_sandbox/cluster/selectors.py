"""Which objects a list or a watch is about: label and field selectors.

Grammar and meaning: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
and https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from podidentity_sandbox.cluster import labelselectors, status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.labelselectors import Test
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import field_of


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
        _label_tests(labels),
        tuple(_field_test(kind, part) for part in fields.split(",") if part.strip()),
    )


def _label_tests(text: str) -> tuple[Test, ...]:
    try:
        return labelselectors.parse(text)
    except labelselectors.Unreadable as error:
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
