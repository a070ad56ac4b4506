"""AKS's client of its cluster: a few calls of the Kubernetes API, as its own user."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager

from podidentity_sandbox.apiserver import ApiRefusal, ApiServer, Object
from podidentity_sandbox.plan import Plan

APPLY = "application/apply-patch+yaml"


class Kubernetes(ApiServer):
    """The API server of a cluster. An async context manager."""

    def __init__(self, plan: Plan, url: str) -> None:
        trust = ssl.create_default_context(cafile=str(plan.ca_certificate))
        super().__init__(url, trust, lambda: plan.aks_token, agent="aks/sandbox")
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    async def apply(self, manifest: Object) -> None:
        """Create an object, or change it to what `manifest` says; what it does not say stays."""
        path = await self._path(manifest)
        owner = {"fieldManager": "aks", "force": "true"}
        await self.request("PATCH", path, manifest, params=owner, content_type=APPLY)

    async def delete(self, manifest: Object) -> None:
        """Delete an object, if it is there."""
        with _unless(404):
            await self.request("DELETE", await self._path(manifest))

    async def all(self, api: str, kind: str, selector: str = "") -> list[Object]:
        """Return the objects of a kind in all namespaces; none where there is no such kind."""
        found: list[Object] = []
        with _unless(404):
            plural, _ = await self._resource(api, kind)
            query = {"labelSelector": selector} if selector else {}
            found = (await self.request("GET", f"{_root(api)}/{plural}", params=query))["items"]
        return [{**item, "apiVersion": api, "kind": kind} for item in found]

    async def until(
        self, path: str, query: Mapping[str, str], done: Callable[[Mapping[str, Object]], bool]
    ) -> None:
        """Return when `done` holds of the objects at `path`, by name; asked after each change."""
        while True:
            page = await self.request("GET", path, params=query)
            found = {item["metadata"]["name"]: item for item in page["items"]}
            since = {"resourceVersion": page["metadata"]["resourceVersion"]}
            if done(found):
                return
            with _unless(410):  # too old by now: list again
                async with aclosing(self.watch(path, {**query, **since})) as events:
                    async for event in events:
                        _follow(found, event)
                        if done(found):
                            return

    async def _path(self, manifest: Object) -> str:
        api, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        plural, namespaced = await self._resource(api, kind)
        where = f"/namespaces/{metadata['namespace']}" if namespaced else ""
        return f"{_root(api)}{where}/{plural}/{metadata['name']}"

    async def _resource(self, api: str, kind: str) -> tuple[str, bool]:
        """Return the plural of a kind, and whether it lives in namespaces."""
        if (api, kind) not in self._plurals:
            listed = await self.request("GET", _root(api))
            for one in listed["resources"]:
                if "/" not in one["name"]:
                    self._plurals[api, one["kind"]] = one["name"], one["namespaced"]
        if (api, kind) not in self._plurals:
            raise ApiRefusal(404, "NotFound", f"the cluster has no {kind} in {api}")
        return self._plurals[api, kind]


@contextmanager
def _unless(status: int) -> Iterator[None]:
    """Let a refusal of that status go."""
    try:
        yield
    except ApiRefusal as error:
        if error.status != status:
            raise


def _follow(found: dict[str, Object], event: Object) -> None:
    name = event["object"]["metadata"]["name"]
    if event["type"] == "DELETED":
        found.pop(name, None)
    else:
        found[name] = event["object"]


def _root(api: str) -> str:
    return f"/apis/{api}" if "/" in api else f"/api/{api}"
