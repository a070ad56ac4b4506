"""Tables: their custom columns, and how they are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cluster import tables
from podidentity_sandbox.cluster.registry import ResourceType
from tests.sandbox.cluster.conftest import PODS, Client, pod
from tests.sandbox.cluster.settled import NOW, READY

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.type", [0]),
        (".spec.absent", []),
        (".status.conditions[*].status", ["True"]),
        (r".metadata.annotations.example\.com/a", ["x"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        ('.status.conditions[?(@.type=="Other")].status', []),
    ],
)
def test_a_path_of_a_column_finds_what_stands_there(path: str, found: list[Any]) -> None:
    obj = {
        "metadata": {"annotations": {"example.com/a": "x"}},
        "spec": {"type": 0},
        "status": {"conditions": READY},
    }
    assert tables.find(path, obj) == found


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("string", 0, "0"),
        ("string", "a", "a"),
        ("string", {"b": [1]}, '{"b":[1]}'),
        ("integer", 3, 3),
        ("integer", 3.0, 3),
        ("integer", "3", None),
        ("integer", True, None),
        ("number", 1.5, 1.5),
        ("boolean", False, False),
        ("boolean", "false", None),
        ("date", "2026-01-02T11:59:00Z", "60s"),
        ("date", "never", "<invalid>"),
        ("string", None, None),
    ],
)
def test_a_custom_column_shows_what_fits_its_type(kind: str, value: Any, shown: Any) -> None:
    defined = ({"name": "X", "type": kind, "jsonPath": ".spec.x"},)
    column = tables.columns(ResourceType("example.com", "Widget", schema={}, columns=defined))[1]
    spec = {} if value is None else {"x": value}
    assert column.cell({"spec": spec}, NOW) == shown


async def test_a_row_carries_as_much_of_its_object_as_is_asked_for(
    api: Client,
) -> None:
    await api.post(PODS, json=pod("a"))

    async def row(include: str) -> Any:
        params = {"includeObject": include}
        answer = await api.get(f"{PODS}/a", headers={"Accept": TABLE}, params=params)
        return answer.json()["rows"][0]["object"]

    assert (await row("Object"))["spec"]["containers"][0]["name"] == "c"
    assert await row("None") is None
    answer = await api.get(PODS, headers={"Accept": TABLE}, params={"includeObject": "Half"})
    assert answer.status_code == 400
