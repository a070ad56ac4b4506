"""The way to Azure, by a real proxy and real TLS on loopback: what arrives, and what is said."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from podidentity.adapters.arm import Arm
from podidentity.adapters.azure_transport import AzureTransport
from podidentity.adapters.entra.issuer import TokenEndpoint
from podidentity.adapters.published_issuer import read_issuer
from podidentity.core.errors import TokenSourceDown
from podidentity.core.hosts import Host
from podidentity.wire.arm import ArmError
from podidentity.wire.proxies import parse_proxies
from podidentity_sandbox.world.authority import Authority
from tests.adapters.proxying import Handler, Server, azure, listening, proxy
from tests.fakes import FakeClock

ENTRA, MANAGER = "login.microsoftonline.com", "management.azure.com"
TOKEN = f"https://{ENTRA}/t/oauth2/v2.0/token"
HOST = Host.parse(
    "/subscriptions/1b0f8a2e-3c4d-4e5f-8a9b-0c1d2e3f4a5b/resourceGroups/nodes/providers/"
    "Microsoft.Compute/virtualMachineScaleSets/pool"
)
FORM = b"client_secret=s3cret"


ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
PATIENT = 60.0
"""Seconds that only a failing run waits."""


class Login:
    async def token(self, scope: str) -> str:
        del scope
        return "secret-token"


@asynccontextmanager
async def way(
    monkeypatch: pytest.MonkeyPatch, trusted: Path | None, value: str, no_proxy: str = ""
) -> AsyncIterator[AzureTransport]:
    """Yield a way by the proxy that HTTPS_PROXY has; the authority is that of SSL_CERT_FILE."""
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    transport = AzureTransport(parse_proxies({"HTTPS_PROXY": value, "NO_PROXY": no_proxy}))
    try:
        yield transport
    finally:
        await transport.aclose()


async def refused(transport: AzureTransport, seconds: float = 60) -> str:
    """Return what is said where a token cannot be asked for."""
    with pytest.raises(TokenSourceDown) as caught:
        await TokenEndpoint(user_agent="ours/1", transport=transport, seconds=seconds).post(
            TOKEN, FORM
        )
    return str(caught.value)


async def test_entra_arm_and_issuers_are_asked_by_the_proxy_which_sees_names_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    names = (ENTRA, MANAGER, "issuer.example.com")
    async with azure(tmp_path, *names) as (server, trusted), proxy(server) as by:
        value = f"http://me:pass%40word@127.0.0.1:{by.port}"
        async with way(monkeypatch, trusted, value) as transport:
            endpoint = TokenEndpoint(user_agent="ours/1", transport=transport)
            assert (await endpoint.post(TOKEN, FORM)).status == 200
            await Arm(Login(), FakeClock(), transport=transport).host(HOST)
            await read_issuer("https://issuer.example.com", transport)
    asked = [head.split("\r\n")[0] for head in by.heads]
    assert asked == [f"CONNECT {name}:443 HTTP/1.1" for name in names]
    login = base64.b64encode(b"me:pass@word").decode()
    assert all(f"Proxy-Authorization: Basic {login}" in head for head in by.heads)
    # Behind TLS is all of it, and nothing of the proxy's login.
    assert b"s3cret" in server.seen
    assert any("Bearer secret-token" in head for head in server.heads)
    assert "Proxy-Authorization" not in "".join(server.heads)
    for secret in (b"s3cret", b"secret-token", b"/oauth2/"):
        assert secret not in bytes(by.seen)
    assert not any(word in caplog.text for word in ("pass@word", "pass%40word", login, "s3cret"))


async def test_a_proxy_may_be_spoken_to_by_tls_if_its_own_certificate_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with azure(tmp_path, "127.0.0.1", ENTRA) as (server, trusted):
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
        async with proxy(server, tls=tls) as by:
            value = f"https://me:s3cret@127.0.0.1:{by.port}"
            async with way(monkeypatch, trusted, value) as transport:
                endpoint = TokenEndpoint(user_agent="ours/1", transport=transport)
                assert (await endpoint.post(TOKEN, FORM)).status == 200
            assert [head.split("\r\n")[0] for head in by.heads] == [f"CONNECT {ENTRA}:443 HTTP/1.1"]
            # It has the certificate for its address, and is asked by another name for that.
            value = f"https://me:s3cret@localhost:{by.port}"
            async with way(monkeypatch, trusted, value) as transport:
                said = await refused(transport)
    whose = (
        f"{ENTRA} cannot be asked: the certificate of the proxy localhost:{by.port} of HTTPS_PROXY"
    )
    assert said.startswith(f"{whose} is not trusted: Hostname mismatch")
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://[2001:db8::7]/token", "[2001:db8::7]:443"),
        ("https://[2001:db8::7]:8443/token", "[2001:db8::7]:8443"),
        ("https://203.0.113.10/token", "203.0.113.10:443"),
    ],
)
async def test_a_proxy_is_told_an_address_as_a_url_has_it(
    monkeypatch: pytest.MonkeyPatch, url: str, target: str
) -> None:
    async with (
        proxy(Server(), "403 Forbidden") as by,
        way(monkeypatch, None, f"http://127.0.0.1:{by.port}") as transport,
        httpx2.AsyncClient(transport=transport) as client,
    ):
        with pytest.raises(httpx2.ProxyError):
            await client.get(url)
    (head,) = by.heads
    assert head.split("\r\n")[:2] == [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]


@pytest.mark.parametrize(("most", "stay"), [(2, 1), (10, 2)])
async def test_a_fifth_of_the_connections_stay_when_all_are_answered(
    tmp_path: Path, most: int, stay: int
) -> None:
    authority = Authority.new("staying")
    authority.issue(["127.0.0.1"], tmp_path / "tls.crt", tmp_path / "tls.key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    together, ended = asyncio.Barrier(most), asyncio.Queue[None]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await together.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read()
        ended.put_nowait(None)

    def trust() -> ssl.SSLContext:
        return ssl.create_default_context(cadata=authority.pem)

    transport = AzureTransport(trust=trust, connections=most)
    async with (
        listening(answer, context) as port,
        httpx2.AsyncClient(transport=transport, timeout=PATIENT) as client,
        asyncio.timeout(PATIENT),
    ):
        await asyncio.gather(*(client.get(f"https://127.0.0.1:{port}/") for _ in range(most)))
        for _ in range(most - stay):
            await ended.get()
        assert ended.empty()


@pytest.mark.parametrize("spared", ["*", ENTRA, ".microsoftonline.com:{port}"])
async def test_what_no_proxy_names_is_asked_directly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spared: str
) -> None:
    async with azure(tmp_path, ENTRA) as (server, trusted), proxy(server) as by:
        # The name leads to loopback, whoever asks.
        lookup = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda _, *rest, **more: lookup("127.0.0.1", *rest, **more)
        )
        spared = spared.format(port=server.port)
        async with way(monkeypatch, trusted, f"http://127.0.0.1:{by.port}", spared) as transport:
            endpoint = TokenEndpoint(user_agent="ours/1", transport=transport)
            url = f"https://{ENTRA}:{server.port}/t/oauth2/v2.0/token"
            assert (await endpoint.post(url, FORM)).status == 200
    assert len(server.heads) == 1
    assert not by.heads


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            "407 Proxy Authentication Required",
            "answers 407 (Proxy Authentication Required): it wants a user and a password: give "
            "them as http://USER:PASSWORD@HOST:PORT",
        ),
        ("403 Forbidden by policy 7", "answers 403 (Forbidden by policy 7): have it let this name"),
        ("502 Bad Gateway", "answers 502 (Bad Gateway): it may not reach the name itself"),
        (f"503 {'x' * 500}", f"answers 503 ({'x' * 100}): "),
        (f"503 {'x' * 99} and more", f"answers 503 ({'x' * 99}): "),
        ("403 Gesch\xfctzt\x1b[31m", "answers 403 (Geschtzt[31m): have it"),
    ],
    ids=["407", "403", "502", "many words", "cut behind a word", "for a terminal"],
)
async def test_a_proxy_that_refuses_is_named_with_its_answer_and_the_next_step(
    monkeypatch: pytest.MonkeyPatch, answer: str, why: str
) -> None:
    async with proxy(Server(), answer) as by:
        value = f"http://me:s3cret@127.0.0.1:{by.port}"
        async with way(monkeypatch, None, value) as transport:
            said = await refused(transport)
            with pytest.raises(ArmError) as caught:
                await Arm(Login(), FakeClock(), transport=transport).host(HOST)
    begins = f"cannot be asked: the proxy 127.0.0.1:{by.port} of HTTPS_PROXY {why}"
    assert said.startswith(f"{ENTRA} {begins}")
    assert caught.value.message.startswith(f"{MANAGER} {begins}")
    # The request itself was never sent: a change may be tried again.
    assert isinstance(caught.value.__cause__, httpx2.ProxyError)
    assert "s3cret" not in f"{said} {caught.value!r} {caught.value.__cause__!r}"


async def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with way(monkeypatch, None, f"http://me:s3cret@127.0.0.1:{port}") as transport:
        said = await refused(transport)
    assert (
        f"the proxy 127.0.0.1:{port} of HTTPS_PROXY cannot be reached: Connection refused;" in said
    )
    assert "s3cret" not in said


async def test_without_a_proxy_an_error_tells_of_none() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.read()

    with socket.create_server(("127.0.0.1", 0)) as taken:
        down = taken.getsockname()[1]
    async with (
        listening(silent) as port,
        httpx2.AsyncClient(
            transport=AzureTransport(), timeout=httpx2.Timeout(PATIENT, connect=0.1)
        ) as client,
    ):
        with pytest.raises(httpx2.ConnectError) as refusal:
            await client.get(f"https://127.0.0.1:{down}/", timeout=PATIENT)
        with pytest.raises(httpx2.ConnectTimeout) as late:
            await client.get(f"https://127.0.0.1:{port}/")
    assert "proxy" not in f"{refusal.value} {late.value}"


async def test_a_proxy_that_says_nothing_costs_no_more_than_the_time_of_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        proxy(Server(), "") as by,
        way(monkeypatch, None, f"http://127.0.0.1:{by.port}") as transport,
        httpx2.AsyncClient(transport=transport, timeout=httpx2.Timeout(60, connect=0.2)) as client,
    ):
        assert "did not answer within 0.2 s" in await refused(transport, seconds=0.2)
        late = f"the proxy 127.0.0.1:{by.port} of HTTPS_PROXY cannot be reached: no answer in time"
        with pytest.raises(httpx2.ConnectTimeout, match=late):
            await client.get(TOKEN)


async def test_a_malformed_proxy_is_told_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with way(monkeypatch, None, "socks5://me:s3cret@127.0.0.1:1080") as transport:
        said = await refused(transport)
    assert "HTTPS_PROXY has socks5, which is not supported" in said
    assert "s3cret" not in said


async def test_an_authority_of_ones_own_is_asked_for_where_a_proxy_opens_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with azure(tmp_path, ENTRA) as (server, trusted), proxy(server) as by:
        value = f"http://127.0.0.1:{by.port}"
        async with way(monkeypatch, None, value) as transport:
            said = await refused(transport)
        assert f"{ENTRA} cannot be asked: its certificate is not trusted: " in said
        assert "must be in the file that SSL_CERT_FILE names" in said
        assert not server.heads
        async with way(monkeypatch, trusted, value) as transport:
            endpoint = TokenEndpoint(user_agent="ours/1", transport=transport)
            assert (await endpoint.post(TOKEN, FORM)).status == 200


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file or directory"), ("no certificate", "NO_CERTIFICATE_OR_CRL_FOUND")],
    ids=["missing", "malformed"],
)
async def test_a_file_of_authorities_that_cannot_be_read_is_told_and_nothing_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, why: str
) -> None:
    file = tmp_path / "bundle.pem"
    if content is not None:
        file.write_text(content)
    async with way(monkeypatch, file, "") as transport:
        said = await refused(transport)
    assert "the certificates that it may have cannot be read: " in said
    assert why in said
    assert "SSL_CERT_FILE" in said


async def test_authorities_that_fail_without_a_word_are_told_by_the_kind_of_error() -> None:
    def trust() -> ssl.SSLContext:
        raise BlockingIOError

    said = await refused(AzureTransport(trust=trust))
    assert "the certificates that it may have cannot be read: BlockingIOError; " in said


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing is closed by the collector of garbage."""
    gc.disable()
    yield
    gc.enable()


