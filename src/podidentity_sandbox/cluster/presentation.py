"""The forms in which clients ask for objects: whole, or as rows of a Table.

A client says so in its Accept header, in the order of its wishes:
https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from podidentity_sandbox.cluster import Json, Obj, status, tables
from podidentity_sandbox.cluster.list_watch import Page
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import Record, encode

JSON = "application/json"
SERVED = (JSON,)
_TAKES_JSON = ("", "*/*", "application/*", JSON)
_META = "meta.k8s.io"
_INCLUDES = ("None", "Metadata", "Object")


def wishes(accept: str) -> Iterator[Mapping[str, str]]:
    """Yield the parameters of each media type of JSON that a client takes."""
    for wish in accept.split(","):
        kind, *words = (word.strip() for word in wish.split(";"))
        if kind in _TAKES_JSON:
            yield {name: value for name, _, value in (word.partition("=") for word in words)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How a client wants to see the objects of a type."""

    kind: ResourceType
    include: str | None
    """The part of its object that each row of a table has: one of _INCLUDES; None: no table."""
    now: Callable[[], datetime]

    def one(self, record: Record) -> bytes:
        if self.include is None:
            return record.raw
        return self._table({"resourceVersion": record.metadata["resourceVersion"]}, [record])

    def page(self, page: Page) -> bytes:
        if self.include is None:
            return page.raw(self.kind)
        return self._table(page.metadata(), page.records)

    def events(self) -> Callable[[Record], bytes]:
        """Return what shows the objects of a watch in their order: the first table has headers."""
        if self.include is None:
            return lambda record: record.raw
        headers = iter([True])

        def shown(record: Record) -> bytes:
            metadata = {"resourceVersion": record.metadata.get("resourceVersion", "")}
            return self._table(metadata, [record], headers=next(headers, False))

        return shown

    def _table(self, metadata: Obj, records: Iterable[Record], *, headers: bool = True) -> bytes:
        columns, now = tables.columns(self.kind), self.now()
        table = {
            "kind": "Table",
            "apiVersion": f"{_META}/v1",
            "metadata": metadata,
            "columnDefinitions": [c.definition() for c in columns] if headers else None,
            "rows": [
                {
                    "cells": [column.cell(record.object, now) for column in columns],
                    "object": self._part(record),
                }
                for record in records
            ],
        }
        return encode(table)

    def _part(self, record: Record) -> Json:
        if self.include == "Object":
            return record.object
        head = {"kind": "PartialObjectMetadata", "apiVersion": f"{_META}/v1"}
        return {**head, "metadata": record.metadata} if self.include == "Metadata" else None


def choose(
    kind: ResourceType, accept: str, query: Mapping[str, str], now: Callable[[], datetime]
) -> Presentation:
    """Return how to show objects to a client; raise 400 or 406."""
    for wish in wishes(accept):
        match wish.get("as", ""), wish.get("g", ""), wish.get("v", ""):
            case "", _, _:
                return Presentation(kind=kind, include=None, now=now)
            case "Table", group, "v1" if group == _META:
                include = query.get("includeObject", "") or "Metadata"
                if include not in _INCLUDES:
                    raise status.bad_request(f"unrecognized includeObject value: {include!r}")
                return Presentation(kind=kind, include=include, now=now)
    raise status.not_acceptable(SERVED)
