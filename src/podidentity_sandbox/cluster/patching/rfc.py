"""The patches that this server applies: JSON patch (RFC 6902) and JSON merge patch (RFC 7396)."""

from __future__ import annotations

import jsonpatch
import jsonpointer

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.jsontypes import Json, Obj

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
TYPES = (JSON_PATCH, MERGE_PATCH)


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


def apply(content_type: str, obj: Obj, patch: Json) -> Json:
    """Return `obj` changed by a decoded patch of that content type.

    Raises 415 for a type that is not applied here, 400 for a malformed patch, and 422 for a JSON
    patch that does not fit the object (a failed test, a missing path), as the real server does.
    """
    if content_type == MERGE_PATCH:
        if not isinstance(patch, dict):
            raise status.bad_request("error decoding patch: a merge patch is a JSON object")
        return merge(obj, patch)
    if content_type != JSON_PATCH:
        raise status.unsupported_media_type(TYPES)
    try:
        operations = jsonpatch.JsonPatch(patch)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError) as error:
        raise status.bad_request(f"error decoding patch: {error}") from error
    try:
        return operations.apply(obj)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError) as error:
        # The words of the server for a patch that cannot be applied:
        # https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/patch.go
        message = "the server rejected our request due to an error in our request"
        raise status.StatusError(422, "Invalid", message, details={}) from error
