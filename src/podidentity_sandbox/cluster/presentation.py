"""The forms in which clients ask for objects: whole, or as rows of a table.

A client says so in its Accept header, in the order of its wishes:
https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Protocol

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.list_watch import Page
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import Record
from podidentity_sandbox.cluster.tables.rendering import Tables

JSON = "application/json"
SERVED = (JSON,)
_TAKES_JSON = ("", "*/*", "application/*", JSON)
_META = "meta.k8s.io"
_INCLUDES = ("None", "Metadata", "Object")

Shown = Callable[[Record], bytes]


class Presentation(Protocol):
    """One way to show objects."""

    def one(self, kind: ResourceType, record: Record) -> bytes:
        """Return an object as the client wants it."""

    def page(self, kind: ResourceType, page: Page) -> bytes:
        """Return a part of a list."""

    def events(self, kind: ResourceType) -> Shown:
        """Return what shows the objects of one watch, in the order of its events."""


class Whole:
    """Objects as they are."""

    def one(self, kind: ResourceType, record: Record) -> bytes:
        """Return the object."""
        del kind
        return record.raw

    def page(self, kind: ResourceType, page: Page) -> bytes:
        """Return a list of objects."""
        return page.raw(kind)

    def events(self, kind: ResourceType) -> Shown:
        """Return the object of each event."""
        del kind
        return lambda record: record.raw


class Tabular:
    """Rows of a table."""

    def __init__(self, version: str, include: str, now: Callable[[], datetime]) -> None:
        self._version = version
        self._include = include
        self._now = now

    def _tables(self) -> Tables:
        return Tables(version=self._version, include=self._include, now=self._now())

    def one(self, kind: ResourceType, record: Record) -> bytes:
        """Return a table of one row."""
        metadata = {"resourceVersion": record.metadata["resourceVersion"]}
        return self._tables().render(kind, metadata, [record])

    def page(self, kind: ResourceType, page: Page) -> bytes:
        """Return a table of the page's objects."""
        return self._tables().render(kind, page.metadata(), page.records)

    def events(self, kind: ResourceType) -> Shown:
        """Return a table for each event; only the first has headers."""
        headers = iter([True])

        def shown(record: Record) -> bytes:
            metadata = {"resourceVersion": record.metadata.get("resourceVersion", "")}
            first = next(headers, False)
            return self._tables().render(kind, metadata, [record], headers=first)

        return shown


def choose(accept: str, query: Mapping[str, str], now: Callable[[], datetime]) -> Presentation:
    """Return how to show objects to a client; raise 400 or 406."""
    for parameters in wishes(accept):
        match parameters.get("as", ""), parameters.get("g", ""), parameters.get("v", ""):
            case "", _, _:
                return Whole()
            case "Table", group, ("v1" | "v1beta1") as version if group == _META:
                return Tabular(version, _include(query), now)
    raise status.not_acceptable(SERVED)


def wishes(accept: str) -> Iterator[Mapping[str, str]]:
    """Yield the parameters of each media type of JSON that a client takes."""
    for wish in accept.split(","):
        kind, *words = (word.strip() for word in wish.split(";"))
        if kind in _TAKES_JSON:
            yield dict(_pair(word) for word in words)


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def _include(query: Mapping[str, str]) -> str:
    wanted = query.get("includeObject", "") or "Metadata"
    if wanted not in _INCLUDES:
        raise status.bad_request(f"unrecognized includeObject value: {wanted!r}")
    return wanted
