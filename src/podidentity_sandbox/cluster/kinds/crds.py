"""CustomResourceDefinitions: what they must say, and the resource type that one describes.

https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/
One version of a definition is served here: the stored one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from podidentity_sandbox.cluster import Json, Obj, names, objects, status, tables
from podidentity_sandbox.cluster.registry import ResourceType, Strategy
from podidentity_sandbox.cluster.schema import Schema, compiled
from podidentity_sandbox.cluster.status import Cause

# ---- Structural schemas: the form that `schema` can work with
#
# https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema

_FREE = ("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields")
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_NOT_EVALUATED = (
    *("$ref", "exclusiveMaximum", "exclusiveMinimum", "maxProperties", "minProperties"),
    *("multipleOf", "not", "uniqueItems", "x-kubernetes-validations"),
)


def structural_faults(schema: Schema, where: str, *, logical: bool = False) -> Iterator[Cause]:
    """Yield the faults of a schema at the path `where`.

    A `logical` schema is one inside allOf, anyOf or oneOf: it constrains, and names no type.
    """
    for word in _NOT_EVALUATED:
        if schema.get(word):
            detail = "this sandbox does not evaluate it, and would let through what it refuses"
            yield status.forbidden_field(f"{where}.{word}", detail)
    if not logical:
        yield from _type_faults(schema, where)
    try:
        compiled(schema.get("pattern", ""))
    except re.error as error:
        fault = f"must be a valid regex: {error}"
        yield status.invalid(f"{where}.pattern", schema["pattern"], fault)
    for path, child, inside in _children(schema, where):
        if isinstance(child, dict):
            yield from structural_faults(child, path, logical=logical or inside)
        else:
            yield status.invalid(path, child, "must be a schema")


def _type_faults(schema: Schema, where: str) -> Iterator[Cause]:
    kind = schema.get("type")
    if kind is None and not any(schema.get(word) for word in _FREE):
        yield status.required(f"{where}.type", "must not be empty for specified object fields")
    if kind is not None and kind not in _TYPES:
        yield status.unsupported(f"{where}.type", kind, _TYPES)


def _children(schema: Schema, where: str) -> Iterator[tuple[str, Json, bool]]:
    """Yield (path, schema, whether it is inside a logical word) of each schema inside this one."""
    for name, child in schema.get("properties", {}).items():
        yield f"{where}.properties[{name}]", child, False
    for word in ("items", "additionalProperties"):
        if not isinstance(schema.get(word), bool | None):
            yield f"{where}.{word}", schema[word], False
    for word in ("allOf", "anyOf", "oneOf"):
        for index, child in enumerate(schema.get(word, [])):
            yield f"{where}.{word}[{index}]", child, True


# ---- Definitions

GROUP = "apiextensions.k8s.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""Finalizer that keeps a definition until its objects are gone."""
_SCOPES = ("Cluster", "Namespaced")
_ENDS = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
APPROVAL = "api-approved.kubernetes.io"
_APPROVAL_WANTED = (
    f'protected groups must have approval annotation "{APPROVAL}", '
    "see https://github.com/kubernetes/enhancements/pull/1111"
)


