"""Config maps and secrets that pods on this node mount: one watch for each, however many mount it.

A kubelet may read only what its own pods name, so it asks for each object by its name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from podidentity_sandbox.apiserver import ApiRefusal, ApiUnreachable
from podidentity_sandbox.node.api import ApiClient
from podidentity_sandbox.node.clock import Clock

_log = logging.getLogger(__name__)
_LONGEST_PAUSE = 60.0

Reference = tuple[str, str, str]
"""Resource (`configmaps` or `secrets`), namespace and name."""


class ObjectWatch:
    """One object, as it is now."""

    def __init__(self) -> None:
        self.object: Mapping[str, Any] | None = None
        """None while it is not there."""
        self.followers = 0
        self.version = 0
        """Counts the changes."""
        self._known = asyncio.Event()
        self._moved = asyncio.Event()

    async def known(self) -> Mapping[str, Any] | None:
        """Return it once the server has said whether it is there."""
        await self._known.wait()
        return self.object

    def moved(self) -> Coroutine[Any, Any, Any]:
        """Return what ends at its next change after this call."""
        return self._moved.wait()

    def show(self, found: Mapping[str, Any] | None) -> None:
        """Take note of it."""
        news = not self._known.is_set() or found != self.object
        self.object = found
        self._known.set()
        if news:
            self.version += 1
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()


class ObjectWatches:
    """All that the node's pods follow."""

    def __init__(self, api: ApiClient, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._watched: dict[Reference, tuple[ObjectWatch, asyncio.Task[None]]] = {}

    def follow(self, reference: Reference) -> ObjectWatch:
        """Return the object; it is followed until as many have let go as asked for it."""
        if reference not in self._watched:
            watched = ObjectWatch()
            task = asyncio.create_task(self._keep(reference, watched))
            self._watched[reference] = watched, task
        watched, _ = self._watched[reference]
        watched.followers += 1
        return watched

    async def release(self, reference: Reference) -> None:
        """Follow it no longer, unless another does."""
        watched, task = self._watched[reference]
        watched.followers -= 1
        if not watched.followers:
            del self._watched[reference]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = [task for _, task in self._watched.values()]
        self._watched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, reference: Reference, watched: ObjectWatch) -> None:
        pause = 0.1
        while True:
            try:
                await self._follow(reference, watched)
                pause = 0.1
            except (ApiRefusal, ApiUnreachable) as error:
                _log.info("%s %s/%s cannot be watched: %s", *reference, error)
                if isinstance(error, ApiRefusal) and error.status in {403, 404}:
                    watched.show(None)
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _follow(self, reference: Reference, watched: ObjectWatch) -> None:
        """List, and watch until the server ends it."""
        resource, namespace, name = reference
        path = f"/api/v1/namespaces/{namespace}/{resource}"
        query = {"fieldSelector": f"metadata.name={name}"}
        found = await self._api.request("GET", path, params=query)
        watched.show(found["items"][0] if found["items"] else None)
        query["resourceVersion"] = found["metadata"]["resourceVersion"]
        async for event in self._api.watch(path, query):
            watched.show(None if event["type"] == "DELETED" else event["object"])
