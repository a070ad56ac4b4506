"""A volume's files: parameters, a token of the pod from NMI, and the vault's secrets with it.

https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp

from podidentity_sandbox.csi.parameters import MountFailed, VaultObject, parse

# ---- The vault's secrets, by one GET each
#
# A refusal is printed as Azure's Go SDK prints it:
# https://github.com/Azure/azure-sdk-for-go/blob/main/sdk/azcore/internal/exported/response_error.go

_API_VERSION = "7.4"
_LINE = "-" * 80


async def secret(
    session: aiohttp.ClientSession, vault: str, name: str, version: str, token: str
) -> tuple[str, str]:
    """Return value and version of a secret; raise MountFailed."""
    url = f"https://{vault}/secrets/{name}/{version}"
    try:
        async with session.get(
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


# ---- The files


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """A file of a volume."""

    path: str
    content: bytes = field(repr=False)
    mode: int
    version: str
    """The secret's in the vault."""


@dataclass(frozen=True, slots=True)
class SecretsProvider:
    """The Azure provider."""

    token: Callable[[str, str, str], Awaitable[str]]
    """Returns a token of a pod: by namespace, name and resource; raises MountFailed."""
    secret: Callable[[str, str, str, str], Awaitable[tuple[str, str]]]
    """Returns value and version of a secret: by vault, name, version and token."""

    async def files(self, parameters: Mapping[str, str]) -> list[SecretFile]:
        """Return the files that a SecretProviderClass asks for; raise MountFailed."""
        try:
            return await self._files(parameters)
        except MountFailed as error:
            # The driver speaks gRPC with its provider; pkg/server/server.go.
            raise MountFailed(
                f"rpc error: code = Unknown desc = failed to mount objects, error: {error}"
            ) from error

    async def _files(self, parameters: Mapping[str, str]) -> list[SecretFile]:
        wanted = parse(parameters)
        found: list[SecretFile] = []
        token = ""
        for one in wanted.objects:
            if one.type != "secret":
                raise one.failed(_why_not(one.type))
            try:
                # The SDK's client asks when it first needs a token, so that the error is there.
                token = token or await self.token(
                    wanted.pod_namespace, wanted.pod_name, wanted.resource
                )
                value, version = await self.secret(wanted.vault, one.name, one.version, token)
            except MountFailed as error:
                raise one.failed(error) from error
            content = _content(one, value)
            found.append(SecretFile(path=one.file, content=content, mode=one.mode, version=version))
        return found


def _why_not(kind: str) -> str:
    if kind in {"key", "cert"}:
        return "the sandbox's vaults hold secrets only"
    return "Invalid vaultObjectTypes. Should be secret, key, or cert"


def _content(one: VaultObject, value: str) -> bytes:
    try:
        if one.encoding == "base64":
            return base64.b64decode(value, validate=True)
        if one.encoding == "hex":
            return bytes.fromhex(value)
    except (binascii.Error, ValueError) as error:
        raise MountFailed(f"illegal {one.encoding} data: {error}") from error
    return value.encode()
