"""`check` on federation: an issuer that Entra can read from outside."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from podidentity.adapters.published_issuer import LIMIT, PublishedIssuer, read_issuer
from podidentity.cli.checks.federation import issuer_faults
from podidentity.cli.checks.findings import Severity

ISSUER = "https://issuer.example/cluster/"
DOCUMENT = {"issuer": ISSUER, "jwks_uri": "https://issuer.example/keys"}
KEYS = {"keys": [{"kid": "1"}]}


def published(answers: dict[str, httpx2.Response], issuer: str = ISSUER) -> PublishedIssuer:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path not in answers:
            raise httpx2.ConnectError("nobody listens", request=request)
        return answers[request.url.path]

    return asyncio.run(read_issuer(issuer, httpx2.MockTransport(answer)))


def answered(document: Any = DOCUMENT, keys: Any = KEYS, status: int = 200) -> PublishedIssuer:
    where = "/cluster/.well-known/openid-configuration"
    return published(
        {where: httpx2.Response(status, json=document), "/keys": httpx2.Response(200, json=keys)}
    )


def test_an_issuer_that_publishes_its_keys_is_well() -> None:
    found = answered()
    assert found == PublishedIssuer(issuer=ISSUER, keys=1)
    assert list(issuer_faults(ISSUER, found)) == []


@pytest.mark.parametrize(
    ("found", "reason", "text"),
    [
        (lambda: published({}), "IssuerSilent", "nobody listens"),
        (lambda: published({}, "http://a.example"), "IssuerUnreadable", "it is not at https"),
        (lambda: answered(status=403), "IssuerUnreadable", "answers 403"),
        (lambda: answered([1]), "IssuerUnreadable", "is no object"),
        (lambda: answered({"issuer": ISSUER}), "IssuerUnreadable", "the place of its keys"),
        (lambda: answered(keys={"keys": []}), "IssuerUnreadable", "it publishes no keys"),
        (lambda: answered({**DOCUMENT, "x": "y" * LIMIT}), "IssuerUnreadable", "is larger than"),
        (lambda: answered({**DOCUMENT, "issuer": ISSUER[:-1]}), "IssuerDiffers", "cluster'"),
    ],
    ids=["silent", "http", "403", "no object", "no keys' place", "no keys", "too large", "slash"],
)
def test_an_issuer_that_entra_cannot_read_is_found_with_the_reason(
    found: Any, reason: str, text: str
) -> None:
    (only,) = issuer_faults(ISSUER, found())
    assert only.reason == reason
    assert text in only.what
    silent = reason == "IssuerSilent"
    assert (only.severity is Severity.WARNING) is silent, "from elsewhere it may be readable"
