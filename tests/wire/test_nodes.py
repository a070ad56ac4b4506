from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity.wire.nodes import NotANode, parse_taints

OURS = {"key": "a.example/b", "effect": "NoSchedule"}
OTHERS = {"key": "gpu", "value": "yes", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}


def node(**spec: Any) -> bytes:
    return json.dumps({"metadata": {"name": "n", "resourceVersion": "3"}, "spec": spec}).encode()


def test_the_change_names_the_version_and_keeps_every_field_of_other_taints() -> None:
    found = parse_taints(node(taints=[OTHERS, OURS], podCIDR="10.0.0.0/24"))
    assert found.has("a.example/b")
    assert found.without("a.example/b") == {
        "metadata": {"resourceVersion": "3"},
        "spec": {"taints": [OTHERS]},
    }


def test_where_none_is_left_the_field_goes() -> None:
    assert parse_taints(node(taints=[OURS])).without("a.example/b")["spec"] == {"taints": None}


@pytest.mark.parametrize("spec", [{}, {"taints": None}, {"taints": [OTHERS]}])
def test_a_node_may_have_no_such_taint(spec: dict[str, Any]) -> None:
    assert not parse_taints(node(**spec)).has("a.example/b")


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"metadata":{}}', b'{"metadata":{"resourceVersion":"1"},"spec":3}']
)
def test_what_is_no_node_is_refused(raw: bytes) -> None:
    with pytest.raises(NotANode):
        parse_taints(raw)
