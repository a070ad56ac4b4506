"""From the body of a PATCH to the object that it makes.

The steps, and the refusals, are those of
https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/patch.go
"""

from __future__ import annotations

from types import MappingProxyType

import jsonpatch
import jsonpointer
import msgspec

from podidentity_sandbox.cluster import Json, Obj, status
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.status import StatusError

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def read(content_type: str, raw: bytes, kind: ResourceType) -> Json:
    """Return the patch of a body; raise 415 for another type, 400 for what cannot be read."""
    if content_type == APPLY:
        raise status.left_out(415, "UnsupportedMediaType", "server-side apply")
    known = (JSON_PATCH, MERGE_PATCH, *(() if kind.custom else (STRATEGIC,)))
    if content_type not in known:
        raise status.unsupported_media_type(known)
    try:
        patch = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise status.bad_request(f"error decoding patch: {error}") from error
    if content_type != JSON_PATCH and not isinstance(patch, dict):
        raise status.bad_request("error decoding patch: it is no object")
    if content_type == STRATEGIC and _merges_lists(patch):
        raise status.left_out(415, "UnsupportedMediaType", "strategic merge patch of a list")
    return patch


def _merges_lists(patch: Json) -> bool:
    """Whether a strategic merge patch is more than a merge patch: it has a list or a directive."""
    if isinstance(patch, dict):
        return any(key.startswith("$") or _merges_lists(item) for key, item in patch.items())
    return isinstance(patch, list)


def patched(content_type: str, obj: Obj, patch: Json) -> Json:
    """Return `obj`, which is changed, with a patch applied.

    Raises 400 or 422 for a JSON patch that is none, or does not fit the object (a failed test, a
    missing path).
    """
    return operated(obj, patch) if content_type == JSON_PATCH else merge(obj, patch)


def merge(target: Json, patch: Json) -> Json:
    """Return `target` changed by a merge patch: null removes, objects merge, the rest replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


class _Test(jsonpatch.TestOperation):
    """A test as in Go: a field that is missing equals null."""

    def apply(self, obj: Json) -> Json:
        if self.operation.get("value", "") is None:
            holder, name = self.pointer.to_last(obj)
            if isinstance(holder, dict) and holder.get(name) is None:
                return obj
        return super().apply(obj)


class _Patch(jsonpatch.JsonPatch):
    operations = MappingProxyType({**jsonpatch.JsonPatch.operations, "test": _Test})


def operated(obj: Obj, patch: Json) -> Json:
    """Return `obj` changed by the operations of a JSON patch."""
    unfit = (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError)
    try:
        operations = _Patch(patch)
    except unfit as error:
        raise status.bad_request(f"error decoding patch: {error}") from error
    try:
        return operations.apply(obj)
    except unfit as error:
        message = "the server rejected our request due to an error in our request"
        raise StatusError(422, "Invalid", message, details={}) from error
