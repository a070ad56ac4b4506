"""The built-in types as lightkube's generated models tell them: names, types and texts of fields.

They are those of https://github.com/kubernetes/kubernetes/blob/v1.37.0/api/openapi-spec/swagger.json.
Only annotations and docstrings are read; objects are never made of them.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import msgspec

SCALARS = frozenset(
    {"str", "int", "float", "bool", "dict", "Time", "MicroTime", "Quantity", "IntOrString"}
)
_FIELD = re.compile(r"\n\* \*\*(\S+)\*\* ``.*?`` - ", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Model:
    """A class of the models, such as PodSpec of core_v1."""

    module: str
    name: str

    @property
    def about(self) -> str:
        """Its description, from the docstring."""
        return _texts(self)[0]

    @property
    def fields(self) -> Sequence[ModelField]:
        """Its fields, in their order."""
        found: Any = getattr(_module(self.module), self.name)
        texts = _texts(self)[1]
        names = zip(found.__struct_fields__, found.__struct_encode_fields__, strict=True)
        return [
            _field(self.module, key, found.__annotations__[name], texts.get(name, ""))
            for name, key in names
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelField:
    """A field of a model, by its name in JSON."""

    key: str
    text: str
    """Its description, from the docstring."""
    required: bool
    many: bool
    """A list of its type."""
    scalar: str
    """One of SCALARS, or ""."""
    model: Model | None
    """None, and no scalar: FieldsV1, RawExtension and JSON, whose content has no type."""


METADATA = Model("meta_v1", "ObjectMeta")
"""The metadata of every object."""


def module_of(group: str, version: str) -> str:
    """Return the module of a group's models."""
    return f"{group.partition('.')[0] or 'core'}_{version}"


def find(group: str, version: str, kind: str) -> Model | None:
    """Return the model of a built-in type; None where there is none."""
    module = module_of(group, version)
    return Model(module, kind) if hasattr(_module(module), kind) else None


@cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(f"lightkube.models.{name}")


def _field(module: str, key: str, annotation: str, text: str) -> ModelField:
    """Read an annotation: `str`, `List[Container]`, `Optional[meta_v1.Time]`."""
    inner = annotation.removeprefix("Optional[")
    listed = inner.removeprefix("List[")
    place, _, name = listed.rstrip("]").rpartition(".")
    found = getattr(_module(place or module), name, None)
    struct = isinstance(found, type) and issubclass(found, msgspec.Struct)
    scalar = name if name in SCALARS else ""
    return ModelField(
        key=key,
        text=text,
        required=inner == annotation,
        many=listed != inner,
        scalar=scalar,
        model=Model(place or module, name) if struct and not scalar else None,
    )


@cache
def _texts(model: Model) -> tuple[str, dict[str, str]]:
    """Return the descriptions of a model and of each of its fields, from its docstring."""
    found: Any = getattr(_module(model.module), model.name)
    about, _, rest = inspect.cleandoc(found.__doc__ or "").partition("**parameters**")
    words = _FIELD.split("\n" + rest.strip())
    texts = {field: _plain(text) for field, text in zip(words[1::2], words[2::2], strict=True)}
    return _plain(about), texts


def _plain(text: str) -> str:
    """Return a text with its lines joined, its paragraphs kept."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
