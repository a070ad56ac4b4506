"""The built-in types as lightkube's generated models tell them: names and types of fields.

They are those of https://github.com/kubernetes/kubernetes/blob/v1.37.0/api/openapi-spec/swagger.json.
Only annotations are read; objects are never made of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import msgspec

SCALARS = frozenset(
    {"str", "int", "float", "bool", "dict", "Time", "MicroTime", "Quantity", "IntOrString"}
)


@dataclass(frozen=True, slots=True)
class Model:
    """A class of the models, such as PodSpec of core_v1."""

    module: str
    name: str

    @property
    def fields(self) -> Sequence[ModelField]:
        """Its fields, in their order."""
        found: Any = getattr(_module(self.module), self.name)
        names = zip(found.__struct_fields__, found.__struct_encode_fields__, strict=True)
        return [_field(self.module, key, found.__annotations__[name]) for name, key in names]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelField:
    """A field of a model, by its name in JSON."""

    key: str
    many: bool
    """A list of its type."""
    scalar: str
    """One of SCALARS, or ""."""
    model: Model | None
    """None, and no scalar: FieldsV1, RawExtension and JSON, whose content has no type."""


METADATA = Model("meta_v1", "ObjectMeta")
"""The metadata of every object."""


def find(group: str, version: str, kind: str) -> Model | None:
    """Return the model of a built-in type; None where there is none."""
    module = f"{group.partition('.')[0] or 'core'}_{version}"
    return Model(module, kind) if hasattr(_module(module), kind) else None


@cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(f"lightkube.models.{name}")


def _field(module: str, key: str, annotation: str) -> ModelField:
    """Read an annotation: `str`, `List[Container]`, `Optional[meta_v1.Time]`."""
    inner = annotation.removeprefix("Optional[")
    listed = inner.removeprefix("List[")
    place, _, name = listed.rstrip("]").rpartition(".")
    found = getattr(_module(place or module), name, None)
    struct = isinstance(found, type) and issubclass(found, msgspec.Struct)
    return ModelField(
        key=key,
        many=listed != inner,
        scalar=name if name in SCALARS else "",
        model=Model(place or module, name) if struct and name not in SCALARS else None,
    )
