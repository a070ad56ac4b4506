"""A listener that encrypts: its clients are served, and handshakes cost others nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest

from podidentity.adapters.server_certificate import ServerCertificate
from podidentity.nmi.server.listener import (
    FOR_LOOKS,
    HANDSHAKES_AT_ONCE,
    HANDSHAKES_PER_SECOND,
    Listener,
)
from podidentity.nmi.server.messages import Request, Response
from tests.fakes import FakeClock
from tests.nmi.talking import started_listener

PAGE = b"x" * 3_000_000
GET = b"GET /metrics HTTP/1.1\r\nHost: n\r\n\r\n"


async def page(_: Request) -> Response:
    return Response(200, PAGE, "text/plain")


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    clock, certificate = FakeClock(), ServerCertificate("n1")
    running = asyncio.create_task(certificate.run(clock))
    await clock.somebody_sleeps()
    made = started_listener(page, limits=FOR_LOOKS, tls=certificate.context)
    yield made
    await made.close(0.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def ended(listener: Listener) -> None:
    """Return when a connection that was begun is gone: it may not have been accepted yet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=trusting())
    writer.write(b"GET / HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    await listener.empty()


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def test_a_client_reads_a_large_page_and_another_on_the_same_connection(
    listener: Listener,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=trusting())
    for _ in range(2):
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(len(PAGE)) == PAGE
    writer.close()
    await listener.empty()


async def test_what_is_no_request_is_answered_and_closed(listener: Listener) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=trusting())
    writer.write(b"nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    await listener.empty()


@pytest.mark.parametrize("sent", [GET, b"\x16\x03\x01\x00\x05rubbish", b""])
async def test_a_client_without_tls_leaves_no_connection_behind(
    listener: Listener, sent: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(sent)
    if sent:
        assert PAGE[:10] not in await reader.read()
    writer.close()
    await ended(listener)


async def test_an_address_has_few_handshakes(listener: Listener) -> None:
    served, began = 0, asyncio.get_running_loop().time()
    for _ in range(50):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=trusting())
        except OSError:
            continue
        served += 1
        writer.close()
    took = asyncio.get_running_loop().time() - began
    assert HANDSHAKES_AT_ONCE <= served <= HANDSHAKES_AT_ONCE + HANDSHAKES_PER_SECOND * took
