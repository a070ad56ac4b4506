"""A reflector against an API server that says what a test tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from podidentity.adapters.kube import Kube
from podidentity.adapters.reflector import Reflector, Source
from podidentity.core.ids import ObjectRef
from tests.adapters.scripted import (
    Conversation,
    Script,
    Turn,
    answers,
    hangs,
    scripted,
)
from tests.fakes import FakeClock, ImpatientClock


class Told:
    """What a source was told, and a way to wait for it."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.lists = 0
        self._changed = asyncio.Event()

    def put(self, raw: msgspec.Raw) -> None:
        found = json.loads(bytes(raw))
        if found.get("unreadable"):
            raise ValueError("it is unreadable")
        if found.get("defect"):
            raise RecursionError("nobody thought of this")
        self.known[found["metadata"]["name"]] = found.get("value")
        self._changed.set()

    def remove(self, ref: ObjectRef) -> None:
        self.known.pop(ref.name, None)
        self._changed.set()

    def listed(self) -> None:
        self.lists += 1
        self._changed.set()

    async def until(self, known: dict[str, Any], lists: int = 0) -> None:
        """Return when exactly these objects are known, after so many lists."""
        while self.known != known or self.lists < lists:
            self._changed.clear()
            await self._changed.wait()


def thing(name: str, version: str = "", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n", "resourceVersion": version}, **more}


def listing(version: str, *objects: dict[str, Any]) -> Turn:
    return answers({"metadata": {"resourceVersion": version}, "items": list(objects)})


def watching(*events: tuple[str, dict[str, Any]], then: str = "hang") -> Turn:
    """Return a turn that sends these events and then hangs, ends, or is cut off."""

    async def turn(conversation: Conversation) -> None:
        await conversation.begin()
        for kind, content in events:
            await conversation.event(kind, **content)
        if then == "hang":
            await hangs(conversation)
        elif then == "end":
            await conversation.end()
        else:
            conversation.cut()

    return turn


@asynccontextmanager
async def reflected(
    folder: Path, *turns: Turn, clock: FakeClock | None = None
) -> AsyncIterator[tuple[Told, Reflector, Script]]:
    """Run a reflector against a scripted API server."""
    told = Told()
    async with scripted(*turns) as server:
        config: dict[str, Any] = {"clusters": [{"name": "c", "cluster": {"server": server.url}}]}
        config |= {"contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}
        path = folder / "config"
        path.write_text(json.dumps(config))
        kube = Kube.connect(str(path), user_agent="t", trust_env=False)
        source = Source(
            what="things",
            path="/things",
            params={"fieldSelector": "a=b"},
            put=told.put,
            remove=told.remove,
            listed=told.listed,
        )
        reflector = Reflector(kube, source, clock=clock or ImpatientClock(), jitter=lambda: 1.0)
        running = asyncio.create_task(reflector.run())
        try:
            yield told, reflector, server
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await kube.close()
