"""The metadata that every object has: what the client may say, and what the server does."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from podidentity_sandbox.cluster import Json, Obj, names, schema, status
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.status import Cause
from podidentity_sandbox.cluster.storage import Record

_FIELDS = {
    *("annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp"),
    *("finalizers", "generateName", "generation", "labels", "name", "namespace"),
    *("ownerReferences", "resourceVersion", "uid"),
}
"""Those of metadata that are kept."""
ANNOTATIONS_LIMIT = 256 * 1024
"""Bytes of all annotations of an object together."""
OF_SERVER = (
    *("uid", "generation", "creationTimestamp"),
    *("deletionTimestamp", "deletionGracePeriodSeconds"),
)
"""Fields that only the server writes."""


def stamp(now: datetime) -> str:
    """Return a time as Kubernetes writes it: RFC 3339, whole seconds, UTC."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, state: str, reason: str, message: str, since: str) -> Obj:
    """Return a condition of an object's status; `since` is the stamp of its last transition."""
    return {
        "type": kind,
        "status": state,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    }


def without_nulls(value: Json) -> Json:
    """Return JSON without null fields: to a real server's decoder they are as good as absent."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value if item is not None]
    return value


def _shaped(kind: ResourceType, obj: object) -> Obj:
    """Return `obj` as an object of this type with metadata; raise 400."""
    if not isinstance(obj, dict):
        raise status.undecodable(kind.kind, kind.version, "it is no object")
    obj.setdefault("apiVersion", kind.api_version)
    obj.setdefault("kind", kind.kind)
    if obj["apiVersion"] != kind.api_version:
        raise status.bad_request(
            f"the API version in the data ({obj['apiVersion']}) does not match "
            f"the expected API version ({kind.api_version})"
        )
    if obj["kind"] != kind.kind:
        raise status.undecodable(kind.kind, kind.version, f"the object is of kind {obj['kind']!r}")
    given = obj.get("metadata") or {}
    texts = ("name", "namespace", "generateName", "uid", "resourceVersion")
    if not isinstance(given, dict) or not all(isinstance(given.get(t) or "", str) for t in texts):
        raise status.undecodable(kind.kind, kind.version, "metadata does not fit")
    known = {key: value for key, value in given.items() if key in _FIELDS}
    said = without_nulls(known)
    metadata = {key: value for key, value in said.items() if value not in ({}, [], "")}
    for name in ("labels", "annotations"):
        if not all(isinstance(text, str) for text in metadata.get(name, {}).values()):
            why = f"metadata.{name} has a value that is no text"
            raise status.undecodable(kind.kind, kind.version, why)
    return {"kind": None, "apiVersion": None, **obj, "metadata": metadata}


def begin(metadata: Obj, now: datetime, *, generation: bool) -> None:
    """Make the metadata of a new object: its identity and time are the server's."""
    for key in (*OF_SERVER, "resourceVersion"):
        metadata.pop(key, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = stamp(now)
    if generation:
        metadata["generation"] = 1


def carry(new: Obj, old: Obj) -> None:
    """Keep in changed metadata what only the server writes."""
    for key in OF_SERVER:
        new.pop(key, None)
        if key in old:
            new[key] = old[key]
    if "generateName" in old:
        new.setdefault("generateName", old["generateName"])


def faults(name_faults: Callable[[str], list[str]], metadata: Obj) -> list[Cause]:
    """Return the faults of the metadata; `name_faults` finds its name's."""
    where = "metadata"
    name = str(metadata.get("name", ""))
    if not name:
        return [status.required(f"{where}.name", "name or generateName is required")]
    found = [status.invalid(f"{where}.name", name, fault) for fault in name_faults(name)]
    found += _label_faults(metadata.get("labels", {}), f"{where}.labels")
    found += _annotation_faults(metadata.get("annotations", {}), f"{where}.annotations")
    found += _owner_faults(metadata.get("ownerReferences", []), f"{where}.ownerReferences")
    for finalizer in metadata.get("finalizers", []):
        place = f"{where}.finalizers"
        found += [status.invalid(place, finalizer, f) for f in names.qualified_faults(finalizer)]
    return found


def _label_faults(labels: dict[str, str], where: str) -> Iterator[Cause]:
    for key, value in sorted(labels.items()):
        for fault in names.qualified_faults(key):
            yield status.invalid(where, key, fault)
        for fault in names.value_faults(value):
            yield status.invalid(where, value, fault)


def _annotation_faults(annotations: dict[str, str], where: str) -> Iterator[Cause]:
    for key in sorted(annotations):
        for fault in names.qualified_faults(key.lower()):
            yield status.invalid(where, key, fault)
    if sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items()) > ANNOTATIONS_LIMIT:
        yield status.invalid(where, "", f"may not be more than {ANNOTATIONS_LIMIT} bytes")


