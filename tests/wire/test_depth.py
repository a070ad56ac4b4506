"""What is nested deeper than anybody reads is cut, and nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from podidentity.wire.depth import shallow

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
def test_whatever_lies_deeper_becomes_null_and_the_rest_stays(value: Any, levels: int) -> None:
    assert json.loads(shallow(json.dumps(value).encode(), levels)) == cut(value, levels)


def test_what_is_not_deep_stays_byte_for_byte() -> None:
    body = rb' {"a\"[": [1, "}"], "b": {}} '
    assert shallow(body) == body


@given(st.binary())
def test_bytes_that_are_no_json_are_cut_without_an_error(body: bytes) -> None:
    assert len(shallow(body, 1)) <= 2 * len(body) + len(b"null")
