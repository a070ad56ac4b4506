"""Owners of fields: metadata.managedFields, and its change by a write.

The rules are those of
https://github.com/kubernetes/apimachinery/tree/master/pkg/util/managedfields/internal and of
https://github.com/kubernetes-sigs/structured-merge-diff/blob/master/merge/update.go
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from podidentity_sandbox.cluster import Json, Obj, shapes, status
from podidentity_sandbox.cluster.apply import fieldsets, typed
from podidentity_sandbox.cluster.apply.fieldsets import EMPTY, FieldSet, Path
from podidentity_sandbox.cluster.apply.typed import compare, field_set
from podidentity_sandbox.cluster.fields import blank, fields_of
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.schema import Schema
from podidentity_sandbox.cluster.status import Cause, StatusError

APPLY, UPDATE = "Apply", "Update"
BEFORE = "before-first-apply"
_NOBODYS = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    }
)
"""Fields that nobody ever owns."""


@dataclass(frozen=True, slots=True, order=True)
class Manager:
    """The writer of a request: its name, and its way of writing."""

    name: str
    operation: str
    version: str
    """apiVersion that it wrote; "" for appliers, who are the same in each."""
    subresource: str = ""

    def __str__(self) -> str:
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.version}" if self.operation == UPDATE else text


@dataclass(frozen=True, slots=True)
class Share:
    """The fields of a manager, and their time."""

    fields: FieldSet
    version: str
    time: str = ""


Managed = dict[Manager, Share]


def decode(entries: Json) -> Managed:
    """Return managedFields as managers; {} where they are missing or make no sense."""
    found: Managed = {}
    try:
        for entry in entries or ():
            operation, version = entry["operation"], entry["apiVersion"]
            if operation not in (APPLY, UPDATE) or entry["fieldsType"] != "FieldsV1":
                return {}
            told = version if operation == UPDATE else ""
            manager = Manager(
                entry.get("manager", ""), operation, told, entry.get("subresource", "")
            )
            fields = fieldsets.decode(entry.get("fieldsV1", {}))
            found[manager] = Share(fields, version, entry.get("time") or "")
    except (KeyError, TypeError, AttributeError, fieldsets.NoFields):
        return {}
    return found


def encode(managed: Managed) -> list[Obj]:
    """Return managedFields: those who apply first, then by time and name."""
    found = []
    for manager, share in sorted(managed.items(), key=_rank):
        entry: Obj = {"manager": manager.name, "operation": manager.operation}
        entry["apiVersion"] = share.version
        if share.time:
            entry["time"] = share.time
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": fieldsets.encode(share.fields)}
        if manager.subresource:
            entry["subresource"] = manager.subresource
        found.append(entry)
    return found


def _rank(item: tuple[Manager, Share]) -> tuple[str, str, str, str, str]:
    manager, share = item
    return manager.operation, share.time, manager.name, share.version, manager.subresource


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """One write: by whom, of which version of which type, when."""

    manager: Manager
    version: str
    schema: Schema
    now: str
    ignored: Sequence[Path] = ()
    """Fields that this way of writing never changes: status on the main resource."""


def after_update(writer: Writer, managed: Managed, live: Json, new: Json) -> Managed:
    """Return who owns what after `new` replaced `live`, which is MISSING at creation."""
    if not managed and "uid" in live.get("metadata", {}):
        return {}  # nobody applied or tracked it so far
    difference = _difference(writer, live, new)
    taken = difference.written - _NOBODYS
    gone = difference.written | difference.removed
    left = {
        manager: replace(share, fields=share.fields - gone)
        for manager, share in managed.items()
        if share.version == writer.version
    }
    if taken:
        before = left.get(writer.manager, Share(EMPTY, writer.version)).fields
        left[writer.manager] = Share(before | taken, writer.version, writer.now)
    return _held(left)


def _difference(writer: Writer, live: Json, new: Json) -> typed.Comparison:
    found = typed.compare(writer.schema, live, new)
    added, modified, removed = (
        set(fieldsets.outside(paths, writer.ignored))
        for paths in (found.added, found.modified, found.removed)
    )
    return typed.Comparison(added, modified, removed)


def _held(managed: Managed) -> Managed:
    return {manager: share for manager, share in managed.items() if share.fields}


class Conflicts(Exception):
    """Fields that others own, and that an applied configuration would change."""

    def __init__(self, found: Mapping[Manager, FieldSet]) -> None:
        super().__init__("Apply failed with conflicts")
        self.found = {manager: fieldsets.in_order(found[manager]) for manager in sorted(found)}

    def fields(self) -> FieldSet:
        """Return all of them."""
        return frozenset(path for paths in self.found.values() for path in paths)

    def status(self) -> StatusError:
        """Return the refusal, as the real server words it."""
        pairs = [(str(m), fieldsets.shown(p)) for m, paths in self.found.items() for p in paths]
        causes = [Cause(path, "FieldManagerConflict", f"conflict with {m}") for m, path in pairs]
        if len(pairs) == 1:
            manager, path = pairs[0]
            message = f"Apply failed with 1 conflict: conflict with {manager}: {path}"
        else:
            lines = []
            for m, paths in self.found.items():
                lines += [f"conflicts with {m}:", *(f"- {fieldsets.shown(p)}" for p in paths)]
            message = f"Apply failed with {len(pairs)} conflicts: " + "\n".join(lines)
        told = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
        return StatusError(409, "Conflict", message, details={"causes": told})


def after_apply(
    writer: Writer, managed: Managed, live: Obj, config: Obj, *, force: bool
) -> tuple[Obj, Managed]:
    """Return the object and its managers after a configuration was applied; raise Conflicts."""
    if not managed and "uid" in live.get("metadata", {}):
        managed = _untracked(writer, live)
    managed = {m: share for m, share in managed.items() if share.version == writer.version}
    last = managed.get(writer.manager, Share(EMPTY, writer.version))
    owned = fieldsets.outside(typed.field_set(writer.schema, config), writer.ignored)
    claims = {**managed, writer.manager: Share(owned, writer.version, last.time)}
    new = typed.merged(writer.schema, live, config)
    new = _pruned(writer.schema, new, claims, last.fields)
    others = {m: share for m, share in claims.items() if m != writer.manager}
    difference = _difference(writer, live, new)
    conflicts = {m: s.fields & difference.written for m, s in others.items()}
    conflicts = {manager: fields for manager, fields in conflicts.items() if fields}
    if conflicts and not force:
        raise Conflicts(conflicts)
    gone = difference.written | difference.removed
    after = {m: replace(share, fields=share.fields - gone) for m, share in others.items()}
    changed = new != live or owned - _NOBODYS != last.fields
    time = writer.now if changed or not last.time else last.time
    after[writer.manager] = Share(owned - _NOBODYS, writer.version, time)
    return new, _held(after)


def _untracked(writer: Writer, live: Obj) -> Managed:
    """Return one manager of all fields, for an object that had none before its first apply."""
    manager = Manager(BEFORE, UPDATE, writer.version)
    return after_update(replace(writer, manager=manager, ignored=()), {}, {}, live)


def _pruned(schema: Schema, new: Obj, claims: Managed, last: FieldSet) -> Obj:
    """Return the object without the fields that only this manager's last apply owned."""
    if not last:
        return new
    whole = typed.with_named_fields(schema, typed.field_set(schema, new))
    mine = typed.with_named_fields(schema, last)
    cut = _field_set(schema, typed.without(schema, new, mine))
    owned = typed.with_named_fields(schema, _all(claims.values()))
    kept = typed.without(schema, new, whole - cut - owned)
    gone = whole - _field_set(schema, kept)
    left = typed.without(schema, new, gone & mine)
    return left if isinstance(left, dict) else {}


