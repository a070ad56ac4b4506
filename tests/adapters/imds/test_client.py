from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest

from podidentity.adapters.imds import AT_ONCE, Imds
from podidentity.adapters.imds.client import RECONNECT_SECONDS
from podidentity.core.errors import TokenRefused, TokenSourceDown
from podidentity.core.rate_limits import Flow
from podidentity.core.resources import ClientId, ObjectId, ObjectRef
from podidentity.core.tokens import AccessToken
from tests.adapters.scripted import Conversation, Script, Turn, answers, cuts, hangs, scripted
from tests.fakes import CLIENT, NOW, OTHER_CLIENT, RESOURCE_ID, VAULT, FakeClock, grant, identity
from tests.jwts import jwt

FLOW = Flow("", "10.244.0.2")
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
        token = await imds.issue(grant(), VAULT)
    assert token.value == TOKEN["access_token"]
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
        await imds.issue(grant(), VAULT)


async def test_what_imds_refuses_is_refused() -> None:
    body = {"error": "invalid_resource", "error_description": "AADSTS500011: unknown"}
    async with asked(answers(body, 400)) as (imds, _):
        with pytest.raises(TokenRefused, match="AADSTS500011"):
            await imds.issue(grant(), "https://unknown")


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
            await imds.issue(grant(), VAULT)


async def test_an_imds_that_hangs_is_waited_for_no_longer_than_said() -> None:
    async with asked(hangs, seconds=0.05) as (imds, _):
        with pytest.raises(TokenSourceDown, match=r"within 0\.05 s"):
            await imds.issue(grant(), VAULT)


@asynccontextmanager
async def unreachable() -> AsyncIterator[tuple[asyncio.Task[AccessToken], FakeClock, int]]:
    """Yield a request to a port where nothing listens, after its first attempt."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    clock = FakeClock()
    imds = Imds.connect("127.0.0.1", port, clock=clock, user_agent="t")
    asking = asyncio.create_task(imds.issue(grant(), VAULT))
    await clock.somebody_slept(RECONNECT_SECONDS, 1)
    yield asking, clock, port
    await imds.close()


async def test_an_imds_that_is_not_there_is_down() -> None:
    async with unreachable() as (asking, clock, _):
        clock.advance(RECONNECT_SECONDS)
        with pytest.raises(TokenSourceDown, match="cannot be asked"):
            await asking


async def test_an_imds_that_could_not_be_reached_for_a_moment_is_asked_again() -> None:
    async with unreachable() as (asking, clock, port), scripted(answers(TOKEN), port=port):
        clock.advance(RECONNECT_SECONDS)
        assert (await asking).value == TOKEN["access_token"]


async def test_an_identity_is_asked_for_by_its_resource_id_where_it_has_no_client_id() -> None:
    token = TOKEN | {"access_token": jwt(appid=CLIENT, xms_mirid=RESOURCE_ID)}
    async with asked(answers(token)) as (imds, server):
        await imds.issue(grant(identity(client_id=None)), VAULT)
    assert f"&msi_res_id={quote(RESOURCE_ID, safe='')} HTTP/1.1" in server.asked[0].head


async def test_what_decides_which_token_it_is_differs_wherever_the_answer_may_differ() -> None:
    whom = [
        identity(),
        identity(client_id=ClientId.parse(OTHER_CLIENT)),
        identity(resource_id=None),
        identity(client_id=None),
        identity(client_id=None, resource_id=None, object_id=ObjectId.parse(CLIENT)),
        identity(client_id=None, resource_id=None, system_assigned=True),
    ]
    async with asked(answers(TOKEN)) as (imds, _):
        keys = {imds.credential(grant(each)) for each in whom}
        assert len(keys) == len(whom)
        renamed = identity("another", ref=ObjectRef("bank", "another"))
        assert imds.credential(grant(renamed)) == await imds.ready(grant())


async def test_a_kept_connection_that_imds_closes_costs_no_request() -> None:
    async with asked(answers(TOKEN), cuts, answers(TOKEN)) as (imds, server):
        await imds.issue(grant(), VAULT)
        await imds.issue(grant(), VAULT)
    assert len(server.asked) == 3


async def test_never_more_than_five_are_asked_at_once() -> None:
    full, go = asyncio.Event(), asyncio.Event()

    async def turn(conversation: Conversation) -> None:
        if server.open == AT_ONCE:
            full.set()
        await go.wait()
        await conversation.answer(TOKEN)

    async with asked(turn) as (imds, server):
        asking = [asyncio.ensure_future(imds.issue(grant(), f"r{n}")) for n in range(20)]
        await full.wait()
        go.set()
        await asyncio.gather(*asking)
    assert (server.most_open, len(server.asked)) == (AT_ONCE, 20)


async def test_metadata_is_passed_on_with_status_and_type() -> None:
    turn = answers(b"westeurope", 404, more="Content-Type: text/plain\r\nServer: IMDS\r\n")
    async with asked(turn) as (imds, server):
        found = await imds.metadata("/metadata/instance?format=text", "text/plain", FLOW)
    assert (found.status, found.content_type, found.body) == (404, "text/plain", b"westeurope")
    assert server.asked[0].target == "/metadata/instance?format=text"
    assert "Accept: text/plain" in server.asked[0].head
    assert json.dumps("X-Forwarded-For") not in server.asked[0].head


@pytest.mark.parametrize("accept", ["", " ", "\xff", "a\tb", "text/plain\x00"])
async def test_headers_that_nobody_can_send_are_not_passed_on(accept: str) -> None:
    turn = answers(b"westeurope", more="Content-Type: text/\u20ac\r\n")
    async with asked(turn) as (imds, server):
        found = await imds.metadata("/metadata/instance", accept, FLOW)
    assert (found.content_type, found.body) == ("application/json", b"westeurope")
    assert "Accept: */*" in server.asked[0].head
