"""Static pods without a node: files in a folder, and their mirrors in an API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from podidentity_sandbox.apiserver import ApiRefusal
from podidentity_sandbox.node.api import ApiClient
from podidentity_sandbox.node.cri import static
from podidentity_sandbox.world.blueprint import Shape, draw_plan
from tests.sandbox.node.site import container, pod
from tests.sandboxes import own

NODE = draw_plan(own("static"), Path("/nowhere"), Shape(nodes=1)).nodes[0]
MIRROR = f"/api/v1/namespaces/default/pods/one-{NODE.name}"
PATIENCE = 60.0
"""Seconds of what must come to pass: only a test that fails uses them up."""


class Server:
    """Pods of an API server, which a kubelet ends at once or when it is told to."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.ends_at_once = True
        self._asked = asyncio.Event()

    async def request(
        self, method: str, path: str, body: Any = None, *, params: Any = None
    ) -> dict[str, Any]:
        await asyncio.sleep(0)
        self._asked.set()
        if path.startswith("/api/v1/nodes/"):
            return {"metadata": {"uid": "of the node"}}
        if method == "GET":
            assert params == {"fieldSelector": f"spec.nodeName={NODE.name}"}
            return {"items": list(self.pods.values())}
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.pods:
                raise ApiRefusal(409, "AlreadyExists", path)
            self.pods[path] = body
            return cast("dict[str, Any]", body)
        assert method == "DELETE"
        if self.ends_at_once:
            return self.pods.pop(path)
        self.pods[path]["metadata"]["deletionTimestamp"] = "now"
        return self.pods[path]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self._asked.clear()
                await self._asked.wait()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(static, "MANIFESTS", tmp_path)
    monkeypatch.setattr(static, "_LOOK", 0.0)
    return tmp_path


@asynccontextmanager
async def followed(server: Server) -> AsyncIterator[None]:
    following = asyncio.create_task(static.StaticPods(cast("ApiClient", server), NODE).run())
    try:
        yield
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


def manifest(**spec: Any) -> str:
    return json.dumps(pod("one", container(**spec)))


def image(server: Server) -> str:
    return str(server.pods[MIRROR]["spec"]["containers"][0]["image"])


async def test_a_static_pod_goes_with_its_file_and_comes_again_with_it(folder: Path) -> None:
    server = Server()
    async with followed(server):
        for _ in range(2):
            (folder / "one.yaml").write_text(manifest())
            await server.until(lambda: MIRROR in server.pods)
            (folder / "one.yaml").unlink()
            await server.until(lambda: not server.pods)


async def test_another_manifest_is_another_pod_which_comes_when_the_one_before_has_ended(
    folder: Path,
) -> None:
    server = Server()
    server.ends_at_once = False
    async with followed(server):
        (folder / "one.yaml").write_text(manifest(image="before"))
        await server.until(lambda: MIRROR in server.pods)
        (folder / "one.yaml").write_text(manifest(image="after"))
        await server.until(lambda: "deletionTimestamp" in server.pods[MIRROR]["metadata"])
        assert image(server) == "before"
        del server.pods[MIRROR]
        await server.until(lambda: MIRROR in server.pods)
        assert image(server) == "after"


async def test_a_kubelet_that_starts_ends_the_static_pods_whose_files_are_gone_and_no_others(
    folder: Path,
) -> None:
    server = Server()
    (folder / "one.yaml").write_text(manifest())
    async with followed(server):
        await server.until(lambda: MIRROR in server.pods)
    (folder / "one.yaml").unlink()
    other = pod("other", container())
    server.pods["/api/v1/namespaces/default/pods/other"] = other
    async with followed(server):
        await server.until(lambda: MIRROR not in server.pods)
    assert list(server.pods.values()) == [other]
