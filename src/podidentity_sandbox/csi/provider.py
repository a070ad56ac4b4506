"""A volume's files: parameters, a token of the pod from NMI, and the vault's secrets with it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from podidentity_sandbox.csi.errors import MountFailed
from podidentity_sandbox.csi.nmi import TokenSource
from podidentity_sandbox.csi.parameters import VaultObject, parse
from podidentity_sandbox.csi.vault import Secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a volume."""

    path: str
    content: bytes = field(repr=False)
    mode: int
    version: str
    """The secret's in the vault."""


class Provider:
    """The Azure provider."""

    def __init__(self, tokens: TokenSource, secrets: Secrets) -> None:
        self._tokens = tokens
        self._secrets = secrets

    async def files(self, parameters: Mapping[str, str]) -> list[File]:
        """Return the files that a SecretProviderClass asks for; raise MountFailed."""
        try:
            return await self._files(parameters)
        except MountFailed as error:
            # The driver speaks gRPC with its provider; pkg/server/server.go.
            raise MountFailed(
                f"rpc error: code = Unknown desc = failed to mount objects, error: {error}"
            ) from error

    async def _files(self, parameters: Mapping[str, str]) -> list[File]:
        wanted = parse(parameters)
        found: list[File] = []
        token = ""
        for one in wanted.objects:
            if one.type != "secret":
                raise one.failed(_why_not(one.type))
            try:
                # The SDK's client asks when it first needs a token, so that the error is there.
                token = token or await self._tokens.token(
                    wanted.pod_namespace, wanted.pod_name, wanted.resource
                )
                value, version = await self._secrets.secret(
                    wanted.vault, one.name, one.version, token
                )
            except MountFailed as error:
                raise one.failed(error) from error
            content = _content(one, value)
            found.append(File(path=one.file, content=content, mode=one.mode, version=version))
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
