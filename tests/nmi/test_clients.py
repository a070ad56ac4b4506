"""What each client must get for what it really sends."""

from __future__ import annotations

import json

import pytest

from podidentity.core.resources import ClientId, ObjectId
from tests.fakes import CLIENT, NOW, OTHER_CLIENT, VAULT, binding, identity, pod
from tests.nmi.agents import agent
from tests.nmi.clients import ASKED_WITH_SLASH, OBJECT, PATH, PROBES, TOKEN_REQUESTS
from tests.nmi.talking import talking

OBJECTS = (
    pod(addresses=("127.0.0.1",)),
    identity(object_id=ObjectId.parse(OBJECT)),
    binding(),
    identity("heavier", client_id=ClientId.parse(OTHER_CLIENT), resource_id=None),
)


@pytest.mark.parametrize("name", TOKEN_REQUESTS)
async def test_a_clients_request_gets_the_eight_strings(name: str) -> None:
    request = TOKEN_REQUESTS[name]
    async with agent(*OBJECTS) as nmi:
        reply = await nmi.ask(f"{request}\nHost: 169.254.169.254\nMetadata: true")
    assert reply.status == 200, reply.body
    assert reply.header("Content-Type") == ["application/json"]
    assert list(reply.json.items()) == [
        ("access_token", "token-1"),
        ("client_id", CLIENT),
        ("expires_in", "86399"),
        ("expires_on", str(int(NOW) + 86_399)),
        ("ext_expires_in", "86399"),
        ("not_before", str(int(NOW))),
        ("resource", VAULT + ("/" if name in ASKED_WITH_SLASH else "")),
        ("token_type", "Bearer"),
    ]
    assert reply.body == json.dumps(reply.json, separators=(",", ":")).encode()


@pytest.mark.parametrize("known", [None, CLIENT])
async def test_an_object_id_is_only_ever_answered_with_its_own_identity(known: str | None) -> None:
    object_id = ObjectId.parse(known) if known else None
    async with agent(OBJECTS[0], identity(object_id=object_id), binding()) as nmi:
        request = f"GET {PATH}?resource={VAULT}&object_id={OBJECT} HTTP/1.1"
        reply = await nmi.ask(f"{request}\nHost: 169.254.169.254\nMetadata: true")
        assert nmi.tokens.asked == []
    assert (reply.status, reply.json["error"]) == (400, "invalid_request")
    assert reply.json["error_description"].startswith("Identity not found: ")
    assert f"It may use: orders ({CLIENT})" in reply.json["error_description"]


@pytest.mark.parametrize("name", PROBES)
async def test_a_probe_gets_400_at_once_and_waits_for_nothing(name: str) -> None:
    unknown = pod(addresses=("10.0.0.1",))
    async with agent(unknown) as nmi:
        reply = await nmi.ask(f"{PROBES[name]}\nHost: 169.254.169.254")
        assert nmi.clock.slept == []
    assert reply.status == 400
    assert reply.json["error"] == "invalid_request"
    assert "Identity not found" not in reply.json["error_description"]
    assert reply.header("Retry-After") == []


@pytest.mark.parametrize("header", ["", "\nMetadata: true"])
@pytest.mark.parametrize("name", ["getplatformmetadata", "issuecredential"])
async def test_imds_v2_is_not_offered(name: str, header: str) -> None:
    """MSAL takes a 400 for `IMDSv2 is there`, and anything but 404 for more of an answer."""
    for method in ("GET", "POST"):
        async with agent() as nmi:
            reply = await nmi.ask(
                f"{method} /metadata/identity/{name}?cred-api-version=2.0 HTTP/1.1\nHost: x{header}"
            )
        assert reply.status == 404
        assert nmi.metadata.asked == []


@pytest.mark.parametrize("value", ["true", "True", "TRUE", " true "])
async def test_the_header_counts_in_any_case(value: str) -> None:
    async with agent() as nmi:
        reply = await nmi.ask(f"GET {PATH}?resource=a HTTP/1.1\nHost: x\nmetadata:{value}")
    assert reply.status == 200


@pytest.mark.parametrize("header", ["Metadata: false", "Metadata:", "Metadata: true, true", "X: y"])
async def test_another_value_of_the_header_is_none(header: str) -> None:
    async with agent() as nmi:
        reply = await nmi.ask(f"GET {PATH}?resource=a HTTP/1.1\nHost: x\n{header}")
    assert reply.status == 400
    assert reply.body == (
        b'{"error":"invalid_request","error_description":"Required metadata header not specified"}'
    )


GET = f"GET {PATH}?resource={VAULT} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n"


@pytest.mark.parametrize(
    "body",
    [
        "Content-Length: 0\r\n\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=b",
        "Transfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n",
    ],
    ids=["empty", "form", "chunked"],
)
async def test_a_body_is_of_no_account_and_the_next_request_is_understood(body: str) -> None:
    async with agent() as nmi, talking(nmi.listener) as talk:
        for _ in range(2):
            assert (await talk.ask((GET + body).encode())).status == 200


@pytest.mark.parametrize("name", ["azure-identity's chain", "@azure/identity's chain"])
async def test_a_probe_and_the_request_behind_it_go_over_one_connection(name: str) -> None:
    probe = PROBES[name].replace("\n", "\r\n") + "\r\nHost: x\r\n\r\n"
    async with agent() as nmi, talking(nmi.listener) as talk:
        reply = await talk.ask(probe.encode())
        assert (reply.status, reply.header("Connection")) == (400, [])
        assert (await talk.ask(f"{GET}\r\n".encode())).status == 200


async def test_a_probe_that_only_connects_leaves_no_line() -> None:
    """So azure-identity for Java looks whether IMDS is there."""
    async with agent() as nmi:
        async with talking(nmi.listener):
            pass
        async with talking(nmi.listener) as talk:
            assert (await talk.ask(f"{GET}\r\n".encode())).status == 200
        assert [line["message"] for line in nmi.record.lines] == ["token given"]


@pytest.mark.parametrize("offer", ["h2c", "websocket", "HTTP/2.0, h2c"])
async def test_an_offer_of_another_protocol_is_answered_in_http_1(offer: str) -> None:
    more = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {offer}\r\nHTTP2-Settings: AAEA\r\n"
    async with agent() as nmi, talking(nmi.listener) as talk:
        for _ in range(2):
            reply = await talk.ask(f"{GET}{more}\r\n".encode())
            assert (reply.status, reply.header("Upgrade")) == (200, [])


async def test_the_probe_of_appauthentication_has_any_answer_at_once() -> None:
    request = "GET /metadata/instance?api-version=2020-06-01 HTTP/1.1\nHost: x\nMetadata: true"
    async with agent() as nmi:
        assert (await nmi.ask(request)).status == 200
        assert nmi.clock.slept == []