def _owner_faults(owners: list[Obj], above: str) -> Iterator[Cause]:
    for index, owner in enumerate(owners):
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                yield status.invalid(f"{above}[{index}].{key}", "", "must not be empty")
    leaders = [owner.get("name") for owner in owners if owner.get("controller")]
    if len(leaders) > 1:
        detail = "Only one reference can have Controller set to true"
        yield status.invalid(above, leaders, detail)


def new_finalizers(new: Obj, old: Obj) -> list[Cause]:
    """Return the fault of finalizers added to an object that is being deleted."""
    added = [f for f in new.get("finalizers", []) if f not in old.get("finalizers", [])]
    if not added or "deletionTimestamp" not in old:
        return []
    shown = ", ".join(f'"{f}"' for f in added)
    detail = (
        "no new finalizers can be added if the object is being deleted, "
        f"found new finalizers []string{{{shown}}}"
    )
    return [status.forbidden_field("metadata.finalizers", detail)]


# ---- Preconditions: the request must name the object, and the state of it, that is there


def place(kind: ResourceType, metadata: Obj, namespace: str) -> None:
    """Put a new object into the namespace of the request."""
    if not kind.namespaced:
        metadata.pop("namespace", None)
        return
    if metadata.setdefault("namespace", namespace) != namespace:
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _named(name: str, wanted: str) -> None:
    if name != wanted:
        raise status.bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({wanted})"
        )


def same_object(kind: ResourceType, record: Record, metadata: Obj) -> None:
    """Refuse a new state that is of another object, or of an older state of this one."""
    name = metadata.setdefault("name", record.name)
    _named(name, record.name)
    place(kind, metadata, record.namespace)
    demanded(kind, record, metadata.get("uid", ""), "")
    revision = metadata.get("resourceVersion")
    if revision in (None, "0"):
        if kind.unconditional_update:
            return
        # The resource stands for the kind, and a number of Go's type uint64 is shown so:
        # https://github.com/kubernetes/apiserver/blob/v0.32.3/pkg/registry/generic/registry/store.go
        message = "Invalid value: 0x0: must be specified for an update"
        fault = Cause("metadata.resourceVersion", "FieldValueInvalid", message)
        raise status.invalid_object(kind.plural, kind.group, record.name, [fault])
    if revision != str(record.revision):
        raise kind.error(status.conflict, record.name)


def demanded(kind: ResourceType, record: Record, uid: str, revision: str) -> None:
    """Refuse what is meant for another object, or another state of it; "" demands nothing."""
    for what, wanted, found in (
        ("UID", uid, record.uid),
        ("ResourceVersion", revision, str(record.revision)),
    ):
        if wanted and wanted != found:
            cause = f"{what} in precondition: {wanted}, {what} in object meta: {found}"
            raise kind.error(status.conflict, record.name, f"Precondition failed: {cause}")


# ---- From a decoded body to an object: unknown fields of custom resources found, defaults set
#
# What becomes of a field that is not known is the client's wish (fieldValidation):
# https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation


@dataclass(slots=True, kw_only=True)
class Write:
    """The options of a write, and the warnings for its client."""

    dry_run: bool = False
    validation: str = "Warn"
    """fieldValidation: Ignore, Warn or Strict."""
    warnings: list[str] = field(default_factory=list)
    judge: Callable[[ResourceType, Obj, Obj | None], None] = lambda *_: None
    """Looks at the new state beside the old one, before it is validated; raises a StatusError."""


def decode(kind: ResourceType, body: object, write: Write) -> Obj:
    """Return the object that a body is, as its type reads it; raise 400."""
    obj = _shaped(kind, body)
    if kind.schema is None:
        head = {name: obj.pop(name) for name in ("kind", "apiVersion", "metadata")}
        obj = {**head, **without_nulls(obj)}
    else:
        unknown = [f'unknown field "{path}"' for path in sorted(schema.prune(kind.schema, obj))]
        if unknown and write.validation == "Strict":
            why = f"strict decoding error: {', '.join(unknown)}"
            raise status.undecodable(kind.kind, kind.version, why)
        if write.validation == "Warn":
            write.warnings += unknown
        schema.default(kind.schema, obj)
    kind.strategy.default(obj)
    return obj
