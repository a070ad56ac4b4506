"""The components of built-in types, with the texts that `kubectl explain` shows.

They are read from the generated models of lightkube, which carry the names, types and texts of
https://github.com/kubernetes/kubernetes/blob/v1.37.0/api/openapi-spec/swagger.json.
"""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from types import ModuleType
from typing import Any

import msgspec

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
_FIELD = re.compile(r"\n\* \*\*(\S+)\*\* ``.*?`` - ", re.DOTALL)
_PACKAGES = {"meta_v1": "io.k8s.apimachinery.pkg.apis.meta.v1"}


def add(components: Components, kind: ResourceType) -> str:
    """Add a type's component, and those that it is made of; return its name."""
    module = _module(kind.group, kind.version)
    if hasattr(module, kind.kind):
        return _add(components, module, kind.kind)
    name = f"{_package(module)}.{kind.kind}"
    components.setdefault(name, dict(_OBJECT))
    return name


def add_metadata(components: Components) -> str:
    """Add what the metadata of every object is; return the component's name."""
    return _add(components, _named("meta_v1"), "ObjectMeta")


def _module(group: str, version: str) -> ModuleType:
    return _named(f"{group.partition('.')[0] or 'core'}_{version}")


@cache
def _named(name: str) -> ModuleType:
    return importlib.import_module(f"lightkube.models.{name}")


def _package(module: ModuleType) -> str:
    name = module.__name__.rpartition(".")[2]
    return _PACKAGES.get(name, f"io.k8s.api.{name.replace('_', '.')}")


def _add(components: Components, module: ModuleType, name: str) -> str:
    full = f"{_package(module)}.{name}"
    if full in components:
        return full
    properties: dict[str, Schema] = {}
    model: Any = getattr(module, name)
    about, texts = _texts(inspect.cleandoc(model.__doc__ or ""))
    components[full] = {"description": about, "type": "object", "properties": properties}
    required = []
    for field, key in zip(model.__struct_fields__, model.__struct_encode_fields__, strict=True):
        text = model.__annotations__[field]
        found = _of(components, module, text)
        if not text.startswith("Optional["):
            required.append(key)
        if "$ref" in found:
            found = {"allOf": [found]}
        properties[key] = {"description": texts.get(field, ""), **found}
    if required:
        components[full]["required"] = required
    return full


def _of(components: Components, module: ModuleType, text: str) -> Schema:
    """Return the schema of an annotation: `str`, `List[Container]`, `Optional[meta_v1.Time]`."""
    for wrapper in ("Optional", "List"):
        if text.startswith(f"{wrapper}["):
            inner = _of(components, module, text[len(wrapper) + 1 : -1])
            return inner if wrapper == "Optional" else {"type": "array", "items": inner}
    place, _, name = text.rpartition(".")
    if name in _SCALARS:
        return _SCALARS[name]
    home = _named(place) if place else module
    if not _is_struct(getattr(home, name, None)):
        return _OBJECT
    return {"$ref": REFERENCE + _add(components, home, name)}


def _is_struct(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, msgspec.Struct)


def _texts(doc: str) -> tuple[str, dict[str, str]]:
    """Return what a model's docstring says of it, and of each of its fields."""
    about, _, rest = doc.partition("**parameters**")
    words = _FIELD.split("\n" + rest.strip())
    texts = {field: _plain(text) for field, text in zip(words[1::2], words[2::2], strict=True)}
    return _plain(about), texts


def _plain(text: str) -> str:
    """Return a text with its lines joined, its paragraphs kept."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
