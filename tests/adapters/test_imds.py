from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from podidentity.adapters.imds import AT_ONCE, Imds
from podidentity.core.errors import TokenRefused, TokenSourceDown
from podidentity.core.ports import Origin
from tests.adapters.scripted import Conversation, Script, Turn, answers, cuts, hangs, scripted
from tests.fakes import CLIENT, NOW, VAULT, FakeClock, identity, jwt

TOKEN = {
    "access_token": jwt(appid=CLIENT),
    "client_id": CLIENT,
    "expires_in": "86399",
    "expires_on": str(int(NOW) + 86_399),
    "not_before": str(int(NOW)),
    "resource": VAULT,
    "token_type": "Bearer",
}


@asynccontextmanager
async def asked(*turns: Turn, seconds: float = 5.0) -> AsyncIterator[tuple[Imds, Script]]:
    async with scripted(*turns) as server:
        imds = Imds.connect(
            "127.0.0.1", server.port, clock=FakeClock(), user_agent="ours/1", seconds=seconds
        )
        try:
            yield imds, server
        finally:
            await imds.close()


async def test_a_token_is_asked_for_as_imds_wants_it_and_nothing_more_is_said() -> None:
    async with asked(answers(TOKEN)) as (imds, server):
        token, origin = await imds.fetch(identity(), VAULT)
    assert (token.value, origin) == (TOKEN["access_token"], Origin.IMDS)
    lines = server.asked[0].head.strip().split("\r\n")
    assert lines[0] == (
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01"
        f"&resource=https%3A%2F%2Fvault.azure.net&client_id={CLIENT} HTTP/1.1"
    )
    names = {line.split(":")[0].lower() for line in lines[1:]}
    assert names == {"host", "accept", "accept-encoding", "connection", "metadata", "user-agent"}
    assert "Metadata: true" in lines


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with asked(answers(TOKEN)) as (imds, _):
        await imds.fetch(identity(), VAULT)


async def test_what_imds_refuses_is_refused() -> None:
    body = {"error": "invalid_resource", "error_description": "AADSTS500011: unknown"}
    async with asked(answers(body, 400)) as (imds, _):
        with pytest.raises(TokenRefused, match="AADSTS500011"):
            await imds.fetch(identity(), "https://unknown")


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        (cuts, "cannot be asked"),
        (answers(b"<html>"), "no JSON object"),
        (answers(b"x" * 2_000_000), "more than 1048576 bytes"),
        (answers(b"", 503), "503"),
    ],
    ids=["resets", "rubbish", "endless", "down"],
)
async def test_an_imds_that_resets_or_answers_rubbish_is_down(turn: Turn, why: str) -> None:
    async with asked(turn) as (imds, _):
        with pytest.raises(TokenSourceDown, match=why):
            await imds.fetch(identity(), VAULT)


async def test_an_imds_that_hangs_is_waited_for_no_longer_than_said() -> None:
    async with asked(hangs, seconds=0.05) as (imds, _):
        with pytest.raises(TokenSourceDown, match=r"within 0\.05 s"):
            await imds.fetch(identity(), VAULT)


async def test_an_imds_that_is_not_there_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    imds = Imds.connect("127.0.0.1", port, clock=FakeClock(), user_agent="t")
    with pytest.raises(TokenSourceDown, match="cannot be asked"):
        await imds.fetch(identity(), VAULT)
    await imds.close()


async def test_an_identity_without_a_client_id_is_not_asked_for() -> None:
    async with asked(answers(TOKEN)) as (imds, server):
        with pytest.raises(TokenSourceDown, match="no client id"):
            await imds.fetch(identity(client_id=None), VAULT)
    assert server.asked == []


async def test_a_kept_connection_that_imds_closes_costs_no_request() -> None:
    async with asked(answers(TOKEN), cuts, answers(TOKEN)) as (imds, server):
        await imds.fetch(identity(), VAULT)
        await imds.fetch(identity(), VAULT)
    assert len(server.asked) == 3


async def test_never_more_than_five_are_asked_at_once() -> None:
    full, go = asyncio.Event(), asyncio.Event()

    async def turn(conversation: Conversation) -> None:
        if server.open == AT_ONCE:
            full.set()
        await go.wait()
        await conversation.answer(TOKEN)

    async with asked(turn) as (imds, server):
        asking = [asyncio.ensure_future(imds.fetch(identity(), f"r{n}")) for n in range(20)]
        await full.wait()
        go.set()
        await asyncio.gather(*asking)
    assert (server.most_open, len(server.asked)) == (AT_ONCE, 20)


async def test_metadata_is_passed_on_with_status_and_type() -> None:
    turn = answers(b"westeurope", 404, more="Content-Type: text/plain\r\nServer: IMDS\r\n")
    async with asked(turn) as (imds, server):
        found = await imds.metadata("/metadata/instance?format=text", "text/plain")
    assert (found.status, found.content_type, found.body) == (404, "text/plain", b"westeurope")
    assert server.asked[0].target == "/metadata/instance?format=text"
    assert "Accept: text/plain" in server.asked[0].head
    assert json.dumps("X-Forwarded-For") not in server.asked[0].head