def _all(shares: Iterable[Share]) -> FieldSet:
    return frozenset().union(*(share.fields for share in shares))


def _field_set(schema: Schema, value: Json) -> FieldSet:
    return typed.with_named_fields(schema, typed.field_set(schema, value or {}))


# ---- The annotation of kubectl's client-side apply: its last configuration
#
# kubectl's server-side apply may take over what that configuration said without a conflict, and
# keeps the annotation up to date:
# https://github.com/kubernetes/apimachinery/tree/master/pkg/util/managedfields/internal

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
MANAGER = "kubectl"
"""The only manager for whom the annotation counts."""


def apply(
    writer: Writer, managed: Managed, live: Obj, config: Obj, *, force: bool
) -> tuple[Obj, Managed]:
    """Do as `after_apply`, with regard to the annotation; raise Conflicts."""
    if writer.manager.name != MANAGER:
        return after_apply(writer, managed, live, config, force=force)
    try:
        new, after = after_apply(writer, managed, live, config, force=force)
    except Conflicts as conflicts:
        allowed = _allowed(writer.schema, live)
        left = {manager: frozenset(paths) - allowed for manager, paths in conflicts.found.items()}
        if any(left.values()):
            raise Conflicts({m: fields for m, fields in left.items() if fields}) from None
        new, after = after_apply(writer, managed, live, config, force=True)
    return _refreshed(new, config), after


def _annotation(obj: Obj) -> str:
    return str((obj.get("metadata", {}).get("annotations") or {}).get(ANNOTATION, ""))


def _allowed(schema: Schema, live: Obj) -> FieldSet:
    """Return the fields that the annotation says, and that still are as it says."""
    try:
        last = json.loads(_annotation(live))
    except ValueError:
        return EMPTY
    if not isinstance(last, dict) or last.get("apiVersion") != live.get("apiVersion"):
        return EMPTY
    differs = compare(schema, last, live)
    return field_set(schema, last) - differs.added - differs.modified - differs.removed


