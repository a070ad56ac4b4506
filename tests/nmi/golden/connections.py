"""What is no request, or one that our own defect spoils: answered, and the connection closed."""

from __future__ import annotations

from podidentity.nmi.server.messages import Request, Response
from tests.nmi.golden.situation import heard
from tests.nmi.talking import listening, talking

SENT = {
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "HTTP/2 without an offer": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a head of more than 16 KiB": b"GET / HTTP/1.1\r\nX: " + b"a" * (16 << 10) + b"\r\n\r\n",
    "a body of more than 64 KiB": b"GET / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n"
    + b"a" * 65_537,
    "a defect of the agent": b"GET / HTTP/1.1\r\n\r\n",
}


async def _broken(request: Request) -> Response:
    raise RuntimeError(f"a defect at {request.target}")


async def answered(title: str) -> bytes:
    """Return what is answered to the bytes of that title."""
    async with listening(_broken) as listener, talking(listener) as talk:
        await talk.say(SENT[title])
        return await heard(talk)
