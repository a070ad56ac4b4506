"""JSON of tenants is decoded however deep it is: an API server stores up to 10,000 levels."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.resources import AzureAssignedIdentity, Malformed
from podidentity.wire import _PIECE, shallow
from podidentity.wire.kube import (
    NotKubernetes,
    TooDeep,
    parse_event,
    parse_list,
    parse_object_version,
)
from podidentity.wire.manifests import parse_assigned
from podidentity.wire.pods import parse_pod

_T = TypeVar("_T")
LEVELS = [1100, 10_000, 20_000]
"""Beyond Python's limit, at the limit of API servers, and beyond the limit of every decoder."""


def deep(levels: int) -> bytes:
    spec = b"[" * levels + b"]" * levels
    return b'{"metadata":{"name":"deep","namespace":"red"},"spec":{"odd":' + spec + b"}}"


def read(parse: Callable[[bytes], _T], body: bytes) -> _T:
    """Do as the client of the API server does."""
    try:
        return parse(body)
    except TooDeep:
        return parse(shallow(body))


@pytest.mark.parametrize("levels", LEVELS)
def test_a_deep_object_spoils_neither_its_list_nor_its_watch(levels: int) -> None:
    body = b'{"metadata":{},"items":[' + deep(levels) + b',{"metadata":{"name":"b"}}]}'
    page = read(parse_list, body)
    assert [parse_object_version(item).ref.name for item in page.items] == ["deep", "b"]
    event = read(parse_event, b'{"type":"ADDED","object":' + deep(levels) + b"}")
    assert parse_object_version(event.object).ref.name == "deep"
    assert parse_pod(event.object).ref.name == "deep"
    found = parse_assigned(event.object)
    assert isinstance(found, Malformed)
    assert str(found.ref) == "red/deep"


def test_the_limit_of_recursion_is_as_before_when_a_deep_object_was_read() -> None:
    before = sys.getrecursionlimit()
    with pytest.raises(NotKubernetes):
        parse_object_version(deep(20_000))
    assert sys.getrecursionlimit() == before


def test_a_record_with_junk_in_its_copies_counts_if_it_is_small_enough() -> None:
    spec = {
        "azureIdentityRef": {"metadata": {"name": "id", "namespace": "red"}, "odd": "x" * 60_000},
        "pod": "web",
        "podNamespace": "red",
        "nodename": "n1",
    }
    whole = {"metadata": {"name": "r", "namespace": "red"}, "spec": spec}
    assert isinstance(parse_assigned(json.dumps(whole).encode()), AzureAssignedIdentity)
    spec["more"] = "x" * 60_000
    found = parse_assigned(json.dumps(whole).encode())
    assert isinstance(found, Malformed)
    assert found.why == "it has 120156 bytes in spec and status, more than 65536"


_VALUES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def cut(value: Any, levels: int) -> Any:
    if isinstance(value, list):
        return [cut(each, levels - 1) for each in value] if levels else None
    if isinstance(value, dict):
        return {name: cut(each, levels - 1) for name, each in value.items()} if levels else None
    return value


@given(_VALUES, st.integers(min_value=0, max_value=4))
def test_arrays_and_objects_below_the_deepest_level_become_null(value: Any, levels: int) -> None:
    # Blanks before it move the ends of the pieces that are looked at.
    blank = b" " * (_PIECE - 9)
    body = json.dumps(value).encode()
    assert json.loads(shallow(body, levels)) == cut(value, levels)
    assert json.loads(shallow(blank + body, levels)) == cut(value, levels)


def test_json_that_is_not_deep_stays_byte_for_byte() -> None:
    body = rb' {"a\"[": [1, "}"], "b": {}} '
    assert shallow(body) == body


@given(st.binary())
def test_bytes_that_are_no_json_are_cut_without_an_error(body: bytes) -> None:
    assert len(shallow(body, 1)) <= 2 * len(body) + len(b"null")
