"""A Table of some objects, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from podidentity_sandbox.cluster import Json, Obj
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import Record, encode
from podidentity_sandbox.cluster.tables import builtin, custom
from podidentity_sandbox.cluster.tables.columns import DEFAULT, Column


def columns_of(kind: ResourceType) -> Sequence[Column]:
    """Return the columns of a type."""
    if kind.custom:
        return custom.columns(kind.columns)
    return builtin.COLUMNS.get(kind.key, DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """How a client wants its tables."""

    version: str
    """Of meta.k8s.io: v1 or v1beta1."""
    include: str
    """The part of its object that each row has: None, Metadata or Object."""
    now: datetime

    def render(
        self, kind: ResourceType, metadata: Obj, records: Iterable[Record], *, headers: bool = True
    ) -> bytes:
        """Return a Table; without headers it continues an earlier one, in a watch."""
        columns = columns_of(kind)
        table = {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{self.version}",
            "metadata": metadata,
            "columnDefinitions": [c.definition() for c in columns] if headers else None,
            "rows": [self._row(columns, record) for record in records],
        }
        return encode(table)

    def _row(self, columns: Sequence[Column], record: Record) -> Obj:
        cells: list[Json] = [column.cell(record.object, self.now) for column in columns]
        return {"cells": cells, "object": self._object(record)}

    def _object(self, record: Record) -> Json:
        if self.include == "Object":
            return record.object
        return partial(record, self.version) if self.include == "Metadata" else None


def partial(record: Record, version: str = "v1") -> Obj:
    """Return an object's metadata alone, as PartialObjectMetadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": record.object["metadata"],
    }
