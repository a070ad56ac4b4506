"""An API server that reviews as a test tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from podidentity.adapters.permissions import RbacPermissions
from podidentity.core.ids import ObjectRef
from podidentity.core.permission import Use
from podidentity.wire.kube import KubeError
from tests.fakes import CLIENT, FakeKubeApi

USE = Use(ObjectRef("shop", "web"), CLIENT)
YES, NO = {"allowed": True}, {"allowed": False}
NIGHT = 12 * 3600.0


class Server(FakeKubeApi):
    """Answers reviews with a status, or as badly as a test wants."""

    def __init__(self) -> None:
        self.says: Mapping[str, Any] | bytes | Exception = YES
        self.asked: list[Any] = []
        self.open = asyncio.Event()
        self.open.set()

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        self.asked.append(body["spec"])
        await self.open.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return (
            self.says
            if isinstance(self.says, bytes)
            else json.dumps({"status": self.says}).encode()
        )


async def flown(permissions: RbacPermissions) -> None:
    """Return when no question is under way."""
    while flights := list(permissions._flights.values()):
        await asyncio.gather(*flights, return_exceptions=True)


ABSENT = KubeError("The API server cannot be asked: refused.")
