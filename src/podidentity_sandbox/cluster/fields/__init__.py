"""The fields of each type, and how its lists and maps are merged.

Patches, server-side apply and the validation of unknown fields read this, of built-in types and of
custom ones in the same form: an openAPIV3Schema as in a CustomResourceDefinition, with the
extensions of https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy and,
for built-in types, those of strategic merge patches.
"""

from __future__ import annotations

from functools import lru_cache

from podidentity_sandbox.cluster.fields import builtin
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.schema import Schema

_TEXT: Schema = {"type": "string"}


@lru_cache(maxsize=256)
def fields_of(kind: ResourceType) -> Schema:
    """Return the schema of whole objects of a type, their metadata included."""
    if kind.schema is None:
        return builtin.schema(kind.group, kind.version, kind.kind)
    head = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": builtin.metadata()}
    properties = {**kind.schema.get("properties", {}), **head}
    return {**kind.schema, "properties": properties}
