"""The program of a kubeconfig that signs a person in to the cluster: `kubelogin`, above all.

It is run as kubectl runs it: what it says to its standard error is for the person, such as the code
of a sign-in by browser, and it may ask. Its token is kept until the API server takes it no more.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from http import HTTPStatus

import httpx2
import msgspec

SECONDS = 120.0
"""As long as a person may need for a sign-in by browser; kubectl would wait for ever."""
_VERSIONS = {f"client.authentication.k8s.io/{each}" for each in ("v1", "v1beta1", "v1alpha1")}


class NoCredentials(Exception):
    """The program gives no token; the text says why, and quotes nothing that it printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """The program, as the kubeconfig names it."""

    version: str
    """The `apiVersion` of what it prints."""
    command: str
    arguments: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    hint: str = ""
    """What the kubeconfig says about its installation."""


class PluginAuth(httpx2.Auth):
    """Sends each request with the program's token, and runs it again where that is refused."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._token = ""
        self._one = asyncio.Lock()

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Yield the request with a token, and once more with a new one; raise NoCredentials."""
        if known := self._token:
            request.headers["Authorization"] = f"Bearer {known}"
            response = yield request
            if response.status_code != HTTPStatus.UNAUTHORIZED:
                return
        async with self._one:
            if self._token == known:  # else another request has run it meanwhile
                self._token = await token_of(self._plugin)
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


async def token_of(plugin: Plugin) -> str:
    """Run the program and return its token; raise NoCredentials."""
    what = f"The credential plug-in {plugin.command} of the kubeconfig"
    if plugin.version not in _VERSIONS:
        raise NoCredentials(f"{what} is of API version {plugin.version!r}, which nobody knows here")
    try:
        code, printed = await _run(plugin)
    except TimeoutError as error:
        raise NoCredentials(f"{what} did not end within {SECONDS:g} s") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or "its command line has a zero byte"
        hint = f". {plugin.hint.strip()}" if plugin.hint else ""
        raise NoCredentials(f"{what} cannot be run: {why}{hint}") from error
    if code:
        ended = f"ended with {code}" if code > 0 else f"was ended by signal {-code}"
        raise NoCredentials(f"{what} {ended}; what it said stands above")
    return _parsed(printed, what)


async def _run(plugin: Plugin) -> tuple[int, bytes]:
    """Return the exit code and what was printed; the program has ended in every case."""
    asked = {
        "apiVersion": plugin.version,
        "kind": "ExecCredential",
        "spec": {"interactive": bool(sys.stdin and sys.stdin.isatty())},
    }
    process = await asyncio.create_subprocess_exec(
        plugin.command,
        *plugin.arguments,
        stdout=PIPE,
        env={**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(asked), **dict(plugin.variables)},
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, printed


class _Status(msgspec.Struct):
    token: str = ""
    client_certificate: str = msgspec.field(name="clientCertificateData", default="")


class _Credential(msgspec.Struct):
    status: _Status


def _parsed(printed: bytes, what: str) -> str:
    """Return the token of an ExecCredential; raise NoCredentials."""
    try:
        found = msgspec.json.decode(printed, type=_Credential).status
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NoCredentials(f"{what} printed no ExecCredential") from error
    if found.client_certificate and not found.token:
        raise NoCredentials(f"{what} gives a certificate, and only tokens are taken here")
    if not (found.token.isascii() and found.token.isprintable() and found.token.strip()):
        raise NoCredentials(f"{what} printed no token")
    return found.token
