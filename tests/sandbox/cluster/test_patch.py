"""Patches: JSON patch and merge patch."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cluster.patch.patches import merge, operated
from podidentity_sandbox.cluster.status import StatusError


# The examples of RFC 7396, appendix A: https://www.rfc-editor.org/rfc/rfc7396#appendix-A
@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_what_its_rfc_says(original: Any, patch: Any, result: Any) -> None:
    assert merge(original, patch) == result


def test_a_json_patch_finds_a_missing_field_equal_to_null_as_go_does() -> None:
    patch = [{"op": "test", "path": "/a", "value": None}, {"op": "add", "path": "/a", "value": 1}]
    assert operated({}, patch) == {"a": 1}
    with pytest.raises(StatusError):
        operated({"a": 1}, patch)


def test_a_json_patch_changes_a_copy() -> None:
    obj = {"spec": {"size": 1}}
    patch = [
        {"op": "test", "path": "/spec/size", "value": 1},
        {"op": "replace", "path": "/spec/size", "value": 2},
        {"op": "add", "path": "/spec/a~1b", "value": "x"},
    ]
    assert operated(obj, patch) == {"spec": {"size": 2, "a/b": "x"}}
    assert obj == {"spec": {"size": 1}}


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ([{"op": "test", "path": "/spec/size", "value": 9}], 422),
        ([{"op": "remove", "path": "/spec/missing"}], 422),
        ([{"op": "nonsense", "path": "/spec"}], 400),
        ([{"path": "/spec"}], 400),
        ({"spec": {}}, 400),
        ("text", 400),
    ],
)
def test_a_json_patch_that_cannot_be_applied_is_refused(patch: Any, code: int) -> None:
    with pytest.raises(StatusError) as refusal:
        operated({"spec": {"size": 1}}, patch)
    assert refusal.value.code == code
