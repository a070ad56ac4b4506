"""Keeps metadata.managedFields of the objects of a type, at each write of a client."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from podidentity_sandbox.cluster import Json, Obj, status
from podidentity_sandbox.cluster.apply import managers, typed
from podidentity_sandbox.cluster.apply.fieldsets import Path
from podidentity_sandbox.cluster.apply.managers import APPLY, UPDATE, Conflicts, Manager, Writer
from podidentity_sandbox.cluster.fields import builtin, fields_of
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.status import StatusError

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


def update(write: Writer, kind: ResourceType, live: Obj | None, new: Obj) -> None:
    """Write into `new` who owns what, now that it replaces `live`, or is new."""
    old = live if live is not None else _empty(kind)
    told = new["metadata"].pop(FIELD, None)
    reset = told in ([], [{}])
    managed = managers.decode(None if write.manager.subresource else told)
    if not managed and not reset:
        managed = managers.decode(old.get("metadata", {}).get(FIELD))
    after = managers.after_update(write, managed, old, new) if not reset or live is None else {}
    if after:
        new["metadata"][FIELD] = managers.encode(after)


def controlled(kind: ResourceType, name: str, now: datetime, old: Obj, new: Obj) -> None:
    """Write into `new` who owns what, now that a controller wrote it.

    What changes the status goes by that subresource, with the annotations that tell of it.
    """
    by_status = kind.has_status and new.get("status") != old.get("status")
    update(writer(kind, name, UPDATE, now, "status" if by_status else ""), kind, old, new)


@lru_cache(maxsize=64)
def _empty(kind: ResourceType) -> Obj:
    """Return the empty object that a new one is compared with."""
    return {} if kind.custom else builtin.blank(fields_of(kind))


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
    managed = managers.decode(old.get("metadata", {}).get(FIELD))
    try:
        new, after = managers.apply(write, managed, old, config, force=force)
    except Conflicts as conflicts:
        raise conflicts.status() from conflicts
    return {**new, "metadata": {**new["metadata"], FIELD: managers.encode(after)}}


def _check_types(write: Writer, kind: ResourceType, config: Obj) -> None:
    """Refuse fields that the type does not have: 500, as the real server does."""
    faults = typed.faults(write.schema, config)
    if not faults:
        return
    lines = [f"{path}: {words}" for path, words in faults]
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


__all__ = [
    "APPLY",
    "FIELD",
    "UPDATE",
    "applied",
    "controlled",
    "keep",
    "settled",
    "update",
    "writer",
]
