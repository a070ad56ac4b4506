"""The columns of `podidentity sandbox get`."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cli.objects import _table
from podidentity_sandbox.world.apply import Kind

NODES = Kind(api_version="v1", kind="Node", plural="nodes", singular="node", namespaced=False)


def node(ready: str | None, **spec: Any) -> dict[str, Any]:
    conditions = [] if ready is None else [{"type": "Ready", "status": ready}]
    meta = {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": spec, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (node("True"), "Ready"),
        (node("False"), "NotReady"),
        (node("Unknown"), "NotReady"),
        (node(None), "NotReady"),
        (node("True", unschedulable=True), "Ready,SchedulingDisabled"),
    ],
)
def test_a_node_says_whether_it_is_ready(found: dict[str, Any], state: str) -> None:
    head, row = _table(NODES, [found])
    assert head.split() == ["NAME", "STATUS", "CREATED"]
    assert row.split() == ["a", state, "2026-01-01T00:00:00Z"]