class DefinitionStrategy(Strategy):
    """A definition names itself, and has a schema for each version."""

    def default(self, new: Obj) -> None:
        spec = new.setdefault("spec", {})
        spec.setdefault("conversion", {"strategy": "None"})
        known = spec.setdefault("names", {})
        kind = known.get("kind", "")
        known.setdefault("singular", kind.lower())
        known.setdefault("listKind", f"{kind}List")

    def prepare_create(self, new: Obj) -> None:
        """Say that no controller has looked at it yet, as the real server's types do."""
        versions = [each["name"] for each in new["spec"].get("versions", []) if each.get("storage")]
        names = {"plural": "", "kind": ""}
        new["status"] = {"conditions": None, "acceptedNames": names, "storedVersions": versions}

    def holds(self, obj: Obj) -> bool:
        """A definition never goes at once: its objects go first."""
        return "deletionTimestamp" not in obj["metadata"]

    def prepare_deletion(self, new: Obj) -> None:
        """Let it wait for its objects, and say so.

        https://github.com/kubernetes/apiextensions-apiserver/blob/v0.32.3/pkg/registry/customresourcedefinition/etcd.go
        """
        metadata = new["metadata"]
        if CLEANUP not in metadata.get("finalizers", []):
            metadata.setdefault("finalizers", []).append(CLEANUP)
        when = metadata["deletionTimestamp"]
        told = objects.condition("Terminating", "True", "InstanceDeletionPending", _ENDS, when)
        new["status"]["conditions"] = [*(new["status"]["conditions"] or []), told]

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        spec = new["spec"]
        yield from _name_faults(new)
        if spec.get("scope") not in _SCOPES:
            yield status.unsupported("spec.scope", spec.get("scope", ""), _SCOPES)
        if old is not None and spec.get("scope") != old["spec"]["scope"]:
            yield status.invalid("spec.scope", spec.get("scope"), "field is immutable")
        yield from _version_faults(spec.get("versions", []))


def _name_faults(definition: Obj) -> Iterator[Cause]:
    metadata, group = definition["metadata"], definition["spec"].get("group", "")
    known = definition["spec"]["names"]
    for field in ("plural", "kind"):
        if not known.get(field):
            yield status.required(f"spec.names.{field}")
    if not group:
        yield status.required("spec.group")
    if metadata["name"] != f"{known.get('plural')}.{group}":
        detail = 'must be spec.names.plural+"."+spec.group'
        yield status.invalid("metadata.name", metadata["name"], detail)
    protected = f".{group}".endswith((".k8s.io", ".kubernetes.io"))
    if protected and APPROVAL not in metadata.get("annotations", {}):
        yield status.required(f"metadata.annotations[{APPROVAL}]", _APPROVAL_WANTED)


def _version_faults(versions: Sequence[Obj]) -> Iterator[Cause]:
    stored = [version for version in versions if version.get("storage")]
    if len(stored) != 1:
        detail = "must have exactly one version marked as storage version"
        yield status.invalid("spec.versions", versions, detail)
    for index, version in enumerate(versions):
        where = f"spec.versions[{index}]"
        for fault in names.label_faults(version.get("name", "")):
            yield status.invalid(f"{where}.name", version.get("name", ""), fault)
        for number, column in enumerate(version.get("additionalPrinterColumns", [])):
            yield from _column_faults(column, f"{where}.additionalPrinterColumns[{number}]")
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        place = f"{where}.schema.openAPIV3Schema"
        if not schema:
            yield status.required(place, "schemas are required")
        else:
            yield from structural_faults(schema, place)


def _column_faults(column: Obj, where: str) -> Iterator[Cause]:
    for field in ("name", "type", "jsonPath"):
        if not column.get(field):
            yield status.required(f"{where}.{field}")
    if not tables.readable(path := column.get("jsonPath", "")):
        yield status.invalid(f"{where}.jsonPath", path, "only simple paths are read here")


def stored_version(definition: Obj) -> Obj:
    """Return the version of a definition that is stored, and so served."""
    version: Obj = next(v for v in definition["spec"]["versions"] if v["storage"])
    return version


def type_of(definition: Obj) -> ResourceType:
    spec = definition["spec"]
    known, version = spec["names"], stored_version(definition)
    return ResourceType(
        group=spec["group"],
        version=version["name"],
        plural=known["plural"],
        singular=known["singular"],
        kind=known["kind"],
        list_kind=known["listKind"],
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(known.get("shortNames", ())),
        categories=tuple(known.get("categories", ())),
        subresources=("status",) if "status" in version.get("subresources", {}) else (),
        generation=True,
        unconditional_update=False,
        schema=version["schema"]["openAPIV3Schema"],
        columns=tuple(version.get("additionalPrinterColumns", ())),
    )
