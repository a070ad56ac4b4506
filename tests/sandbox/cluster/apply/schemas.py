"""A type with each sort of field that can be owned, and objects of it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from podidentity_sandbox.cluster.apply.managers import APPLY, UPDATE, Manager, Writer

TEXT = {"type": "string"}
PORT = {
    "type": "object",
    "properties": {
        "port": {"type": "integer"},
        "protocol": {"type": "string", "default": "TCP"},
        "note": TEXT,
    },
}
ITEM = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "value": TEXT,
        "ports": {
            "type": "array",
            "items": PORT,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "protocol"],
        },
    },
}
SPEC = {
    "type": "object",
    "properties": {
        "size": {"type": "integer"},
        "items": {
            "type": "array",
            "items": ITEM,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
        "tags": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
        "words": {"type": "array", "items": TEXT},
        "whole": {
            "type": "object",
            "additionalProperties": TEXT,
            "x-kubernetes-map-type": "atomic",
        },
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "metadata": {"type": "object", "properties": {"name": TEXT}},
        "spec": SPEC,
        "data": {"type": "object", "additionalProperties": TEXT},
    },
}

WORDS = st.sampled_from("abc")
PORTS = st.lists(
    st.fixed_dictionaries(
        {"port": st.sampled_from([80, 443])},
        optional={"protocol": st.sampled_from(["TCP", "UDP"]), "note": WORDS},
    ),
    max_size=2,
    unique_by=lambda port: (port["port"], port.get("protocol", "TCP")),
)
ITEMS = st.lists(
    st.fixed_dictionaries({"name": WORDS}, optional={"value": WORDS, "ports": PORTS}),
    max_size=3,
    unique_by=lambda item: item["name"],
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "size": st.integers(1, 2),
        "items": ITEMS,
        "tags": st.lists(WORDS, max_size=3, unique=True),
        "words": st.lists(WORDS, max_size=2),
        "whole": st.dictionaries(WORDS, WORDS, max_size=2),
    },
)
OBJECTS = st.fixed_dictionaries(
    {}, optional={"spec": SPECS, "data": st.dictionaries(WORDS, WORDS, max_size=2)}
)


def applier(name: str, now: str = "t") -> Writer:
    """Somebody who applies."""
    return Writer(manager=Manager(name, APPLY, ""), version="v1", schema=SCHEMA, now=now)


def updater(name: str, now: str = "t") -> Writer:
    """Somebody who updates."""
    return Writer(manager=Manager(name, UPDATE, "v1"), version="v1", schema=SCHEMA, now=now)


def without_nulls(value: Any) -> Any:
    """Return an object as it is stored: without nulls."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
