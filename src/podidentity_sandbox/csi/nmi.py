"""The request for a pod's token, and its answer, as the provider's Go code sends and reads them.

The provider's own code was run and recorded: `resource` is not encoded, the two headers are
canonical, no `Metadata` is sent, and the three times are `json.Number`, which takes numbers and
strings of numbers and nothing else.

https://github.com/Azure/secrets-store-csi-driver-provider-azure/blob/master/pkg/auth/auth.go
https://pkg.go.dev/encoding/json#Number
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Protocol

from podidentity_sandbox.csi.parameters import MountFailed

PORT = 2579
"""A constant of the provider: no flag changes it."""
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_TEXTS = ("access_token", "refresh_token", "resource", "token_type")
_TIMES = ("expires_in", "expires_on", "not_before")
_LONGEST = 1 << 20


class TokenSource(Protocol):
    """Where tokens of pods come from."""

    async def token(self, namespace: str, name: str, resource: str) -> str:
        """Return a token of the pod; raise MountFailed."""


class Nmi:
    """NMI, on the node's loopback."""

    async def token(self, namespace: str, name: str, resource: str) -> str:
        """Return a token of the pod; raise MountFailed in the words of Go's client."""
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
    """Return path and query; `resource` as it is."""
    return f"/host/token/?resource={resource}"


def request(namespace: str, name: str, resource: str) -> bytes:
    """Return the bytes of the request."""
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
    found = _object(_decoded(body), "PodIdentityResponse")
    token = _object(_field(found, "token"), "PodIdentityResponse.token")
    texts = {name: _text(_field(token, name), f"Token.token.{name}") for name in _TEXTS}
    for name in _TIMES:
        _check_number(_field(token, name))
    client = _text(_field(found, "clientid"), "PodIdentityResponse.clientid")
    if not texts["access_token"] or not client:
        raise MountFailed("nmi did not return expected values in response: token and clientid")
    return texts["access_token"]


def _decoded(body: bytes) -> object:
    if not body.strip():
        raise MountFailed("unexpected end of JSON input")
    try:
        return json.loads(body)
    except ValueError as error:
        first = body.strip()[:1].decode(errors="replace")
        raise MountFailed(f"invalid character '{first}' looking for beginning of value") from error


def _object(value: object, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise MountFailed(f"json: cannot unmarshal {_kind(value)} into Go value of type auth.{where}")


def _field(found: dict[str, Any], name: str) -> object:
    """Return a field as Go finds it: by its exact name, or by any case of it."""
    return found.get(name, {key.lower(): value for key, value in found.items()}.get(name))


def _text(value: object, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise MountFailed(
        f"json: cannot unmarshal {_kind(value)} into Go struct field {where} of type string"
    )


def _check_number(value: object) -> None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return
    literal = json.dumps(json.dumps(value))
    raise MountFailed(f"json: invalid number literal, trying to unmarshal {literal} into Number")


def _kind(value: object) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ")[1])
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    length = headers.get("content-length")
    body = await (reader.readexactly(int(length)) if length else reader.read())
    return status, body
