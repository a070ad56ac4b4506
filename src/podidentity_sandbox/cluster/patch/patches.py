"""From the body of a PATCH to the object that it makes.

The steps, and the refusals, are those of
https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/patch.go
"""

from __future__ import annotations

from types import MappingProxyType

import jsonpatch
import jsonpointer
import msgspec
import yaml

from podidentity_sandbox.cluster import Json, Obj, bodies, status
from podidentity_sandbox.cluster.fields import fields_of
from podidentity_sandbox.cluster.patch import strategic
from podidentity_sandbox.cluster.patch.strategic import BadForm, Unfit, go_value
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.status import StatusError

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = bodies.APPLY


def read(content_type: str, raw: bytes, kind: ResourceType) -> Json:
    """Return the patch of a body; raise 415 for another type, 400 for what cannot be read."""
    known = (JSON_PATCH, MERGE_PATCH, *(() if kind.custom else (STRATEGIC,)), APPLY)
    if content_type not in known:
        raise status.unsupported_media_type(known)
    form = "YAML" if content_type == APPLY else "patch"
    try:
        if content_type == APPLY:
            patch = yaml.load(raw, Loader=bodies.Loader)  # noqa: S506 - a subclass of SafeLoader
        else:
            patch = msgspec.json.decode(raw)
    except (yaml.YAMLError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise status.bad_request(f"error decoding {form}: {error}") from error
    if content_type != JSON_PATCH and not isinstance(patch, dict):
        raise status.bad_request(f"error decoding {form}: it is no object")
    return patch


def patched(content_type: str, kind: ResourceType, obj: Obj, patch: Json) -> tuple[Json, str]:
    """Return `obj`, which is changed, with a patch applied, and the text that errors show it by.

    Raises 400 or 500 for a strategic merge patch, and 400 or 422 for a JSON patch that is none, or
    does not fit the object (a failed test, a missing path).
    """
    if content_type == STRATEGIC:
        shown = go_value(patch)
        try:
            return strategic.merge(obj, patch, fields_of(kind)), shown
        except BadForm as error:
            raise status.bad_request(str(error)) from error
        except Unfit as error:
            raise StatusError(500, "", str(error)) from error
    new = merge(obj, patch) if content_type == MERGE_PATCH else operated(obj, patch)
    return new, msgspec.json.encode(new, order="sorted").decode()


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


def undecodable(shown: str, why: str) -> StatusError:
    """Return the refusal of a patched object that does not decode as its type."""
    return status.invalid_object("", "", "", [status.invalid("patch", shown, why)])
