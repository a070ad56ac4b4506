"""Nodes that tell exceptions of their effect, and the API server that they all watch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from podidentity.adapters.cluster import WatchedCluster
from podidentity.core.usability import STRICT, Rules
from podidentity.nmi.conditions import EFFECTIVE, SPREAD, Conditions
from podidentity.wire.conditions import parse_said
from podidentity.wire.kube import KubeError
from podidentity.wire.manifests import parse_exception
from tests.fakes import FakeClock, pod

WEB = {"tier": "web"}
CONFLICT = KubeError("it has changed", status=409, reason="Conflict")
PATH = "/apis/aadpodidentity.k8s.io/v1/namespaces/shop/azurepodidentityexceptions/"


class Board:
    """An API server of exceptions, or one that fails as told."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.watching: list[Node] = []
        self.writes: list[tuple[str, Any]] = []
        self.asked = 0
        self.failures: list[KubeError] = []

    async def get(self, path: str) -> bytes:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return json.dumps(self.held[path.removeprefix(PATH)]).encode()

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        name, _, sub = path.removeprefix(PATH).partition("/")
        assert sub == "status"
        found = self.held[name]
        if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            raise CONFLICT
        [condition] = body["status"]["conditions"]
        self.writes.append((condition["status"], condition["reason"]))
        self.put(name, found["spec"], body["status"], found["metadata"]["generation"])
        return b"{}"

    def put(self, name: str, spec: Any = None, status: Any = None, generation: int = 1) -> None:
        """Store an object, and let all who watch see it."""
        version = str(len(self.writes) + 10 * generation)
        meta = {"namespace": "shop", "name": name, "uid": f"uid-{name}", "generation": generation}
        spec = {"podLabels": WEB} if spec is None else spec
        self.held[name] = {
            "metadata": meta | {"resourceVersion": version},
            "spec": spec,
            "status": status,
        }
        for node in self.watching:
            node.see(name)


class Node:
    """The agent of a node; its watch tells at once."""

    def __init__(self, board: Board, clock: FakeClock, name: str, rules: Rules) -> None:
        self.board = board
        self.cluster = WatchedCluster(clock)
        self.conditions = Conditions(board, self.cluster, clock, rules=rules, node=name)
        board.watching.append(self)

    def see(self, name: str) -> None:
        raw = json.dumps(self.board.held[name]).encode()
        found = parse_exception(raw)
        self.cluster.put(found)
        self.conditions.seen(found, parse_said(raw, EFFECTIVE))

    def starts(self, name: str = "orders-0", **facts: Any) -> None:
        self.cluster.put_pod(pod(name, **({"labels": WEB} | facts)))


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.board = Board()
        self.tasks: list[asyncio.Task[None]] = []

    def node(self, name: str = "n1", rules: Rules = STRICT) -> Node:
        made = Node(self.board, self.clock, name, rules)
        self.tasks.append(asyncio.create_task(made.conditions.run()))
        return made

    async def after(self, seconds: float = SPREAD) -> None:
        """Let this time pass in small steps, as it does."""
        for _ in range(20):
            for _ in range(20):
                await asyncio.sleep(0)
            self.clock.advance(seconds / 20)
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    found = World()
    yield found
    for task in found.tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
