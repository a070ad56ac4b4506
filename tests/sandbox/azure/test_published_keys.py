"""Entra reads the keys of the cluster's API server by its name, over TLS, and nobody else's."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web

from podidentity_sandbox.azure.entra import issuers
from podidentity_sandbox.azure.entra.issuers import IssuerUnreachable, PublishedKeys
from podidentity_sandbox.plan import ISSUER
from podidentity_sandbox.world.authority import write_certificates
from tests.sandbox.azure.plans import Clock, make_plan
from tests.sandbox.cluster.conftest import listener

PLAIN = ISSUER.replace("https:", "http:")
Documents = dict[str, Any]
KEYS = {"keys": [{"kty": "RSA", "kid": "one", "n": "sXch", "e": "AQAB"}]}
CONFIGURATION = "/.well-known/openid-configuration"
GOOD: Documents = {
    CONFIGURATION: {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"},
    "/keys": KEYS,
}


class Place:
    """A server under the API server's name, which counts what it is asked."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents
        self.asked = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        assert "Authorization" not in request.headers
        found = self.documents.get(request.path)
        if found is None:
            return web.Response(status=404)
        if isinstance(found, str):
            return web.Response(status=302, headers={"Location": found})
        return web.json_response(found)


Open = Callable[[Documents], contextlib.AbstractAsyncContextManager[tuple[PublishedKeys, Place]]]


@pytest.fixture
def opened(folder: Path) -> Open:
    plan, clock = make_plan(folder), Clock()
    write_certificates(plan)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "apiserver.crt", folder / "apiserver.key")

    @contextlib.asynccontextmanager
    async def open_place(documents: Documents) -> AsyncIterator[tuple[PublishedKeys, Place]]:
        place, sock = Place(documents), listener()
        runner = web.ServerRunner(web.Server(place.answer))
        await runner.setup()
        await web.SockSite(runner, sock, ssl_context=tls).start()
        url = f"https://127.0.0.1:{sock.getsockname()[1]}"
        trust = lambda: ssl.create_default_context(cafile=str(plan.ca_certificate))  # noqa: E731
        yield PublishedKeys(url, trust, clock), place
        await runner.cleanup()

    return open_place


async def test_keys_are_found_by_their_id_and_read_once(opened: Open) -> None:
    async with opened(GOOD) as (published, place):
        for _ in range(3):
            (key,) = await published.find(ISSUER, "one")
            assert isinstance(key, jwt.PyJWK)
        assert place.asked == 2
        assert await published.find(ISSUER, "two") == []
        assert place.asked == 4, "a key that is not known is looked for again"
        place.documents = {}
        assert await published.find(ISSUER, "one"), "what is known needs no issuer"


@pytest.mark.parametrize(
    "documents",
    [
        {},
        {**GOOD, CONFIGURATION: {"issuer": f"{ISSUER}/", "jwks_uri": "x"}},
        {**GOOD, CONFIGURATION: f"{ISSUER}/keys"},
        {**GOOD, CONFIGURATION: ["list"]},
        {**GOOD, CONFIGURATION: {"issuer": ISSUER, "jwks_uri": f"{PLAIN}/keys"}},
        {**GOOD, "/keys": {"keys": "none"}},
    ],
)
async def test_documents_that_are_not_right_are_as_good_as_none(
    opened: Open, documents: Documents
) -> None:
    async with opened(documents) as (published, _):
        with pytest.raises(IssuerUnreachable):
            await published.find(ISSUER, "one")


@pytest.mark.parametrize("issuer", [PLAIN, "https://example.com", "https://169.254.169.254"])
async def test_no_other_host_is_asked(opened: Open, issuer: str) -> None:
    async with opened(GOOD) as (published, place):
        with pytest.raises(IssuerUnreachable):
            await published.find(issuer, "one")
        assert place.asked == 0


async def test_a_server_of_another_authority_is_not_believed(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(GOOD) as (published, _):
        monkeypatch.setattr(published, "_trust", ssl.create_default_context)
        with pytest.raises(IssuerUnreachable, match="certificate"):
            await published.find(ISSUER, "one")


async def test_keys_are_read_again_after_an_hour(opened: Open) -> None:
    async with opened(GOOD) as (published, place):
        await published.find(ISSUER, "one")
        published._clock.now += issuers.KEPT  # type: ignore[attr-defined]
        await published.find(ISSUER, "one")
        assert place.asked == 4
