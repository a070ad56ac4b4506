"""What `kubectl apply` of the older way leaves behind: the annotation with its last configuration.

kubectl's server-side apply may take over what that configuration said without a conflict, and
keeps the annotation up to date:
https://github.com/kubernetes/apimachinery/tree/master/pkg/util/managedfields/internal
"""

from __future__ import annotations

import json

from podidentity_sandbox.cluster.apply.fieldsets import EMPTY, FieldSet
from podidentity_sandbox.cluster.apply.managers import (
    Conflicts,
    Managed,
    Writer,
    after_apply,
)
from podidentity_sandbox.cluster.apply.typed import compare, field_set
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.schema import Schema

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
