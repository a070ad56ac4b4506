"""Patches: JSON patch, merge patch, and strategic merge patches with lists by their keys."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podidentity_sandbox.cluster.fields import built_in
from podidentity_sandbox.cluster.patch import strategic
from podidentity_sandbox.cluster.patch.patches import merge, operated
from podidentity_sandbox.cluster.patch.strategic import Unfit
from podidentity_sandbox.cluster.status import StatusError
from tests.core.worlds import occurs


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


# ---- Strategic merge patches of built-in types: lists by their keys, directives, orders, refusals.

POD = built_in("", "v1", "Pod")
Object = dict[str, Any]


def patched(original: Object, patch: Object) -> Object:
    return strategic.merge(copy.deepcopy(original), copy.deepcopy(patch), POD)


def containers(*names: str, **fields: Any) -> list[Object]:
    return [{"name": name, **fields} for name in names]


def spec(**fields: Any) -> Object:
    return {"spec": fields}


# https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        (  # items with the same key are merged, others come first
            spec(containers=containers("a", image="1")),
            spec(containers=[{"name": "a", "image": "2"}, {"name": "b"}]),
            spec(containers=[{"name": "a", "image": "2"}, {"name": "b"}]),
        ),
        (
            spec(containers=containers("a", "b")),
            spec(containers=[{"name": "c"}, {"$patch": "replace"}]),
            spec(containers=containers("c")),
        ),
        (
            spec(containers=containers("a", "b", "c")),
            {"spec": {"$setElementOrder/containers": containers("c", "a")}},
            spec(containers=containers("b", "c", "a")),
        ),
        (  # without a merge key in the type, a list is replaced
            spec(tolerations=[{"key": "a"}]),
            spec(tolerations=[{"key": "b"}]),
            spec(tolerations=[{"key": "b"}]),
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["c", "a"]}},
            {"metadata": {"finalizers": ["c", "a", "b"]}},
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}},
            {"metadata": {"finalizers": ["b"]}},
        ),
        ({"metadata": {"labels": {"a": "1"}}}, {"metadata": {"labels": None}}, {"metadata": {}}),
        ({}, {"metadata": {"labels": {"a": None, "b": "1"}}}, {"metadata": {"labels": {"b": "1"}}}),
        ({}, {"metadata": {"labels": {"$patch": "delete"}}}, {"metadata": {}}),
        (
            spec(containers=containers("a"), nodeName="n"),
            spec(containers=None),
            spec(nodeName="n"),
        ),
    ],
)
def test_a_patch_does_what_its_directives_say(
    original: Object, patch: Object, result: Object
) -> None:
    assert patched(original, patch) == result


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"$patch": "steal"}, "unknown patch type: steal in map: map[$patch:steal]"),
        (
            spec(containers=[{"name": "a", "$patch": "merge"}]),
            "merging lists cannot yet be specified in the patch",
        ),
        ({"spec": {"$retainKeys": "name"}}, "invalid patch format of retainKeys"),
        (
            {"spec": {"$retainKeys": ["nodeName"], "hostNetwork": True}},
            "invalid patch format of retainKeys",
        ),
        (
            {"spec": {"$setElementOrder/containers": "a"}},
            "expected a []interface {}, but received a string",
        ),
        (
            spec(
                **{"$setElementOrder/containers": containers("b", "a")},
                containers=containers("a", "b"),
            ),
            "The order in patch list:\n[map[name:a] map[name:b]]\n doesn't match "
            "$setElementOrder list:\n[map[name:b] map[name:a]]\n",
        ),
        (
            spec(containers=[{"name": "a"}, "b"]),
            "list element types are not identical: map, string",
        ),
    ],
)
# https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/util/mergepatch/errors.go
def test_a_patch_that_makes_no_sense_is_refused_in_the_servers_words(
    patch: Object, words: str
) -> None:
    with pytest.raises(Unfit) as refusal:
        patched(spec(containers=containers("a")), patch)
    assert str(refusal.value) == words


NAMES = st.sampled_from("abc")
LISTS = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"image": NAMES, "workingDir": NAMES}),
    max_size=3,
    unique_by=lambda item: item["name"],
)
PODS = st.fixed_dictionaries(
    {"metadata": st.fixed_dictionaries({"labels": st.dictionaries(NAMES, NAMES)})},
    optional={"spec": st.fixed_dictionaries({"containers": LISTS})},
)


@settings(max_examples=200, deadline=None)
@given(PODS, PODS)
def test_a_patch_applied_twice_changes_nothing_more(original: Object, patch: Object) -> None:
    once = patched(original, patch)
    assert patched(once, patch) == once


@settings(max_examples=200, deadline=None)
@given(PODS, PODS)
def test_all_that_a_patch_says_is_there_and_nothing_is_lost(
    original: Object, patch: Object
) -> None:
    result = patched(original, patch)
    assert (
        result["metadata"]["labels"] == original["metadata"]["labels"] | patch["metadata"]["labels"]
    )
    before, said, now = (_by_name(pod) for pod in (original, patch, result))
    assert now == {name: before.get(name, {}) | said.get(name, {}) for name in {**before, **said}}


def _by_name(pod: Object) -> dict[str, Object]:
    return {item["name"]: item for item in pod.get("spec", {}).get("containers", [])}


def test_the_patches_above_change_items_and_add_some() -> None:
    pairs = st.tuples(PODS, PODS)
    occurs(pairs, lambda pair: bool(_by_name(pair[0]).keys() & _by_name(pair[1]).keys()))
    occurs(
        pairs,
        lambda pair: bool(_by_name(pair[0])) and bool(_by_name(pair[1]).keys() - _by_name(pair[0])),
    )
