"""The blob service by its name, TLS and HTTP: what a table of requests cannot show."""

from __future__ import annotations

import io

import aiohttp
import pytest

from podidentity_sandbox.azure import server
from podidentity_sandbox.azure.client import STORAGE, AzureError, AzureOperator
from tests.sandbox.azure.conftest import Azure, resolve

NAME = "acct.blob.core.windows.net"
BIG = b"x" * (2 * 2**20)


@pytest.fixture
async def operator(operator: AzureOperator) -> AzureOperator:
    """The operator, with a storage account that has a container."""
    await operator.create_group("g")
    await operator.create_account("g", "acct")
    await operator.create_container("acct", "demo")
    return operator


async def call(
    cloud: Azure, operator: AzureOperator, method: str, path: str, body: bytes = b""
) -> tuple[int, bytes, str]:
    """Return status, body and Content-Length, as the operator."""
    token = operator._tokens[cloud.plan.tenant_id, STORAGE]
    headers = {
        "Authorization": f"Bearer {token}",
        "x-ms-version": "2021-12-02",
        "x-ms-blob-type": "BlockBlob",
    }
    url, way = f"https://{NAME}{path}", {"proxy": cloud.proxy, "ssl": cloud.trust}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, url, data=io.BytesIO(body), **way) as response,  # type: ignore[arg-type]
    ):
        return response.status, await response.read(), response.headers["Content-Length"]


async def test_an_accounts_name_exists_while_the_account_does(
    cloud: Azure, operator: AzureOperator
) -> None:
    assert (await resolve(cloud, NAME))[0] == "NOERROR"
    await operator.arm("DELETE", f"{operator.subscription}/resourceGroups/g")
    assert (await resolve(cloud, NAME))[0] == "NXDOMAIN"


async def test_a_blob_of_any_size_up_to_the_limit_comes_back_as_it_was(
    cloud: Azure, operator: AzureOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_LIMIT", len(BIG) - 1)
    for content in (b"", BIG[1:]):
        assert (await call(cloud, operator, "PUT", "/demo/a", content))[0] == 201
        found = (200, content, str(len(content)))
        assert await call(cloud, operator, "GET", "/demo/a") == found
    assert await call(cloud, operator, "HEAD", "/demo/a") == (200, b"", found[2])
    status, body, _ = await call(cloud, operator, "PUT", "/demo/a", BIG)
    assert status == 413
    assert b"<Code>RequestBodyTooLarge</Code>" in body
    assert b"exceeds the maximum permissible limit." in body


async def test_the_operator_is_told_why_a_container_is_not_made(operator: AzureOperator) -> None:
    with pytest.raises(AzureError, match="The specified resource name length is not within"):
        await operator.create_container("acct", "x")
