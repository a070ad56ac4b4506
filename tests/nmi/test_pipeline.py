from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Any

import pytest

from podidentity.core.attestation import Verdict
from podidentity.core.errors import TokenRefused, TokenSourceDown, TokenThrottled
from podidentity.core.resources import Authority, Entra, IdentityType, ObjectRef, Tenant
from podidentity.wire.imds import TOKEN_PATH, AllowList, MetadataAnswer
from tests.fakes import VAULT, binding, identity, pod
from tests.nmi.agents import agent
from tests.nmi.talking import talking

HEADERS = "HTTP/1.1\nHost: x\nMetadata: true"
TOKEN = f"GET /metadata/identity/oauth2/token?resource={VAULT} {HEADERS}"
HERE = ("127.0.0.1",)


async def test_a_token_leaves_one_line_that_says_who_got_what_and_from_where() -> None:
    async with agent() as nmi:
        nmi.clock.advance(1.5)
        await nmi.ask(TOKEN)
    (line,) = nmi.record.lines
    assert line == {
        "time": "2026-11-25T09:46:41.500Z",
        "level": "info",
        "logger": "podidentity.request",
        "message": "token given",
        "ms": 0.0,
        "status": 200,
        "address": "127.0.0.1",
        "pod": "orders-0",
        "namespace": "shop",
        "identity": "orders",
        "client_id": "11111111-2222-3333-4444-555555555555",
        "resource": VAULT,
        "source": "imds",
    }


async def test_a_refusal_leaves_one_line_with_its_reason_for_the_operator() -> None:
    elsewhere = binding(ref=ObjectRef("bank", "b"))
    async with agent(pod(addresses=HERE), identity(), elsewhere) as nmi:
        reply = await nmi.ask(TOKEN)
    (line,) = nmi.record.lines
    assert (line["status"], line["reason"], line["level"]) == (404, "OtherNamespace", "warning")
    assert (line["pod"], line["namespace"]) == ("orders-0", "shop")
    assert "bank" in line["message"], "the operator must know"
    assert "bank" not in reply.body.decode(), "the pod must not"


async def test_long_words_of_a_tenant_are_cut_in_answer_log_event_and_audit() -> None:
    long = Entra(tenant=Tenant("contoso.com"), authority=Authority(f"https://{'x' * 500_000}"))
    named = identity(type=IdentityType.SERVICE_PRINCIPAL, resource_id=None, entra=long)
    async with agent(pod(addresses=HERE), named, binding()) as nmi:
        reply = await nmi.ask(TOKEN)
    (line,), (record,) = nmi.record.lines, nmi.record.audit
    assert (line["reason"], record["reason"]) == ("UnknownAuthority", "UnknownAuthority")
    said = (reply.body, line, record, nmi.record.told)
    assert all(len(str(text)) < 3000 for text in said)


async def test_a_forged_connection_gets_403_and_leaves_what_the_kernel_said() -> None:
    async with agent() as nmi:
        nmi.attestor.verdict = Verdict.FORGED
        reply = await nmi.ask(TOKEN)
        assert nmi.tokens.asked == []
    assert (reply.status, reply.json["error"]) == (403, "access_denied")
    assert "cni-1234" not in reply.body.decode()
    (line,) = nmi.record.lines
    assert (line["reason"], line["proof"]) == ("UnprovenCaller", "in cni-1234")


@pytest.mark.parametrize(
    ("failure", "status", "error"),
    [
        (TokenRefused("IMDS: no", status=401, error="unknown_source"), 401, "unknown_source"),
        (TokenThrottled("IMDS: slow", retry_after=7), 429, "too_many_requests"),
        (TokenSourceDown("IMDS hangs"), 503, "service_unavailable"),
    ],
    ids=repr,
)
async def test_what_imds_says_reaches_the_pod_in_imds_form(
    failure: Any, status: int, error: str
) -> None:
    async with agent() as nmi:
        nmi.tokens.failures = [failure]
        reply = await nmi.ask(TOKEN)
    assert (reply.status, reply.json["error"]) == (status, error)
    assert reply.json["error_description"] == str(failure)
    assert reply.header("Retry-After") == (["7"] if status == 429 else [])


