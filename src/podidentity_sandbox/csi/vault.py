"""Secrets of a vault, by one GET each; a refusal as Azure's Go SDK prints it.

https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret
https://github.com/Azure/azure-sdk-for-go/blob/main/sdk/azcore/internal/exported/response_error.go
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Protocol

import aiohttp

from podidentity_sandbox.csi.errors import MountFailed

_API_VERSION = "7.4"
_LINE = "-" * 80


class Secrets(Protocol):
    """A vault's secrets."""

    async def secret(self, vault: str, name: str, version: str, token: str) -> tuple[str, str]:
        """Return value and version of a secret; raise MountFailed."""


class KeyVault:
    """Vaults, over HTTPS."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def secret(self, vault: str, name: str, version: str, token: str) -> tuple[str, str]:
        """Return value and version of a secret; raise MountFailed."""
        url = f"https://{vault}/secrets/{name}/{version}"
        try:
            async with self._session.get(
                url,
                params={"api-version": _API_VERSION},
                headers={"Authorization": f"Bearer {token}"},
            ) as response:
                return read_secret(url, response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise MountFailed(
                f'Get "{url}?api-version={_API_VERSION}": {error or type(error).__name__}'
            ) from error


def read_secret(url: str, status: int, body: bytes) -> tuple[str, str]:
    """Return value and version in an answer; raise MountFailed with Go's text of an error."""
    if status != HTTPStatus.OK:
        raise MountFailed(response_error(url, status, body))
    answer: dict[str, Any] = json.loads(body)
    if answer.get("value") is None:
        raise MountFailed("secret value is nil")
    return answer["value"], answer["id"].rpartition("/")[2]


def response_error(url: str, status: int, body: bytes) -> str:
    """Return the text of azcore's ResponseError."""
    code, shown = "", body.decode(errors="replace")
    try:
        answer = json.loads(body)
        code = answer["error"]["code"]
        shown = json.dumps(answer, indent=2)
    except (ValueError, KeyError, TypeError):
        pass
    named = f"ERROR CODE: {code}" if code else "ERROR CODE UNAVAILABLE"
    lines = (
        f"GET {url}",
        _LINE,
        f"RESPONSE {status}: {status} {HTTPStatus(status).phrase}",
        named,
        _LINE,
        shown or "Response contained no body",
        _LINE,
    )
    return "\n".join(lines) + "\n"
