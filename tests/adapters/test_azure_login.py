from __future__ import annotations

import asyncio
import sys
import threading

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from podidentity.adapters import azure_login
from podidentity.adapters.azure_login import AzureLogin
from podidentity.wire.arm import ArmError

SCOPE = "https://management.azure.com/.default"


class Credential:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        if self.error:
            raise self.error
        assert scopes == (SCOPE,)
        return AccessToken("secret-token", 0)


async def test_the_token_is_that_of_the_credential() -> None:
    assert await AzureLogin(Credential()).token(SCOPE) == "secret-token"


async def test_a_refused_login_is_one_line_with_the_ways_to_sign_in() -> None:
    refused = ClientAuthenticationError(
        "AADSTS7000215: Invalid client secret.\nTo mitigate, see https://aka.ms/x\nTrace: 1"
    )
    with pytest.raises(ArmError) as caught:
        await AzureLogin(Credential(refused)).token(SCOPE)
    message = caught.value.message
    assert message.startswith("AADSTS7000215: Invalid client secret. Trace: 1 Run az")
    assert "\n" not in message
    assert "AZURE_CLIENT_SECRET" in message


class Deaf:
    """A credential whose neighbour never answers."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answer = threading.Event()

    def get_token(self, *_: str, **__: object) -> AccessToken:
        self.asked.set()
        self.answer.wait()
        return AccessToken("late", 0)


async def test_a_sign_in_that_nobody_answers_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_login, "SIGN_IN_SECONDS", 0.01)
    deaf = Deaf()
    with pytest.raises(ArmError, match=r"Nobody signs you in within 0.01 s.*az login"):
        await AzureLogin(deaf).token(SCOPE)
    deaf.answer.set()


def test_a_program_ends_though_a_sign_in_goes_on() -> None:
    """As at Ctrl-C: the loop ends, and waits for no thread."""
    deaf = Deaf()

    async def interrupted() -> None:
        asking = asyncio.create_task(AzureLogin(deaf).token(SCOPE))
        await asyncio.to_thread(deaf.asked.wait)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(interrupted())
    assert not deaf.answer.is_set()
    deaf.answer.set()


async def test_without_azure_identity_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(ArmError, match=r"pip install 'podidentity\[azure\]'"):
        await AzureLogin().token(SCOPE)


async def no_identity(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as the metadata service of a machine without identities, which is asked directly."""
    assert (await reader.readline()).startswith(b"GET /")
    body = b'{"error":"invalid_request","error_description":"Identity not found"}'
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n")
    writer.write(b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


async def test_nobody_signed_in_is_told_how_to_sign_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The managed identity is looked for on loopback instead of the metadata address."""
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "MSI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    async with await asyncio.start_server(no_identity, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{port}")
        # Nobody listens there.
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(ArmError) as caught:
            await AzureLogin().token(SCOPE)
    message = caught.value.message
    for said in ("EnvironmentCredential", "Azure CLI not found", "Identity not found", "az login"):
        assert said in message
    assert "\n" not in message
    assert not caplog.records


async def test_a_proxy_that_is_down_is_an_error_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID"):
        monkeypatch.setenv(name, "5f0c1a2b-3c4d-4e5f-8a9b-0c1d2e3f4a5b")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "s3cret")
    monkeypatch.setenv("PATH", "/nonexistent")
    # Nobody listens there, either.
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pass%40word@127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://me:pass%40word@127.0.0.1:1")
    monkeypatch.setattr(azure_login, "RETRIES", 0)
    with pytest.raises(ArmError, match="Unable to connect to proxy") as caught:
        await AzureLogin().token(SCOPE)
    assert not any(word in repr(caught.value) for word in ("pass@word", "pass%40word", "s3cret"))
