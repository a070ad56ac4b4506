"""Single steps of server-side apply, with the outcome that the real server gives them."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cluster.apply import fieldsets, managers, typed
from podidentity_sandbox.cluster.apply.managers import (
    Conflicts,
    Managed,
    after_apply,
    after_update,
    decode,
)
from podidentity_sandbox.cluster.apply.typed import field_set, merged
from tests.sandbox.cluster.apply.schemas import SCHEMA, applier, updater


def applied(name: str, config: dict[str, Any], managed: Managed, live: Any) -> Any:
    return after_apply(applier(name), managed, live, config, force=False)


def test_the_applier_of_a_list_owns_its_items_by_their_keys() -> None:
    ports = [{"port": 80, "note": "a"}, {"port": 80, "protocol": "UDP"}]
    config = {
        "spec": {"items": [{"name": "a", "ports": ports}], "tags": ["x"], "whole": {"a": "b"}}
    }
    assert fieldsets.encode(field_set(SCHEMA, config)) == {
        "f:spec": {
            "f:items": {
                'k:{"name":"a"}': {
                    ".": {},
                    "f:name": {},
                    "f:ports": {
                        'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:note": {}, "f:port": {}},
                        'k:{"port":80,"protocol":"UDP"}': {".": {}, "f:port": {}, "f:protocol": {}},
                    },
                }
            },
            "f:tags": {'v:"x"': {}},
            "f:whole": {},
        }
    }


# https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/util/managedfields/internal/conflict.go
def test_conflicts_are_told_manager_by_manager() -> None:
    live, managed = applied("one", {"data": {"a": "1"}, "spec": {"size": 1}}, {}, {})
    changed = live | {"data": {"a": "1", "b": "1"}}
    managed = after_update(updater("two"), managed, live, changed)
    with pytest.raises(Conflicts) as refusal:
        applied("three", {"data": {"a": "2", "b": "2"}, "spec": {"size": 2}}, managed, changed)
    error = refusal.value.status()
    assert error.message == (
        'Apply failed with 3 conflicts: conflicts with "one":\n- .data.a\n- .spec.size\n'
        'conflicts with "two" using v1:\n- .data.b'
    )
    assert (error.code, error.reason) == (409, "Conflict")
    assert error.details is not None
    assert error.details["causes"][2] == {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "two" using v1',
        "field": ".data.b",
    }


def test_what_was_there_before_the_first_who_applies_is_somebodys() -> None:
    live = {"metadata": {"uid": "1"}, "data": {"a": "1", "b": "1"}}
    with pytest.raises(Conflicts) as refusal:
        applied("one", {"data": {"a": "2"}}, {}, live)
    found = 'conflict with "before-first-apply" using v1: .data.a'
    assert found in refusal.value.status().message


def test_the_order_that_is_applied_holds_and_strangers_stay_about_where_they_were() -> None:
    items = [{"name": name} for name in "abcd"]
    wanted = [{"name": "d"}, {"name": "x"}, {"name": "b"}]
    together = merged(SCHEMA, {"spec": {"items": items}}, {"spec": {"items": wanted}})
    assert [item["name"] for item in together["spec"]["items"]] == ["a", "c", "d", "x", "b"]


def test_kubectl_may_take_over_what_its_older_way_of_applying_said() -> None:
    said = '{"apiVersion":"v1","data":{"a":"1"}}'
    metadata = {"annotations": {managers.ANNOTATION: said}}
    live = {"apiVersion": "v1", "data": {"a": "1", "b": "1"}, "metadata": metadata}
    managed = after_update(updater("kubectl-client-side-apply"), {}, {}, live)
    config = {"apiVersion": "v1", "data": {"a": "2"}}
    new, _ = managers.apply(applier("kubectl"), managed, live, config, force=False)
    assert new["data"] == {"a": "2", "b": "1"}
    assert new["metadata"]["annotations"] == {
        managers.ANNOTATION: '{"apiVersion":"v1","data":{"a":"2"},"metadata":{}}\n'
    }
    with pytest.raises(Conflicts):
        managers.apply(applier("somebody"), managed, live, config, force=False)
    more = {"apiVersion": "v1", "data": {"a": "2", "b": "2"}}
    with pytest.raises(Conflicts) as refusal:
        managers.apply(applier("kubectl"), managed, live, more, force=False)
    assert list(refusal.value.fields()) == [("f:data", "f:b")]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"spec": {"sizes": 1}}, ".spec.sizes: field not declared in schema"),
        (
            {"spec": {"items": [{"name": "a", "x": 1}]}},
            '.spec.items[name="a"].x: field not declared in schema',
        ),
        (
            {"spec": {"items": [{"name": "a"}, {"name": "a"}]}},
            '.spec.items: duplicate entries for key [name="a"]',
        ),
        (
            {"spec": {"items": [{"value": "a"}]}},
            ".spec.items: element 0: associative list with keys has an element that omits key "
            'field "name" (and doesn\'t have default value)',
        ),
    ],
)
# https://github.com/kubernetes-sigs/structured-merge-diff/blob/v4.4.2/typed/validate.go
def test_what_the_type_does_not_know_cannot_be_applied(config: dict[str, Any], said: str) -> None:
    assert list(typed.faults(SCHEMA, config)) == [said]


SENSE = {"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1"}


@pytest.mark.parametrize(
    "entries",
    [
        *(None, [], [{}], "text"),
        [{**SENSE, "operation": "Steal"}],
        [{**SENSE, "fieldsType": "FieldsV2"}],
        [{**SENSE, "fieldsV1": {"spec": {}}}],
    ],
)
def test_managed_fields_that_make_no_sense_count_as_none(entries: Any) -> None:
    assert decode([SENSE])
    assert decode(entries) == {}
