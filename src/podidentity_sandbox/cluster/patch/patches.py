"""From the body of a PATCH to the object that it makes, with what a strict server finds in it.

The steps, and the refusals, are those of
https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/patch.go
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jsonpatch
import jsonpointer
import msgspec
import yaml

from podidentity_sandbox.cluster import Json, Obj, bodies, status
from podidentity_sandbox.cluster.fields import fields_of
from podidentity_sandbox.cluster.patch import strategic
from podidentity_sandbox.cluster.patch.strategic import Unfit, go_value
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.status import StatusError

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


# ---- All kinds of patches

STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A patch, decoded."""

    content_type: str
    document: Json
    doubled: Sequence[str] = ()
    """Fields that it says twice, as sentences."""


def types(kind: ResourceType) -> tuple[str, ...]:
    """Return the content types that patch an object of this type."""
    return (*TYPES, APPLY) if kind.custom else (*TYPES, STRATEGIC, APPLY)


def read(content_type: str, raw: bytes, kind: ResourceType) -> Patch:
    """Return the patch of a body; raise 415 for another type, 400 for what cannot be read."""
    if content_type not in types(kind):
        raise status.unsupported_media_type(types(kind))
    if content_type == APPLY:
        return _configuration(raw)
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise status.bad_request(f"error decoding patch: {error}") from error
    return Patch(content_type=content_type, document=document, doubled=bodies.in_json(raw))


def _configuration(raw: bytes) -> Patch:
    try:
        document = yaml.load(raw, Loader=bodies.Loader)  # noqa: S506 - a subclass of SafeLoader
        doubled = bodies.in_yaml(raw)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise status.bad_request(f"error decoding YAML: {error}") from error
    if not isinstance(document, dict):
        raise status.bad_request("error decoding YAML: the configuration is no object")
    return Patch(content_type=APPLY, document=document, doubled=doubled)


def patched(patch: Patch, kind: ResourceType, obj: Obj) -> tuple[Json, str]:
    """Return `obj`, which is changed, with a patch applied, and the text that errors show it by."""
    if patch.content_type != STRATEGIC:
        new = apply(patch.content_type, obj, patch.document)
        return new, msgspec.json.encode(new, order="sorted").decode()
    if not isinstance(patch.document, dict):
        raise status.bad_request("error decoding patch: a strategic merge patch is a JSON object")
    shown = go_value(patch.document)
    try:
        return strategic.merge(obj, patch.document, fields_of(kind)), shown
    except Unfit as error:
        raise _unfit(str(error)) from error


def _unfit(text: str) -> StatusError:
    """Return the refusal of a strategic merge patch: 400 for a bad form, 500 for bad content."""
    if text in (strategic.BAD_RETAIN, strategic.BAD_ORDER, strategic.BAD_PRIMITIVE):
        return status.bad_request(text)
    return StatusError(500, "", text)


def undecodable(shown: str, why: str) -> StatusError:
    """Return the refusal of a patched object that does not decode as its type."""
    return status.invalid_object("", "", "", [status.invalid("patch", shown, why)])
