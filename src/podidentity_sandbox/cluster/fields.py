"""The fields of each type, of built-in types and of custom ones in the same form.

It is an openAPIV3Schema as in a CustomResourceDefinition.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache, lru_cache
from types import ModuleType

import msgspec

from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.schema import Schema
from podidentity_sandbox.cluster.shapes import GO_TYPE, QUANTITY

INT64 = frozenset(
    {
        *("activeDeadlineSeconds", "deletionGracePeriodSeconds", "expirationSeconds"),
        *("gracePeriodSeconds", "terminationGracePeriodSeconds", "tolerationSeconds"),
        *("fsGroup", "generation", "observedGeneration", "runAsGroup", "runAsUser"),
    }
)
"""Whole numbers of 64 bits, by the names of their fields; the others have 32."""

_TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
_AMOUNTS = (
    *("ContainerStatus.allocatedResources", "PodSpec.overhead", "PodStatus.allocatedResources"),
    *("NodeStatus.allocatable", "NodeStatus.capacity"),
    *("ResourceRequirements.limits", "ResourceRequirements.requests"),
    *("VolumeResourceRequirements.limits", "VolumeResourceRequirements.requests"),
)
_SCHEMAS = ("definitions", "dependencies", "patternProperties", "properties")
VALUES: dict[str, Schema | bool] = {
    "UserInfo.extra": _TEXTS,
    "SubjectAccessReviewSpec.extra": _TEXTS,
    **dict.fromkeys(_AMOUNTS, QUANTITY),
    # `crds` checks schemas one by one.
    **{f"JSONSchemaProps.{name}": True for name in _SCHEMAS},
}
"""The values of maps that are not of texts."""


# ---- The fields of built-in types, as lightkube's generated models tell them: names and types.
#
# They are those of https://github.com/kubernetes/kubernetes/blob/v1.37.0/api/openapi-spec/swagger.json.
# Only annotations are read; objects are never made of them.

_TEXT: Schema = {"type": "string"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_SCALARS: dict[str, Schema] = {
    "str": _TEXT,
    "int": {"type": "integer", "format": "int32"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Time": _TIME,
    "MicroTime": _TIME,
    "Quantity": QUANTITY,
    "IntOrString": {"x-kubernetes-int-or-string": True},
}
_ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}
"""Fields without a type: FieldsV1, RawExtension and JSON."""


def without_client() -> None:
    """Have `lightkube` without what its `__init__` loads, in a process that reads its models alone.

    That is its client, and httpx2: a quarter of what the start of the API server takes.
    """
    spec = importlib.util.find_spec("lightkube")
    assert spec is not None  # noqa: S101 - it is installed with this
    sys.modules.setdefault("lightkube", importlib.util.module_from_spec(spec))


@lru_cache(maxsize=256)
def fields_of(kind: ResourceType) -> Schema:
    """Return the schema of whole objects of a type, their metadata included."""
    if kind.schema is None:
        return built_in(kind.group, kind.version, kind.kind)
    head = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": built_in("meta", "v1", "ObjectMeta")}
    properties = {**kind.schema.get("properties", {}), **head}
    return {**kind.schema, "properties": properties}


def built_in(group: str, version: str, kind: str) -> Schema:
    """Return the fields of a built-in type; raise LookupError for one that is not known."""
    module = _module(f"{group.partition('.')[0] or 'core'}_{version}")
    if not hasattr(module, kind):
        raise LookupError(kind)
    return _of_model(getattr(module, kind))


@cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(f"lightkube.models.{name}")


_made: dict[type[msgspec.Struct], Schema] = {}
"""They refer to each other: JSONSchemaProps holds itself."""


def _of_model(model: type[msgspec.Struct]) -> Schema:
    """Return the fields of a class of the models, such as PodSpec of core_v1."""
    if model in _made:
        return _made[model]
    properties: dict[str, Schema] = {}
    new = _made[model] = {"type": "object", "properties": properties, GO_TYPE: model.__name__}
    names = zip(model.__struct_fields__, model.__struct_encode_fields__, strict=True)
    for name, key in names:
        path = f"{model.__name__}.{key}"
        found = _of_type(path, sys.modules[model.__module__], model.__annotations__[name])
        properties[key] = {**found, "format": "int64"} if key in INT64 else found
    return new


def _of_type(path: str, module: ModuleType, annotation: str) -> Schema:
    """Return the schema of the type of a field at `path`, such as PodSpec.nodeSelector.

    Annotations are like `str`, `List[Container]` and `Optional[meta_v1.Time]`.
    """
    inner = annotation.removeprefix("Optional[")
    listed = inner.removeprefix("List[")
    place, _, name = listed.rstrip("]").rpartition(".")
    if name == "dict":
        return {"type": "object", "additionalProperties": VALUES.get(path, _TEXT)}
    found = _SCALARS.get(name, _ANYTHING)
    model = getattr(_module(place) if place else module, name, None)
    if found is _ANYTHING and isinstance(model, type) and issubclass(model, msgspec.Struct):
        found = _of_model(model)
    return {"type": "array", "items": found} if listed != inner else found
