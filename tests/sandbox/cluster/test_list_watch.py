"""Lists in pages and watches: always one consistent state, and every change after it."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from podidentity.adapters.kube import Kube
from podidentity.adapters.reflector import Reflector, Source
from podidentity.core.resources import ObjectRef
from podidentity_sandbox.cluster import list_watch
from podidentity_sandbox.cluster.kinds.table import BUILT_IN
from podidentity_sandbox.cluster.registry import Registry
from podidentity_sandbox.cluster.selectors import select
from podidentity_sandbox.cluster.storage import Storage
from tests.fakes import ImpatientClock
from tests.sandbox.cluster.conftest import (
    MAPS,
    MERGE,
    Client,
    Served,
    listener,
    seen,
    serving,
    watching,
)

CONFIG_MAPS = Registry(BUILT_IN).by_key("configmaps")


async def make(api: Client, *names: str, **labels: str) -> None:
    for name in names:
        await api.post(MAPS, json={"metadata": {"name": name, "labels": labels}})


def names(answer: httpx2.Response) -> list[str]:
    return [item["metadata"]["name"] for item in answer.json()["items"]]


# ---- Watches, as https://kubernetes.io/docs/reference/using-api/api-concepts/ describes them.


async def relabel(api: Client, name: str, **labels: str) -> dict[str, Any]:
    patch = {"metadata": {"labels": labels}}
    answer = await api.patch(f"{MAPS}/{name}", json=patch, headers=MERGE)
    body: dict[str, Any] = answer.json()
    return body


async def test_a_watch_of_a_future_version_is_silent_until_that_version(served: Served) -> None:
    """As a real API server does, which drops bookmarks as well."""
    storage = served.cluster.storage
    future = storage.revision + 2
    async with (
        served.client() as api,
        watching(api, MAPS, resourceVersion=str(future), allowWatchBookmarks="true") as events,
    ):
        await make(api, "a", "b", "c")
        assert seen(await anext(events)) == ("ADDED", "c")
    request = list_watch.WatchRequest(
        kind=CONFIG_MAPS,
        selection=select(CONFIG_MAPS, "", "", ""),
        revision=str(storage.revision + 1),
        bookmarks=True,
        seconds=0.01,
    )
    assert [line async for line in list_watch.stream(storage, request)] == []


async def test_a_reflector_notices_that_the_history_went_back(folder: Path) -> None:
    """No attempt fails, because the port listens on while another server takes the place."""
    known: set[str] = set()
    changed = asyncio.Event()

    def put(raw: msgspec.Raw) -> None:
        known.add(json.loads(bytes(raw))["metadata"]["name"])
        changed.set()

    def remove(ref: ObjectRef) -> None:
        known.discard(ref.name)
        changed.set()

    async def until(*expected: str) -> None:
        while known != {"kube-root-ca.crt", *expected}:
            changed.clear()
            await changed.wait()

    source = Source(what="maps", path=MAPS, put=put, remove=remove, listed=lambda: None)
    with listener() as sock:
        async with serving(folder, sock.dup()) as first, first.client() as api:
            first.cluster.storage.revision += 1000
            await make(api, "deleted")
            client = first.client(of_program=True)
            reflector = Reflector(Kube(client), source, clock=ImpatientClock())
            following = asyncio.create_task(reflector.run())
            await until("deleted")
        async with serving(folder, sock.dup()) as second, second.client() as api, aclosing(client):
            await make(api, "new")
            async with asyncio.timeout(60):
                await until("new")
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def test_every_change_is_seen_once_and_in_order_however_they_fall() -> None:
    storage = Storage(history=1000)
    chosen = select(CONFIG_MAPS, "", "", "")
    request = list_watch.WatchRequest(kind=CONFIG_MAPS, selection=chosen, revision="1")
    got: list[bytes] = []

    async def follow() -> None:
        async for lines in list_watch.stream(storage, request):
            got.extend(lines.splitlines())
            if len(got) == 100:
                return

    watcher = asyncio.create_task(follow())
    for number in range(100):
        storage.put("configmaps", {"metadata": {"name": f"m{number:03}", "uid": "m"}})
        if number % 7 == 0:
            await asyncio.sleep(0)
    await asyncio.wait_for(watcher, 60)
    assert [line.count(f'"m{n:03}"'.encode()) for n, line in enumerate(got)] == [1] * 100
