"""From a decoded body to an object of its type: unknown fields found, nulls dropped, defaults in.

What becomes of a field that is not known, or said twice, is the client's wish (fieldValidation):
https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from podidentity_sandbox.cluster import objects, schema, shapes
from podidentity_sandbox.cluster.fields import fields_of
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.registry import ResourceType


@dataclass(slots=True, kw_only=True)
class Write:
    """How a write is meant, and what the client is to be warned of."""

    dry_run: bool = False
    validation: str = "Warn"
    """fieldValidation: Ignore, Warn or Strict."""
    warnings: list[str] = field(default_factory=list)
    manager: str = ""
    """The field manager; "" where nobody keeps book: a write of the server itself."""
    strict: list[str] = field(default_factory=list)
    """What a strict decoder found wrong in the body: fields that it says twice."""
    managed: list[Obj] | None = None
    """managedFields of the new state, where it was applied and so they are known."""
    undecodable: objects.Undecodable | None = None
    """Makes the refusal of a body that does not decode; None for that of a create or update."""
    judge: Callable[[ResourceType, Obj, Obj | None], None] = lambda *_: None
    """Looks at the new state beside the old one, before it is validated; raises a StatusError."""


def decode(kind: ResourceType, body: object, write: Write) -> Obj:
    """Return the object that a body is, as its type reads it; raise 400, or 422 for a patch."""
    refuse = write.undecodable or partial(objects.undecodable, kind)
    unknown = _unknown(kind, body)
    obj = objects.check_shape(kind, body, refuse)
    if kind.shape is not None:
        head = {name: obj.pop(name) for name in ("kind", "apiVersion", "metadata")}
        obj = {**head, **shapes.without_nulls(obj)}
        if misfit := shapes.misfit(kind.shape, obj, fields_of(kind)):
            raise refuse(misfit)
    found = [*write.strict, *unknown]
    if found and write.validation == "Strict":
        raise refuse(f"strict decoding error: {', '.join(found)}")
    if write.validation == "Warn":
        write.warnings += found
    if kind.schema is not None:
        schema.default(kind.schema, obj)
    kind.strategy.default(obj)
    return obj


def _unknown(kind: ResourceType, body: object) -> list[str]:
    """Take the unknown fields out of a body; return a sentence for each."""
    paths = schema.prune(fields_of(kind), body, root=False)
    return [f'unknown field "{path}"' for path in (sorted(paths) if kind.custom else paths)]