async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a proxy that reaches the name, and loses it at once."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ESTABLISHED)


async def babbles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a proxy behind which nobody speaks TLS."""
    await cuts(reader, writer)
    await reader.readexactly(5)  # the head of a record of TLS
    writer.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    await reader.read()


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a proxy behind which nobody speaks."""
    await cuts(reader, writer)
    await reader.read()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("serve", [cuts, babbles, hangs])
async def test_however_tls_fails_behind_a_proxy_later_requests_have_their_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, serve: Handler
) -> None:
    """Else a proxy that was ill for a while had the agent ask nobody until it started anew."""
    ended = asyncio.Queue[None]()

    async def fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        ended.put_nowait(None)

    async with (
        azure(tmp_path, ENTRA) as (server, trusted),
        proxy(server, first=[fails, fails]) as by,
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        proxies = parse_proxies({"HTTPS_PROXY": f"http://127.0.0.1:{by.port}"})
        transport = AzureTransport(proxies, connections=1)
        connect = 0.1 if serve is hangs else PATIENT
        soon, limits = (
            httpx2.Timeout(PATIENT, connect=each, pool=0) for each in (connect, PATIENT)
        )
        async with httpx2.AsyncClient(transport=transport, timeout=limits) as client:
            for _ in range(2):
                with pytest.raises((httpx2.ConnectError, httpx2.ConnectTimeout)) as caught:
                    await client.get(TOKEN, timeout=soon)
                assert f"the proxy 127.0.0.1:{by.port} of HTTPS_PROXY" in str(caught.value)
                async with asyncio.timeout(PATIENT):
                    await ended.get()  # the connection is closed
            assert (await client.get(TOKEN)).status_code == 200


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("by_proxy", [False, True], ids=["directly", "by a proxy"])
async def test_a_request_that_is_given_up_while_tls_is_agreed_on_leaves_nothing_open(
    by_proxy: bool,
) -> None:
    greeted, closed = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if by_proxy:
            await cuts(reader, writer)
        await reader.readexactly(5)  # the head of a record of TLS
        greeted.set()
        await reader.read()
        closed.set()

    async with listening(serve) as port, asyncio.timeout(PATIENT):
        here = f"http://127.0.0.1:{port}" if by_proxy else ""
        transport = AzureTransport(parse_proxies({"HTTPS_PROXY": here}), connections=1)
        async with httpx2.AsyncClient(transport=transport, timeout=PATIENT) as client:
            url = TOKEN if by_proxy else f"https://127.0.0.1:{port}/"
            asking = asyncio.create_task(client.get(url))
            await greeted.wait()
            asking.cancel()
            await asyncio.wait([asking])
            await closed.wait()
