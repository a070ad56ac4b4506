"""AKS's client of its cluster: a few calls of the Kubernetes API, as its own user."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import aiohttp

from podidentity_sandbox.plan import Plan

Object = dict[str, Any]


class ClusterError(Exception):
    """The cluster refused, or did not answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Kubernetes:
    """The API server of a cluster. An async context manager."""

    def __init__(self, plan: Plan, url: str) -> None:
        self._url = url
        self._token = plan.aks_token
        self._trust = ssl.create_default_context(cafile=str(plan.ca_certificate))
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            self._url, headers={"Authorization": f"Bearer {self._token}"}
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def apply(self, manifest: Object) -> None:
        """Create an object, or change it to what `manifest` says."""
        path = await self._path(manifest)
        try:
            have = await self._call("GET", path)
        except ClusterError as error:
            if error.status != 404:
                raise
            await self._call("POST", path.rpartition("/")[0], manifest)
            return
        metadata = {**have["metadata"], **manifest["metadata"]}
        await self._call("PUT", path, {**manifest, "metadata": metadata})

    async def create(self, manifest: Object) -> None:
        """Create an object; one that is there stays as it is."""
        path = await self._path(manifest)
        try:
            await self._call("POST", path.rpartition("/")[0], manifest)
        except ClusterError as error:
            if error.status != 409:
                raise

    async def delete(self, manifest: Object) -> None:
        """Delete an object, if it is there."""
        try:
            await self._call("DELETE", await self._path(manifest))
        except ClusterError as error:
            if error.status != 404:
                raise

    async def all(self, api: str, kind: str, selector: str = "") -> list[Object]:
        """Return the objects of a kind in all namespaces; none where there is no such kind."""
        try:
            plural, _ = await self._resource(api, kind)
            query = {"labelSelector": selector} if selector else {}
            found = await self._call("GET", f"{_root(api)}/{plural}", query=query)
        except ClusterError as error:
            if error.status == 404:
                return []
            raise
        return [{**item, "apiVersion": api, "kind": kind} for item in found["items"]]

    async def until(
        self, path: str, query: Mapping[str, str], done: Callable[[Mapping[str, Object]], bool]
    ) -> None:
        """Return when `done` holds of the objects at `path`, by name; asked after each change."""
        while True:
            page = await self._call("GET", path, query=query)
            found = {item["metadata"]["name"]: item for item in page["items"]}
            since = {"watch": "true", "resourceVersion": page["metadata"]["resourceVersion"]}
            if done(found):
                return
            async with aclosing(self._watch(path, {**query, **since})) as events:
                async for event in events:
                    if event["type"] == "ERROR":
                        break  # too old by now: list again
                    _follow(found, event)
                    if done(found):
                        return

    async def _watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[Object]:
        try:
            async with self._session.get(path, params=query, ssl=self._trust) as response:
                async for line in response.content:
                    yield json.loads(line)
        except aiohttp.ClientError as error:
            raise ClusterError(f"the API server does not answer: {error}") from error

    async def _path(self, manifest: Object) -> str:
        api, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        plural, namespaced = await self._resource(api, kind)
        where = f"/namespaces/{metadata['namespace']}" if namespaced else ""
        return f"{_root(api)}{where}/{plural}/{metadata['name']}"

    async def _resource(self, api: str, kind: str) -> tuple[str, bool]:
        """Return the plural of a kind, and whether it lives in namespaces."""
        if (api, kind) not in self._plurals:
            listed = await self._call("GET", _root(api))
            for one in listed["resources"]:
                if "/" not in one["name"]:
                    self._plurals[api, one["kind"]] = one["name"], one["namespaced"]
        if (api, kind) not in self._plurals:
            raise ClusterError(f"the cluster has no {kind} in {api}", 404)
        return self._plurals[api, kind]

    async def _call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        sent = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            async with self._session.request(
                method, path, data=sent, headers=headers, params=query, ssl=self._trust
            ) as response:
                answer: Object = await response.json()
        except aiohttp.ClientError as error:
            raise ClusterError(f"the API server does not answer: {error}") from error
        if response.status >= 400:
            raise ClusterError(str(answer.get("message")), response.status)
        return answer


def _follow(found: dict[str, Object], event: Object) -> None:
    name = event["object"]["metadata"]["name"]
    if event["type"] == "DELETED":
        found.pop(name, None)
    else:
        found[name] = event["object"]


def _root(api: str) -> str:
    return f"/apis/{api}" if "/" in api else f"/api/{api}"
