"""The blob service by its name, TLS and HTTP: what a table of requests cannot show."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from podidentity_sandbox.azure import server
from podidentity_sandbox.azure.client import AzureError, AzureOperator
from tests.sandbox.azure.conftest import Azure

NAME = "acct.blob.core.windows.net"
BIG = b"x" * (2 * 2**20)


@dataclass(frozen=True)
class Client:
    """HTTP as the operator, who may do everything with the account's blobs."""

    session: aiohttp.ClientSession
    cloud: Azure

    async def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes, str]:
        """Return status, body and Content-Length."""
        request = self.session.request(
            method,
            f"https://{NAME}{path}",
            data=io.BytesIO(body),
            proxy=self.cloud.proxy,
            ssl=self.cloud.trust,
        )
        async with request as response:
            return response.status, await response.read(), response.headers["Content-Length"]


@pytest.fixture
async def client(cloud: Azure, operator: AzureOperator) -> AsyncIterator[Client]:
    operator.weather("scale-sets=0", "operations=0")
    await operator.create_group("g")
    await operator.create_account("g", "acct")
    await operator.create_container("acct", "demo")
    headers = {
        "Authorization": f"Bearer {await token(cloud, f'https://{NAME}')}",
        "x-ms-version": "2021-12-02",
        "x-ms-blob-type": "BlockBlob",
    }
    async with aiohttp.ClientSession(headers=headers) as session:
        yield Client(session, cloud)


async def token(cloud: Azure, resource: str) -> str:
    form = {
        "grant_type": "client_credentials",
        "client_id": cloud.plan.operator_id,
        "client_secret": cloud.plan.operator_secret,
        "scope": f"{resource}/.default",
    }
    url = f"https://login.microsoftonline.com/{cloud.plan.tenant_id}/oauth2/v2.0/token"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=form, proxy=cloud.proxy, ssl=cloud.trust) as response,
    ):
        answer = await response.json()
        return str(answer.get("access_token") or answer["error"])


async def resolved(cloud: Azure) -> str:
    query = dns.message.make_query(NAME, "A")
    reply = await dns.asyncquery.udp(query, "127.0.0.1", port=cloud.dns_port, timeout=60)
    return dns.rcode.to_text(reply.rcode())


async def test_an_accounts_name_exists_while_the_account_does(
    cloud: Azure, operator: AzureOperator
) -> None:
    assert await resolved(cloud) == "NXDOMAIN"
    operator.weather("scale-sets=0", "operations=0")
    await operator.create_group("g")
    await operator.create_account("g", "acct")
    assert await resolved(cloud) == "NOERROR"
    await operator.arm("DELETE", f"{operator.subscription}/resourceGroups/g")
    assert await resolved(cloud) == "NXDOMAIN"


async def test_a_blob_of_megabytes_comes_back_as_it_was(client: Client) -> None:
    assert (await client.call("PUT", "/demo/big", BIG))[0] == 201
    assert await client.call("GET", "/demo/big") == (200, BIG, str(len(BIG)))


async def test_a_body_that_is_too_large_is_refused_in_azures_words(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_LIMIT", len(BIG) - 1)
    status, body, _ = await client.call("PUT", "/demo/big", BIG)
    assert status == 413
    assert b"<Code>RequestBodyTooLarge</Code>" in body
    assert b"exceeds the maximum permissible limit." in body
    assert (await client.call("PUT", "/demo/big", BIG[1:]))[0] == 201


async def test_head_says_the_length_and_sends_nothing(client: Client) -> None:
    await client.call("PUT", "/demo/a.txt", b"hello")
    assert await client.call("HEAD", "/demo/a.txt") == (200, b"", "5")
    status, body, _ = await client.call("HEAD", "/demo/nope")
    assert (status, body) == (404, b"")


async def test_an_empty_blob_is_one(client: Client) -> None:
    assert (await client.call("PUT", "/demo/empty"))[0] == 201
    assert await client.call("GET", "/demo/empty") == (200, b"", "0")


async def test_entra_knows_accounts_by_their_names_and_no_strangers(cloud: Azure) -> None:
    assert (await token(cloud, f"https://{NAME}")).startswith("ey")
    assert await token(cloud, "https://acct.blob.example.com") == "invalid_resource"


async def test_the_operator_is_told_why_a_container_is_not_made(operator: AzureOperator) -> None:
    operator.weather("scale-sets=0", "operations=0")
    await operator.create_group("g")
    await operator.create_account("g", "acct")
    with pytest.raises(AzureError, match="The specified resource name length is not within"):
        await operator.create_container("acct", "x")
