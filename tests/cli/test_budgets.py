"""Commands leave out what NMI and MIC leave out for the budget of a namespace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from podidentity.adapters.kube import Kube
from podidentity.cli.objects import ACCOUNTS, EXCEPTIONS, list_parsed
from podidentity.core.resources import Malformed
from podidentity.wire.kube import Page
from tests.fakes import CLIENT, FakeKubeApi

LABELS = {f"{each:03}{'a' * 250}/{'b' * 63}": "c" * 63 for each in range(100)}


class Server(FakeKubeApi):
    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = objects

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        del path, params
        items = tuple(msgspec.Raw(json.dumps(each).encode()) for each in self.objects)
        return Page(items=items, resource_version="1")


def named(number: int, **rest: Any) -> dict[str, Any]:
    created = f"2026-01-01T00:00:{number:02}Z"
    meta = {"name": f"e{number}", "namespace": "red", "creationTimestamp": created}
    return {"metadata": {**meta, **rest.pop("metadata", {})}, **rest}


def test_the_youngest_exceptions_beyond_the_budget_are_malformed() -> None:
    server = cast("Kube", Server(*(named(each, spec={"podLabels": LABELS}) for each in range(40))))
    found = asyncio.run(list_parsed(server, EXCEPTIONS))
    out = [each for each in found if isinstance(each, Malformed)]
    assert 0 < len(out) < 40
    assert found[-len(out) :] == out
    assert "its namespace has more than 1 MiB" in out[0].why


def test_accounts_without_an_identity_take_little_of_their_budget() -> None:
    plain = (named(each % 60, metadata={"name": f"a{each}"}) for each in range(1_500))
    annotated = named(59, metadata={"annotations": {"azure.workload.identity/client-id": CLIENT}})
    server = cast("Kube", Server(*plain, annotated))
    found = asyncio.run(list_parsed(server, ACCOUNTS))
    assert not [each for each in found if isinstance(each, Malformed)]