async def test_a_pod_without_a_label_gets_400_as_from_imds() -> None:
    async with agent(pod(labels={}, addresses=HERE)) as nmi:
        reply = await nmi.ask(TOKEN)
    assert reply.status == 400
    assert reply.json == {"error": "invalid_request", "error_description": "Identity not found"}


async def test_the_old_switch_answers_503_with_retry_after() -> None:
    async with agent(pod(addresses=HERE), retry_after_header=True) as nmi:
        reply = await nmi.ask(TOKEN)
    assert (reply.status, reply.header("Retry-After")) == (503, ["20"])


async def test_the_header_counts_as_a_header_only_never_as_a_trailer() -> None:
    head = f"GET /metadata/identity/oauth2/token?resource={VAULT} HTTP/1.1\r\nHost: x\r\n"
    trailer = "Transfer-Encoding: chunked\r\n\r\n0\r\nMetadata: true\r\n\r\n"
    async with agent() as nmi, talking(nmi.listener) as talk:
        assert (await talk.ask((head + trailer).encode())).status == 400
        assert (await talk.ask((head + "Metadata: true\r\n\r\n").encode())).status == 200
        assert len(nmi.tokens.asked) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["identity/oauth2/token?resource=a", "instance", "versions"])
async def test_only_get_is_allowed(method: str, path: str) -> None:
    async with agent() as nmi:
        reply = await nmi.ask(f"{method} /metadata/{path} {HEADERS}")
        assert (nmi.tokens.asked, nmi.metadata.asked) == ([], [])
    assert (reply.status, reply.header("Allow")) == (405, ["GET"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/metadata/identity/oauth2%2ftoken", 400),
        ("/metadata/identity\\oauth2\\token", 400),
        ("/metadata/instance/../identity/oauth2/token", 400),
        ("/metadata/identity/x", 404),
        ("/", 404),
        ("/metadata/attested/document", 403),
        ("/metadata/instance/compute/userData", 403),
    ],
)
@pytest.mark.parametrize("headers", [HEADERS, "HTTP/1.1\nHost: x"])
async def test_paths_that_are_not_served_are_said_before_the_header_is_looked_at(
    path: str, status: int, headers: str
) -> None:
    async with agent() as nmi:
        reply = await nmi.ask(f"GET {path}?resource=a {headers}")
        assert (nmi.tokens.asked, nmi.metadata.asked) == ([], [])
    assert reply.status == status
    assert set(reply.json) == {"error", "error_description"}


