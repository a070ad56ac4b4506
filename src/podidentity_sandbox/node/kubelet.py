"""The node's pods: what the API server says there are, and a task for each.

One list, then a watch that resumes where it broke; after 410 a list again. A kubelet that starts
anew knows nothing of before: all that it had started ended with it, and starts again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from podidentity_sandbox.node.api import ApiError, Unreachable
from podidentity_sandbox.node.pods import Pod
from podidentity_sandbox.node.registration import register
from podidentity_sandbox.node.services import Services

_log = logging.getLogger(__name__)

_PODS = "/api/v1/pods"
_GONE = 410
_LONGEST_PAUSE = 5.0


class Kubelet:
    """Looks after the pods of one node."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._selector = {"fieldSelector": f"spec.nodeName={services.node.name}"}
        self._pods: dict[str, Pod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause = 0.0
        self.ready = asyncio.Event()
        """Set when the node is registered and its pods are known."""

    def find(self, namespace: str, name: str) -> Pod:
        """Return the pod of that name, the latest if one before it is still ending, or KeyError."""
        for pod in reversed(self._pods.values()):
            if (pod.spec.namespace, pod.spec.name) == (namespace, name):
                return pod
        raise KeyError(name)

    async def run(self) -> None:
        """Follow the API server for ever."""
        services = self._services
        try:
            while True:
                # Also after a list is needed anew: the server may have forgotten the node.
                await register(services.api, services.node, services.clock.now())
                version = await self._list()
                self.ready.set()
                while version:
                    version = await self._follow(version)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _list(self) -> str:
        """Bring the pods in line with a list; return its resource version."""
        api = self._services.api
        answer = await api.insist(lambda: api.request("GET", _PODS, params=self._selector))
        for raw in answer["items"]:
            self._observe(raw)
        there = {raw["metadata"]["uid"] for raw in answer["items"]}
        for uid in self._pods.keys() - there:
            self._pods[uid].vanish()
        version: str = answer["metadata"]["resourceVersion"]
        return version

    async def _follow(self, version: str) -> str:
        """Follow one watch; return where the next is to begin, or "" for a list."""
        query = {**self._selector, "resourceVersion": version, "allowWatchBookmarks": "true"}
        try:
            async for event in self._services.api.watch(_PODS, query):
                self._pause = 0.0
                raw = event["object"]
                version = raw["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    self._vanish(raw)
                elif event["type"] != "BOOKMARK":
                    self._observe(raw)
        except ApiError as error:
            if error.status != _GONE:
                await self._be_patient(error)
            return ""
        except Unreachable as error:
            await self._be_patient(error)
        return version

    async def _be_patient(self, error: Exception) -> None:
        self._pause = min(max(self._pause * 2, 0.1), _LONGEST_PAUSE)
        _log.warning("the watch broke, resuming in %.1f s: %s", self._pause, error)
        await self._services.clock.sleep(self._pause)

    def _observe(self, raw: Mapping[str, Any]) -> None:
        uid = raw["metadata"]["uid"]
        pod = self._pods.get(uid)
        if pod is None:
            pod = self._pods[uid] = Pod(raw, self._services)
            task = asyncio.create_task(self._look_after(pod))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        pod.observe(raw)

    def _vanish(self, raw: Mapping[str, Any]) -> None:
        pod = self._pods.get(raw["metadata"]["uid"])
        if pod is not None:
            pod.vanish()

    async def _look_after(self, pod: Pod) -> None:
        try:
            await pod.run()
        finally:
            self._pods.pop(pod.spec.uid, None)
