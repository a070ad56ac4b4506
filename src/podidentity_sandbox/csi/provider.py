"""A volume's files: a token of the pod from NMI, and with it the secrets of a vault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

import aiohttp
import msgspec

from podidentity_sandbox.csi.parameters import POD_NAME, POD_NAMESPACE, MountFailed, parse

# ---- The request for a pod's token, and its answer, as the provider's Go code sends and reads them
#
# The provider's own code was run and recorded: `resource` is not encoded, the two headers are
# canonical, no `Metadata` is sent, and the three times are `json.Number`, which takes numbers and
# strings of numbers and nothing else. What its types cannot hold is refused here as well, in words
# of our own; names in another case, which Go would find, are not looked for.
#
# https://github.com/Azure/secrets-store-csi-driver-provider-azure/blob/master/pkg/auth/auth.go
# https://pkg.go.dev/encoding/json#Number

PORT = 2579
"""A constant of the provider: no flag changes it."""
_LONGEST = 1 << 20
_DIGITS = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$"
Number: TypeAlias = Annotated[str, msgspec.Meta(pattern=_DIGITS)] | int | float | None


class _Token(msgspec.Struct):
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: Number = None
    expires_on: Number = None
    not_before: Number = None
    resource: str | None = None
    token_type: str | None = None


class _Answer(msgspec.Struct):
    token: _Token | None = None
    clientid: str | None = None


async def token(namespace: str, name: str, resource: str) -> str:
    """Return a token of the pod from NMI; raise MountFailed in the words of Go's client."""
    # Bounded by the kubelet's patience with the whole call, as the real one.
    try:
        reader, writer = await asyncio.open_connection("localhost", PORT, limit=_LONGEST)
    except OSError as error:
        raise MountFailed(
            f'Get "http://localhost:{PORT}{target(resource)}": '
            f"dial tcp 127.0.0.1:{PORT}: connect: connection refused"
        ) from error
    try:
        writer.write(request(namespace, name, resource))
        return read_token(*await _answer(reader))
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise MountFailed(f'Get "http://localhost:{PORT}{target(resource)}": EOF') from error
    finally:
        writer.close()


def target(resource: str) -> str:
    return f"/host/token/?resource={resource}"


def request(namespace: str, name: str, resource: str) -> bytes:
    return (
        f"GET {target(resource)} HTTP/1.1\r\n"
        f"Host: localhost:{PORT}\r\n"
        "User-Agent: Go-http-client/1.1\r\n"
        f"Podname: {name}\r\n"
        f"Podns: {namespace}\r\n"
        "Accept-Encoding: gzip\r\n"
        "\r\n"
    ).encode()


def read_token(status: int, body: bytes) -> str:
    """Return the token of an answer; raise MountFailed for what the Go types cannot hold."""
    if status != 200:
        text = body.decode(errors="replace")
        raise MountFailed(f"nmi response failed with status code: {status}, response body: {text}")
    try:
        found = msgspec.json.decode(body, type=_Answer)
    except msgspec.DecodeError as error:
        raise MountFailed(f"json: {error}") from error
    if not (found.token and found.token.access_token and found.clientid):
        raise MountFailed("nmi did not return expected values in response: token and clientid")
    return found.token.access_token


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ")[1])
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    length = headers.get("content-length")
    body = await (reader.readexactly(int(length)) if length else reader.read())
    return status, body


# ---- The vault's secrets, by one GET each
#
# https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret

_API_VERSION = "7.4"


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
    """Return value and version in an answer; raise MountFailed for a refusal."""
    if status != HTTPStatus.OK:
        said = body.decode(errors="replace") or "Response contained no body"
        raise MountFailed(f"GET {url}: RESPONSE {status}: {said}")
    answer: dict[str, Any] = json.loads(body)
    return answer["value"], answer["id"].rpartition("/")[2]


# ---- The files

_RESOURCE, _SUFFIX = "https://vault.azure.net", "vault.azure.net"


Secrets = Mapping[str, tuple[str, str]]
"""By the path of each file the secret, and its version in the vault."""


async def secrets(
    parameters: Mapping[str, str],
    *,
    token: Callable[[str, str, str], Awaitable[str]],
    secret: Callable[[str, str, str, str], Awaitable[tuple[str, str]]],
) -> Secrets:
    """Return what a SecretProviderClass asks for; raise MountFailed.

    Args:
        parameters: those of the class, and the pod's name and namespace.
        token: returns a token of a pod, by namespace, name and resource.
        secret: returns value and version of a secret, by vault, name, version and token.
    """
    found: dict[str, tuple[str, str]] = {}
    held = ""
    try:
        vault, objects = parse(parameters)
        for one in objects:
            if one.object_type != "secret":
                raise one.failed("the sandbox's vaults hold secrets only")
            try:
                # The SDK's client asks when it first needs a token, so that the error is there.
                held = held or await token(
                    parameters[POD_NAMESPACE], parameters[POD_NAME], _RESOURCE
                )
                host = f"{vault}.{_SUFFIX}"
                found[one.file] = await secret(host, one.object_name, one.object_version, held)
            except MountFailed as error:
                raise one.failed(error) from error
    except MountFailed as error:
        # The driver speaks gRPC with its provider; pkg/server/server.go.
        raise MountFailed(
            f"rpc error: code = Unknown desc = failed to mount objects, error: {error}"
        ) from error
    return found
