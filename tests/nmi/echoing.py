"""A handler that answers with what it was asked, when it is allowed to."""

from __future__ import annotations

import asyncio

from podidentity.nmi.server.messages import Request, Response

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


class Echo:
    """Answers with what it was asked, when it is allowed to."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.ended: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        self.begun.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.ended.append(request.target)
        return Response(200, f"{request.method} {request.target}".encode(), "text/plain")
