"""The paths of a type and what may be done there: what clients look for before they write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podidentity_sandbox.cluster.registry import ResourceType

_TEXT, _FLAG = {"type": "string", "uniqueItems": True}, {"type": "boolean", "uniqueItems": True}
_PARAMETERS = {
    "dryRun": _TEXT,
    "fieldManager": _TEXT,
    "fieldValidation": _TEXT,
    "force": _FLAG,
}
"""Query parameters of writes, by name; `force` is of patches only."""
_ON_COLLECTION = {"list": "get", "create": "post", "deletecollection": "delete"}
_ON_OBJECT = {"get": "get", "update": "put", "patch": "patch", "delete": "delete"}
_WRITES = ("create", "update", "patch")
_ACTIONS = {"create": "post", "update": "put"}
"""`x-kubernetes-action` where it is not the verb."""
Operation = dict[str, Any]


def paths_of(kind: ResourceType, reference: str) -> Iterator[tuple[str, Operation]]:
    """Yield each path of a type with its operations; `reference` is that of its schema."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    collection = f"{root}/{kind.plural}"
    if kind.namespaced:
        if "list" in kind.verbs:
            yield collection, {"get": _operation(kind, "list", reference)}
        collection = f"{root}/namespaces/{{namespace}}/{kind.plural}"
    yield collection, _operations(kind, _ON_COLLECTION, reference)
    if "get" in kind.verbs:
        yield f"{collection}/{{name}}", _operations(kind, _ON_OBJECT, reference)
    if kind.has_status:
        verbs = {verb: method for verb, method in _ON_OBJECT.items() if verb != "delete"}
        yield f"{collection}/{{name}}/status", _operations(kind, verbs, reference)


def _operations(kind: ResourceType, verbs: dict[str, str], reference: str) -> Operation:
    return {
        method: _operation(kind, verb, reference)
        for verb, method in verbs.items()
        if verb in kind.verbs
    }


def _operation(kind: ResourceType, verb: str, reference: str) -> Operation:
    answer = {"content": {"application/json": {"schema": {"$ref": reference}}}}
    operation: Operation = {
        "responses": {"200": {"description": "OK", **answer}},
        "x-kubernetes-action": _ACTIONS.get(verb, verb),
        "x-kubernetes-group-version-kind": {
            "group": kind.group,
            "version": kind.version,
            "kind": kind.kind,
        },
    }
    if verb in _WRITES:
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": schema}
            for name, schema in _PARAMETERS.items()
            if name != "force" or verb == "patch"
        ]
    return operation
