"""What structural schemas prune, fill in and refuse.

The first message was recorded from a real server; the others follow its sources:
https://github.com/kubernetes/kube-openapi/blob/master/pkg/validation/errors/schema.go
https://github.com/kubernetes/apimachinery/blob/master/pkg/util/validation/field/errors.go
"""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cluster.schema import default, prune, validate

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}


INT32 = {**WHOLE, "format": "int32"}
TEXTS = {"type": "array", "items": TEXT}
TEXTS_BY_NAME = {"type": "object", "additionalProperties": TEXT}


@pytest.mark.parametrize(
    ("field", "value", "where", "found", "rule"),
    [
        (WHOLE, "no", "", '"string"', 'must be of type integer: "string"'),
        (TEXT, 7, "", '"integer"', 'must be of type string: "integer"'),
        (TEXT, None, "", '"null"', 'must be of type string: "null"'),
        (TEXTS_BY_NAME, {"a": 1}, ".a", '"integer"', 'must be of type string: "integer"'),
        (TEXTS, ["a", True], "[1]", '"boolean"', 'must be of type string: "boolean"'),
        ({**TEXT, "pattern": "^a"}, "b", "", '"b"', "should match '^a'"),
        (
            {**TEXT, "format": "date-time"},
            *("today", "", '"today"', 'must be of type date-time: "today"'),
        ),
    ],
)
def test_a_value_that_breaks_the_schema_is_told_in_the_real_words(
    field: Any, value: Any, where: str, found: str, rule: str
) -> None:
    (fault,) = validate(of(x=field), {"spec": {"x": value}})
    assert str(fault) == f"spec.x{where}: Invalid value: {found}: spec.x{where} in body {rule}"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            INT32,
            2**31,
            "spec.x: Invalid value: 2147483648: spec.x must be of format int32",
        ),
        (
            {**TEXT, "enum": ["pod", "identity"]},
            "x",
            'spec.x: Unsupported value: "x": supported values: "pod", "identity"',
        ),
        ({**TEXT, "maxLength": 2}, "abc", 'spec.x: Invalid value: "abc": spec.x: maxLength is 2'),
        (
            {**TEXTS, "maxItems": 1},
            ["a", "b"],
            'spec.x: Invalid value: ["a","b"]: spec.x: maxItems is 1',
        ),
        ({**WHOLE, "minimum": 1}, 0, "spec.x: Invalid value: 0: spec.x: minimum is 1"),
        ({"type": "object", "required": ["name"]}, {}, "spec.x.name: Required value"),
    ],
)
def test_some_faults_have_words_of_their_own(field: Any, value: Any, message: str) -> None:
    (fault,) = validate(of(x=field), {"spec": {"x": value}})
    assert str(fault) == message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ({**TEXT, "nullable": True}, None),
        ({"x-kubernetes-int-or-string": True}, "50%"),
        ({"x-kubernetes-int-or-string": True}, 3),
        (WHOLE, 3.0),
        ({"type": "number"}, 3),
        (INT32, -(2**31)),
        ({**TEXT, "format": "date-time"}, "2026-11-25T09:10:17.123456Z"),
        ({"anyOf": [TEXT, WHOLE], "x-kubernetes-preserve-unknown-fields": True}, 1),
    ],
)
def test_a_value_that_the_schema_allows_has_no_fault(field: Any, value: Any) -> None:
    assert validate(of(x=field), {"spec": {"x": value}}) == []


@pytest.mark.parametrize(("word", "value"), [("anyOf", True), ("oneOf", 5), ("allOf", 50)])
def test_combined_schemas_count_how_many_hold(word: str, value: Any) -> None:
    field = {word: [{**WHOLE, "minimum": 1}, {**WHOLE, "maximum": 10}]}
    assert len(validate(of(x=field), {"spec": {"x": value}})) == 1


def test_pruning_keeps_what_is_named_and_says_what_it_took() -> None:
    embedded = {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {}}
    schema = of(
        known=TEXT,
        map={"type": "object", "additionalProperties": TEXT},
        free={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        list={"type": "array", "items": {"type": "object", "properties": {"a": TEXT}}},
        inner=embedded,
    )
    head = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}}
    kept = {"known": "k", "map": {"any": "thing"}, "free": {"deep": {"er": 1}}}
    value: dict[str, Any] = {
        **head,
        "other": 1,
        "spec": {**kept, "unknown": 1, "list": [{"a": "1", "b": 2}], "inner": {**head, "spec": {}}},
    }
    removed = prune(schema, value)
    assert sorted(removed) == ["other", "spec.inner.spec", "spec.list[0].b", "spec.unknown"]
    assert value == {**head, "spec": {**kept, "list": [{"a": "1"}], "inner": head}}


def test_defaults_fill_what_is_absent_or_null_and_nothing_else() -> None:
    field = {
        "type": "object",
        "properties": {
            "size": {**WHOLE, "default": 3},
            "none": {**TEXT, "nullable": True, "default": "x"},
            "list": {"type": "array", "items": {"properties": {"a": {**TEXT, "default": "d"}}}},
        },
    }
    value: dict[str, Any] = {"spec": {"x": {"none": None, "list": [{}, {"a": "own"}]}}}
    default(of(x=field), value)
    assert value["spec"]["x"] == {"size": 3, "none": None, "list": [{"a": "d"}, {"a": "own"}]}
    null: dict[str, Any] = {"spec": {"x": {"size": None}}}
    default(of(x=field), null)
    assert null["spec"]["x"]["size"] == 3
