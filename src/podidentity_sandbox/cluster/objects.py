"""The metadata that every object has: what the client may say, and what the server does."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from podidentity_sandbox.cluster import names, shapes, status
from podidentity_sandbox.cluster.fields import fields_of
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.status import Cause

_FIELDS = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "uid": str,
    "resourceVersion": str,
    "generation": int,
    "creationTimestamp": str,
    "deletionTimestamp": str,
    "deletionGracePeriodSeconds": int,
    "labels": {"*": str},
    "annotations": {"*": str},
    "ownerReferences": [
        {
            "apiVersion": str,
            "kind": str,
            "name": str,
            "uid": str,
            "controller": bool,
            "blockOwnerDeletion": bool,
        }
    ],
    "finalizers": [str],
    "managedFields": [{}],
}
_SHAPE = shapes.compiled({"metadata": _FIELDS})
ANNOTATIONS_LIMIT = 256 * 1024
"""Bytes of all annotations of an object together."""
OF_SERVER = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
)
"""What only the server writes."""


def stamp(now: datetime) -> str:
    """Return a time as Kubernetes writes it: RFC 3339, whole seconds, UTC."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


Undecodable = Callable[[str], status.StatusError]
"""Makes the refusal of what does not decode, out of the decoder's words."""


def check_shape(kind: ResourceType, obj: object, refuse: Undecodable | None = None) -> Obj:
    """Return `obj` as an object of this type with metadata; raise 400 as the real decoder does."""
    refuse = refuse or partial(undecodable, kind)
    if not isinstance(obj, dict):
        raise refuse("json: cannot unmarshal the body into a Go struct")
    obj.setdefault("apiVersion", kind.api_version)
    obj.setdefault("kind", kind.kind)
    if obj["apiVersion"] != kind.api_version:
        raise status.bad_request(
            f"the API version in the data ({obj['apiVersion']}) does not match "
            f"the expected API version ({kind.api_version})"
        )
    if obj["kind"] != kind.kind:
        raise refuse(f"the object is of kind {obj['kind']!r}")
    metadata = obj.get("metadata") or {}
    if isinstance(metadata, dict):
        metadata = _known(metadata)
    misfit = shapes.misfit(_SHAPE, {"metadata": metadata}, fields_of(kind))
    if misfit:
        raise refuse(misfit)
    rest = {k: v for k, v in obj.items() if k not in ("kind", "apiVersion", "metadata")}
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata, **rest}


def _known(metadata: Obj) -> Obj:
    """Return the known fields that say something; an unknown one is dropped."""
    known = {key: value for key, value in metadata.items() if key in _FIELDS}
    clean = shapes.without_nulls(known)
    return {
        key: value
        for key, value in clean.items()
        if value not in ({}, [], "") or key == "managedFields"  # [] forgets the managers
    }


def undecodable(kind: ResourceType, why: str) -> status.StatusError:
    """Return the refusal of a body that does not decode as this type."""
    return status.bad_request(
        f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}'
    )


def begin(metadata: Obj, now: datetime, *, generation: bool) -> None:
    """Make the metadata of a new object: its identity and time are the server's."""
    for field in (*OF_SERVER, "resourceVersion"):
        metadata.pop(field, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = stamp(now)
    if generation:
        metadata["generation"] = 1


def carry(new: Obj, old: Obj) -> None:
    """Keep in changed metadata what only the server writes."""
    for field in OF_SERVER:
        new.pop(field, None)
        if field in old:
            new[field] = old[field]
    if "generateName" in old:
        new.setdefault("generateName", old["generateName"])


def faults(kind: ResourceType, metadata: Obj) -> list[Cause]:
    """Return the faults of an object's metadata."""
    name = str(metadata.get("name", ""))
    if not name:
        return [status.required("metadata.name", "name or generateName is required")]
    found = [
        status.invalid("metadata.name", name, fault) for fault in names.RULES[kind.name_rule](name)
    ]
    found += _label_faults(metadata.get("labels", {}))
    found += _annotation_faults(metadata.get("annotations", {}))
    found += _owner_faults(metadata.get("ownerReferences", []))
    for finalizer in metadata.get("finalizers", []):
        where = "metadata.finalizers"
        found += [status.invalid(where, finalizer, f) for f in names.qualified_faults(finalizer)]
    return found


def _label_faults(labels: dict[str, str]) -> Iterator[Cause]:
    for key, value in sorted(labels.items()):
        for fault in names.qualified_faults(key):
            yield status.invalid("metadata.labels", key, fault)
        for fault in names.value_faults(value):
            yield status.invalid("metadata.labels", value, fault)


def _annotation_faults(annotations: dict[str, str]) -> Iterator[Cause]:
    for key in sorted(annotations):
        for fault in names.qualified_faults(key.lower()):
            yield status.invalid("metadata.annotations", key, fault)
    if sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items()) > ANNOTATIONS_LIMIT:
        yield status.too_long("metadata.annotations", ANNOTATIONS_LIMIT)


def _owner_faults(owners: list[Any]) -> Iterator[Cause]:
    for index, owner in enumerate(owners):
        where = f"metadata.ownerReferences[{index}]"
        for field in ("apiVersion", "kind", "name", "uid"):
            value = owner.get(field) if isinstance(owner, dict) else None
            if not isinstance(value, str) or not value:
                yield status.invalid(f"{where}.{field}", "", "must not be empty")
    leaders = [o for o in owners if isinstance(o, dict) and o.get("controller")]
    if len(leaders) > 1:
        yield status.invalid(
            "metadata.ownerReferences",
            [o.get("name") for o in leaders],
            "Only one reference can have Controller set to true",
        )


def new_finalizers(new: Obj, old: Obj) -> list[Cause]:
    """Return the fault of finalizers added to an object that is being deleted."""
    if "deletionTimestamp" not in old:
        return []
    added = [f for f in new.get("finalizers", []) if f not in old.get("finalizers", [])]
    if not added:
        return []
    shown = ", ".join(f'"{f}"' for f in added)
    detail = (
        "no new finalizers can be added if the object is being deleted, "
        f"found new finalizers []string{{{shown}}}"
    )
    return [status.forbidden_field("metadata.finalizers", detail)]
