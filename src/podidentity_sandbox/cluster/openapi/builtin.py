"""The components of built-in types, with the texts that `kubectl explain` shows."""

from __future__ import annotations

from podidentity_sandbox.cluster import models
from podidentity_sandbox.cluster.models import Field, Model
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.schema import Schema

Components = dict[str, Schema]
REFERENCE = "#/components/schemas/"
_SCALARS: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "double"},
    "bool": {"type": "boolean"},
    "dict": {"type": "object", "additionalProperties": {"type": "string"}},
    "Time": {"type": "string", "format": "date-time"},
    "MicroTime": {"type": "string", "format": "date-time"},
    "Quantity": {"type": "string"},
    "IntOrString": {"type": "string", "format": "int-or-string"},
}
_OBJECT: Schema = {"type": "object"}
_PACKAGES = {"meta_v1": "io.k8s.apimachinery.pkg.apis.meta.v1"}


def add(components: Components, kind: ResourceType) -> str:
    """Add a type's component, and those that it is made of; return its name."""
    model = models.find(kind.group, kind.version, kind.kind)
    if model is not None:
        return _add(components, model)
    name = f"{_package(models.module_of(kind.group, kind.version))}.{kind.kind}"
    components.setdefault(name, dict(_OBJECT))
    return name


def add_metadata(components: Components) -> str:
    """Add what the metadata of every object is; return the component's name."""
    return _add(components, models.METADATA)


def _package(module: str) -> str:
    return _PACKAGES.get(module, f"io.k8s.api.{module.replace('_', '.')}")


def _add(components: Components, model: Model) -> str:
    full = f"{_package(model.module)}.{model.name}"
    if full in components:
        return full
    properties: dict[str, Schema] = {}
    components[full] = {"description": model.about, "type": "object", "properties": properties}
    for field in model.fields:
        found = _of(components, field)
        if "$ref" in found:
            found = {"allOf": [found]}
        properties[field.key] = {"description": field.text, **found}
    required = [field.key for field in model.fields if field.required]
    if required:
        components[full]["required"] = required
    return full


def _of(components: Components, field: Field) -> Schema:
    """Return the schema of a field's type."""
    found = _SCALARS.get(field.scalar, _OBJECT)
    if field.model is not None:
        found = {"$ref": REFERENCE + _add(components, field.model)}
    return {"type": "array", "items": found} if field.many else found
