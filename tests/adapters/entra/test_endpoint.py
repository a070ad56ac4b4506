from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from podidentity.adapters.entra.endpoint import TokenEndpoint
from podidentity.core.errors import TokenSourceDown
from podidentity.wire.entra import LONGEST_ANSWER
from tests.adapters.scripted import Turn, answers, cuts, hangs, scripted

FORM = b"client_secret=s3cret"


@asynccontextmanager
async def opened(seconds: float = 5.0) -> AsyncIterator[TokenEndpoint]:
    endpoint = TokenEndpoint(user_agent="ours/1", seconds=seconds)
    try:
        yield endpoint
    finally:
        await endpoint.close()


async def test_a_form_is_posted_and_nothing_more_is_said() -> None:
    async with scripted(answers({"a": 1}, 400, "Retry-After: 7\r\n")) as server, opened() as entra:
        reply = await entra.post(f"{server.url}/t/oauth2/v2.0/token", FORM)
    assert (reply.status, reply.body, reply.retry_after) == (400, b'{"a": 1}', "7")
    (asked,) = server.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/t/oauth2/v2.0/token", FORM)
    names = {line.split(":")[0].lower() for line in asked.head.strip().split("\r\n")[1:]}
    assert names == {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
    }
    assert "s3cret" not in repr(reply)


async def test_a_redirect_is_not_followed() -> None:
    async with scripted(answers(b"elsewhere")) as elsewhere, opened() as entra:
        turn = answers(b"", 307, f"Location: {elsewhere.url}/take\r\n")
        async with scripted(turn) as server:
            assert (await entra.post(server.url, FORM)).status == 307
    assert elsewhere.asked == []


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with scripted(answers({})) as server, opened() as entra:
        assert (await entra.post(server.url, FORM)).status == 200


async def test_a_kept_connection_that_is_closed_costs_no_request() -> None:
    async with scripted(answers({}), cuts, answers({})) as server, opened() as entra:
        await entra.post(server.url, FORM)
        await entra.post(server.url, FORM)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("turn", "seconds", "why"),
    [
        (hangs, 0.2, "did not answer within 0.2 s"),
        (cuts, 60, "cannot be asked"),
        (answers(b"x" * (LONGEST_ANSWER + 1)), 60, f"sent more than {LONGEST_ANSWER} bytes"),
    ],
    ids=["hangs", "resets", "never ends"],
)
async def test_what_fails_is_named_and_says_nothing_of_the_secret(
    turn: Turn, seconds: float, why: str
) -> None:
    async with scripted(turn) as server, opened(seconds=seconds) as entra:
        with pytest.raises(TokenSourceDown, match=why) as caught:
            await entra.post(f"{server.url}/t", FORM)
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_nobody_there_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with opened() as entra:
        with pytest.raises(TokenSourceDown, match="cannot be asked"):
            await entra.post(f"http://127.0.0.1:{port}", FORM)


async def test_the_machines_authorities_are_read_at_first_use_only() -> None:
    asked = 0

    def trust() -> ssl.SSLContext:
        nonlocal asked
        asked += 1
        return ssl.create_default_context()

    endpoint = TokenEndpoint(user_agent="ours/1", trust=trust)
    assert asked == 0
    async with scripted(answers({})) as server:
        for _ in range(2):
            await endpoint.post(server.url, FORM)
    assert asked == 1
    await endpoint.close()
    await TokenEndpoint(user_agent="ours/1").close()