@pytest.mark.parametrize("path", [f"{TOKEN_PATH}?resource={VAULT}", "/metadata/instance"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example.:80", "169.254.169.254.nip.io"])
async def test_a_page_in_a_pods_browser_cannot_be_led_here_by_a_name_of_its_own(
    path: str, host: str
) -> None:
    async with agent() as nmi:
        for _ in range(3):  # the last is one that was answered a moment ago
            reply = await nmi.ask(f"GET {path} {HEADERS}")
            assert reply.status == 200
        reply = await nmi.ask(f"GET {path} {HEADERS.replace('Host: x', f'Host: {host}')}")
        asked = len(nmi.metadata.asked)
    assert (reply.status, reply.json["error"]) == (400, "invalid_request")
    assert "a name of the Internet" in reply.json["error_description"]
    assert asked == (3 if path == "/metadata/instance" else 0)


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For: 10.0.0.1", "forwarded: for=10.0.0.1", "Via: 1.1 tinyproxy"]
)
@pytest.mark.parametrize(
    "path", ["/metadata/identity/oauth2/token?resource=a", "/metadata/instance"]
)
async def test_a_request_through_a_proxy_is_refused(path: str, header: str) -> None:
    async with agent() as nmi:
        reply = await nmi.ask(f"GET {path} {HEADERS}\n{header}")
        assert (nmi.tokens.asked, nmi.metadata.asked) == ([], [])
    assert (reply.status, reply.json["error"]) == (400, "invalid_request")
    assert header.partition(":")[0].title() in reply.json["error_description"]


async def test_other_headers_as_long_as_those_of_a_proxy_are_nobodys_concern() -> None:
    others = ("Dnt: 1", "X-Request: a", "X-Correlated-Id: b")
    async with agent() as nmi:
        for header in others:
            assert (await nmi.ask(f"{TOKEN}\n{header}")).status == 200


async def test_the_header_may_be_waived_and_the_proxy_check_not() -> None:
    bare = TOKEN.replace("\nMetadata: true", "")
    async with agent(header_required=False) as nmi:
        assert (await nmi.ask(bare)).status == 200
        assert (await nmi.ask(f"{bare}\nX-Forwarded-For: a")).status == 400


async def test_allowed_metadata_is_passed_on_with_nothing_of_the_request_but_what_is_named() -> (
    None
):
    async with agent() as nmi:
        nmi.metadata.passed = MetadataAnswer(status=404, content_type="text/plain", body=b"gone")
        reply = await nmi.ask(
            f"GET //Metadata/versions?a=%20b {HEADERS}\nAccept: text/plain\nX-Nonce: 1\nCookie: c"
        )
    assert nmi.metadata.asked == [("/metadata/versions?a=%20b", "text/plain")]
    assert (reply.status, reply.body) == (404, b"gone")
    assert reply.headers == [("Content-Type", "text/plain"), ("Content-Length", "4")]


async def test_user_data_is_taken_out_unless_it_is_allowed_by_name() -> None:
    async with agent() as nmi:
        reply = await nmi.ask(f"GET /metadata/instance?api-version=1 {HEADERS}")
    assert reply.json == {"compute": {"vmId": "v"}}
    allow = AllowList(["/metadata/instance", "/metadata/instance/compute/userData"])
    async with agent(allow=allow) as nmi:
        reply = await nmi.ask(f"GET /metadata/instance?api-version=1 {HEADERS}")
    assert reply.json["compute"]["userData"] == "c2VjcmV0"


async def test_an_imds_that_is_down_is_503_for_metadata_too() -> None:
    async with agent() as nmi:
        nmi.metadata.down = True
        reply = await nmi.ask(f"GET /metadata/versions {HEADERS}")
    assert (reply.status, reply.json["error"]) == (503, "service_unavailable")


async def test_a_client_that_leaves_leaves_a_line() -> None:
    left = asyncio.Event()
    async with agent() as nmi:
        nmi.record.record.other = told(left, nmi.record.record.other)  # type: ignore[method-assign]
        nmi.tokens.open.clear()
        async with talking(nmi.listener) as talk:
            await talk.say(TOKEN.replace("\n", "\r\n").encode() + b"\r\n\r\n")
            await nmi.tokens.begun.wait()
            own = talk.writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await left.wait()
    (line,) = nmi.record.lines
    assert (line["status"], line["message"]) == (499, "the client left before its answer")


def told(event: asyncio.Event, call: Any) -> Any:
    """Return `call`, which then sets the event."""

    def wrapped(*args: Any, **more: Any) -> None:
        call(*args, **more)
        event.set()

    return wrapped


async def test_no_line_of_any_answer_holds_a_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with agent() as nmi:
        assert (await nmi.ask(TOKEN)).json["access_token"] == "token-1"
        await nmi.ask(TOKEN.replace("?", "?bypass_cache=true&"))
    written = "".join(
        [*nmi.record.written, *nmi.record.audited, *nmi.record.scraped(""), caplog.text]
    )
    assert "token given" in written
    assert "token-1" not in written
    assert "token-2" not in written
