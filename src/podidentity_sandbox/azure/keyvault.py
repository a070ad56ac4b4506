"""The data plane of Key Vault: secrets, for whom a valid token and an access policy let in.

Requests and answers: https://learn.microsoft.com/rest/api/keyvault/secrets. The AKV codes and words
are those that the real service was seen to send; which code a broken signature gets is not
documented, so AKV10046 here stands for every signature that the published keys do not explain.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from podidentity_sandbox.azure.messages import NO_HEADERS, BadBody, Reply, Request
from podidentity_sandbox.azure.state import SecretVersion, Vault, World
from podidentity_sandbox.azure.tokens import Issuer
from podidentity_sandbox.azure.verification import Caller, Fault, TokenRefused, Verifier

RESOURCE = "https://vault.azure.net"
SUFFIX = ".vault.azure.net"
_PATH = re.compile(r"/secrets/(?P<name>[^/]*)(?:/(?P<version>[^/]*))?/?")
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
_PERMISSION = {"GET": "get", "PUT": "set", "DELETE": "delete"}


class VaultError(Exception):
    """A refusal of the vault."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        inner: str = "",
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"code": code, "message": message}
        if inner:
            self.error["innererror"] = {"code": inner}
        self.headers = headers


class KeyVault:
    """All vaults' data plane: the Host header names the vault."""

    def __init__(self, world: World, issuer: Issuer) -> None:
        self._world = world
        self._verifier = Verifier(
            keys=issuer.jwks, issuer=issuer.issuer, audiences=(RESOURCE, f"{RESOURCE}/")
        )

    def handle(self, request: Request) -> Reply:
        """Answer one request to NAME.vault.azure.net; the vault must exist."""
        try:
            reply = self._answer(request)
        except VaultError as error:
            reply = Reply.json({"error": error.error}, status=error.status, headers=error.headers)
        place = {
            "x-ms-keyvault-region": self._world.plan.location,
            "x-ms-keyvault-service-version": "1.9.0.0",
            "x-ms-request-id": str(uuid.uuid4()),
            "Cache-Control": "no-cache",
        }
        return replace(reply, headers={**place, **reply.headers})

    def _answer(self, request: Request) -> Reply:
        vault = self._world.vault(request.host.removesuffix(SUFFIX))
        if vault is None:
            raise VaultError(404, "VaultNotFound", "There is no vault of this name.")
        caller = self._authenticated(request)
        if not request.parameter("api-version"):
            raise VaultError(400, "BadParameter", "api-version must be specified")
        match = _PATH.fullmatch(request.path)
        permission = _PERMISSION.get(request.method)
        if match is None or permission is None:
            raise VaultError(404, "NotFound", "The sandbox serves /secrets/NAME only.")
        name, version = match["name"], match["version"] or ""
        if not _NAME.fullmatch(name):
            message = f"The request URI contains an invalid name: {name}"
            raise VaultError(400, "BadParameter", message)
        _check_policy(vault, caller, permission)
        if request.method == "PUT":
            return self._set(vault, name, request)
        found = _secret(vault, name, version)
        if request.method == "DELETE":
            rest = {key: value for key, value in vault.secrets.items() if key != name.lower()}
            self._world.put(replace(vault, secrets=MappingProxyType(rest)))
        return Reply.json(_json(vault, name, found))

    def _authenticated(self, request: Request) -> Caller:
        if not request.bearer:
            message = "AKV10000: Request is missing a Bearer or PoP token."
            raise self._challenge(message)
        try:
            return self._verifier.verify(request.bearer, self._world.clock())
        except TokenRefused as error:
            raise self._challenge(self._words(error)) from error

    def _challenge(self, message: str) -> VaultError:
        authorization = f"https://login.microsoftonline.com/{self._world.plan.tenant_id}"
        header = f'Bearer authorization="{authorization}", resource="{RESOURCE}"'
        return VaultError(401, "Unauthorized", message, headers={"WWW-Authenticate": header})

    def _words(self, error: TokenRefused) -> str:
        if error.fault is Fault.AUDIENCE:
            return f"AKV10022: Invalid audience. Expected {RESOURCE}, found: {error.detail}."
        if error.fault is Fault.ISSUER:
            expected = self._verifier.issuer
            return f"AKV10032: Invalid issuer. Expected one of {expected}, found {error.detail}."
        if error.fault in (Fault.UNKNOWN_KEY, Fault.SIGNATURE):
            return "AKV10046: Unable to resolve the key used for signature validation."
        if error.fault is Fault.EXPIRED:
            return "[TokenExpired] Error validating token: 'S2S12086'."
        return "[AggregatedAuthenticationFailure] Error validating token: 'S2S17001'."

    def _set(self, vault: Vault, name: str, request: Request) -> Reply:
        try:
            body = request.json_object()
        except BadBody as error:
            raise VaultError(400, "BadParameter", str(error)) from error
        if not isinstance(body.get("value"), str):
            raise VaultError(400, "BadParameter", "Property value is required")
        new = SecretVersion(
            version=uuid.uuid4().hex,
            value=body["value"],
            created=int(self._world.clock()),
            content_type=body.get("contentType"),
            tags=body.get("tags"),
        )
        versions = (*vault.secrets.get(name.lower(), ()), new)
        secrets = MappingProxyType({**vault.secrets, name.lower(): versions})
        self._world.put(replace(vault, secrets=secrets))
        return Reply.json(_json(vault, name, new))


def _check_policy(vault: Vault, caller: Caller, permission: str) -> None:
    for policy in vault.policies:
        granted = {str(name).lower() for name in policy["permissions"].get("secrets", [])}
        if policy["objectId"].lower() == caller.object_id and granted & {permission, "all"}:
            return
    who = f"appid={caller.app_id};oid={caller.object_id};iss={caller.issuer}"
    raise VaultError(
        403,
        "Forbidden",
        f"The user, group or application '{who}' does not have secrets {permission} permission on"
        f" key vault '{vault.name};location={vault.location}'. For help resolving this issue,"
        " please see https://go.microsoft.com/fwlink/?linkid=2125287",
        inner="AccessDenied",
    )


def _secret(vault: Vault, name: str, version: str) -> SecretVersion:
    versions = vault.secrets.get(name.lower(), ())
    found = [one for one in versions if version in ("", one.version)]
    if found:
        return found[-1]
    raise VaultError(
        404,
        "SecretNotFound",
        f"A secret with (name/id) {name}{f'/{version}' if version else ''} was not found in this"
        " key vault. If you recently deleted this secret you may be able to recover it using the"
        " correct recovery command. For help resolving this issue, please see"
        " https://go.microsoft.com/fwlink/?linkid=2125182",
    )


def _json(vault: Vault, name: str, secret: SecretVersion) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "value": secret.value,
        "id": f"https://{vault.name.lower()}{SUFFIX}/secrets/{name}/{secret.version}",
        "attributes": {
            "enabled": True,
            "created": secret.created,
            "updated": secret.created,
            "recoveryLevel": "Recoverable+Purgeable",
            "recoverableDays": 90,
        },
    }
    more = {"contentType": secret.content_type, "tags": secret.tags}
    return {**answer, **{key: value for key, value in more.items() if value is not None}}