def _refreshed(new: Obj, config: Obj) -> Obj:
    """Return the object with its annotation, if it has one, set to this configuration."""
    if not _annotation(new):
        return new
    metadata = {**config.get("metadata", {})}
    if "annotations" in metadata:
        metadata["annotations"] = {
            key: value for key, value in metadata["annotations"].items() if key != ANNOTATION
        }
    text = json.dumps({**config, "metadata": metadata}, separators=(",", ":"), sort_keys=True)
    annotations = {**new["metadata"]["annotations"], ANNOTATION: text + "\n"}
    return {**new, "metadata": {**new["metadata"], "annotations": annotations}}


# ---- managedFields of the objects of a type, at each write

_STATUS: Sequence[Path] = (("f:status",),)
_ALL_BUT_STATUS: Sequence[Path] = (
    ("f:spec",),
    ("f:metadata", "f:deletionTimestamp"),
    ("f:metadata", "f:ownerReferences"),
)
"""Fields that the status subresource never changes (GetResetFields of the pods' strategy)."""
FIELD = "managedFields"


def writer(
    kind: ResourceType, name: str, operation: str, now: datetime, subresource: str = ""
) -> Writer:
    """Return a write by a field manager, to the main resource or to a subresource."""
    told = kind.api_version if operation == UPDATE else ""
    ignored = _STATUS if kind.has_status and subresource != "status" else ()
    return Writer(
        manager=Manager(name or "unknown", operation, told, subresource),
        version=kind.api_version,
        schema=fields_of(kind),
        now=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        ignored=_ALL_BUT_STATUS if subresource == "status" else ignored,
    )


def track(
    kind: ResourceType, name: str, now: datetime, live: Obj | None, new: Obj, *, subresource: str
) -> None:
    """Write into `new` who owns what, now that an update by `name` replaces `live`, or is new."""
    old = live if live is not None else _empty(kind)
    told = new["metadata"].pop(FIELD, None)
    reset = told in ([], [{}])
    managed = decode(None if subresource else told)
    if not managed and not reset:
        managed = decode(old.get("metadata", {}).get(FIELD))
    if not reset or live is None:
        write = writer(kind, name, UPDATE, now, subresource)
        if after := after_update(write, managed, old, new):
            new["metadata"][FIELD] = encode(after)


@lru_cache(maxsize=64)
def _empty(kind: ResourceType) -> Obj:
    """Return the empty object that a new one is compared with."""
    return {} if kind.custom else blank(fields_of(kind))


def applied(
    write: Writer, kind: ResourceType, live: Obj | None, config: Obj, *, force: bool
) -> Obj:
    """Return the object that an applied configuration makes of `live`; raise 400, 409 or 500."""
    if config.get("metadata", {}).get(FIELD) is not None:
        raise status.bad_request("metadata.managedFields must be nil")
    if config.get("apiVersion") != kind.api_version:
        raise status.bad_request(
            "Incorrect version specified in apply patch. Specified patch version: "
            f"{config.get('apiVersion', '')}, expected: {kind.api_version}"
        )
    _check_types(write, kind, config)
    old = live if live is not None else {}
    managed = decode(old.get("metadata", {}).get(FIELD))
    try:
        new, after = apply(write, managed, old, config, force=force)
    except Conflicts as conflicts:
        raise conflicts.status() from conflicts
    return {**new, "metadata": {**new["metadata"], FIELD: encode(after)}}


def _check_types(write: Writer, kind: ResourceType, config: Obj) -> None:
    """Refuse fields that the type does not have: 500, as the real server does."""
    said = shapes.without_nulls(config)
    misfit = shapes.misfit(write.schema, said)
    lines = [misfit] if misfit else list(typed.faults(write.schema, said))
    if not lines:
        return
    text = lines[0] if len(lines) == 1 else "\n".join(["errors:", *(f"  {x}" for x in lines)])
    metadata = config.get("metadata") or {}
    place = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
    named = f"{place}; {kind.group}/{kind.version}, Kind={kind.kind}"
    raise StatusError(500, "", f"failed to create typed patch object ({named}): {text}")


def keep(old: Obj, new: Obj) -> None:
    """Let the managers of `new` be those of `old`: the server itself wrote it."""
    new["metadata"].pop(FIELD, None)
    if FIELD in old["metadata"]:
        new["metadata"][FIELD] = old["metadata"][FIELD]


def settled(new: Obj, old: Obj) -> bool:
    """Whether nothing but times of managedFields differs."""
    return bool(_timeless(new) == _timeless(old))


def _timeless(obj: Obj) -> Json:
    entries = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in obj["metadata"].get(FIELD, ())
    ]
    return {**obj, "metadata": {**obj["metadata"], FIELD: entries}}
