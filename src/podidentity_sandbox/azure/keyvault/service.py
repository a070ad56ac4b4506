"""The front of Key Vault: token, version, operation, access policy or role, in that order.

The AKV codes and words are those that the real service was seen to send; which code a broken
signature gets is not documented, so AKV10046 here stands for every signature that the published
keys do not explain.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from podidentity_sandbox.azure.arm.call import roles_at
from podidentity_sandbox.azure.keyvault import secrets
from podidentity_sandbox.azure.keyvault.secrets import VaultCall, VaultError, bad_parameter
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.state import Vault, World
from podidentity_sandbox.azure.tokens import Issuer
from podidentity_sandbox.azure.verification import Caller, TokenFault, TokenRefused, Verifier


@dataclass(frozen=True, slots=True)
class VaultOperation:
    """One row of the table."""

    method: str
    path: re.Pattern[str]
    permission: str
    """Of an access policy, for secrets."""
    action: str
    """The data action of a role, below Microsoft.KeyVault/vaults/secrets."""
    do: Callable[[VaultCall], Reply]


def _row(
    method: str, path: str, permission: str, action: str, do: Callable[[VaultCall], Reply]
) -> VaultOperation:
    return VaultOperation(method, re.compile(f"{path}/?"), permission, action, do)


_ONE = "/secrets/(?P<name>[^/]*)"
_VERSION = f"{_ONE}(?:/(?P<version>[^/]*))?"
# https://learn.microsoft.com/azure/role-based-access-control/permissions/security#microsoftkeyvault
OPERATIONS = (
    _row("GET", _VERSION, "get", "getSecret/action", secrets.get),
    _row("PUT", _ONE, "set", "setSecret/action", secrets.put),
)
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")


def operation_of(request: Request) -> tuple[VaultOperation, str, str]:
    """Return the operation, with the name and the version of the path; raise VaultError."""
    for row in OPERATIONS:
        match = row.path.fullmatch(request.path)
        if match and row.method == request.method:
            names = match.groupdict()
            name = names["name"]
            if not _NAME.fullmatch(name):
                raise bad_parameter(f"The request URI contains an invalid name: {name}")
            return row, name, names.get("version") or ""
    raise VaultError(404, "NotFound", "The sandbox's vaults set and read secrets, and no more.")


# ---- The front

RESOURCE = "https://vault.azure.net"
SUFFIX = ".vault.azure.net"


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
        _check_version(request.parameter("api-version"))
        operation, name, version = operation_of(request)
        if vault.by_roles:
            _check_role(self._world, vault, caller, operation.action, name)
        else:
            _check_policy(vault, caller, operation.permission)
        call = VaultCall(
            world=self._world, vault=vault, request=request, name=name, version=version
        )
        return operation.do(call)

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
        if error.fault is TokenFault.AUDIENCE:
            return f"AKV10022: Invalid audience. Expected {RESOURCE}, found: {error.detail}."
        if error.fault is TokenFault.ISSUER:
            expected = self._verifier.issuer
            return f"AKV10032: Invalid issuer. Expected one of {expected}, found {error.detail}."
        if error.fault in (TokenFault.UNKNOWN_KEY, TokenFault.SIGNATURE):
            return "AKV10046: Unable to resolve the key used for signature validation."
        if error.fault is TokenFault.EXPIRED:
            return "[TokenExpired] Error validating token: 'S2S12086'."
        return "[AggregatedAuthenticationFailure] Error validating token: 'S2S17001'."


_VERSIONS = (
    "2015-06-01 2016-10-01 7.0-preview 7.0 7.1-preview 7.1 7.2-preview 7.2 7.3-preview 7.3"
    " 7.4-preview.1 7.4 7.5 7.6-preview.2 7.6 2025-06-01-preview 2025-07-01 2026-01-01-preview"
    " 2026-03-01-preview 2026-04-01"
)
VERSIONS = tuple(_VERSIONS.split())
"""The folders and tags of
https://github.com/Azure/azure-rest-api-specs/tree/main/specification/keyvault/data-plane"""


def _check_version(version: str) -> None:
    # Words: https://github.com/Azure/azure-sdk-for-net/issues/14789
    if not version:
        raise bad_parameter("api-version must be specified")
    if version not in VERSIONS:
        newest = next(one for one in reversed(VERSIONS) if "preview" not in one)
        raise bad_parameter(
            f"The specified version ({version}) is not recognized. Consider using the latest"
            f" supported version ({newest})."
        )


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


def _check_role(world: World, vault: Vault, caller: Caller, action: str, name: str) -> None:
    scope = f"{vault.id}/secrets/{name}"
    whole = f"Microsoft.KeyVault/vaults/secrets/{action}"
    if any(role.allows_data(whole) for role in roles_at(world, caller.object_id, scope)):
        return
    # Line by line as people publish it: https://github.com/search?type=code&q=DeniedWithNoValidRBAC
    lines = (
        "Caller is not authorized to perform action on resource.",
        "If role assignments, deny assignments or role definitions were changed recently, please"
        " observe propagation time.",
        f"Caller: appid={caller.app_id};oid={caller.object_id};iss={caller.issuer}",
        f"Action: '{whole}'",
        f"Resource: '{scope.lower()}'",
        "Assignment: (not found)",
        "DenyAssignmentId: null",
        "DecisionReason: 'DeniedWithNoValidRBAC' ",
        f"Vault: {vault.name};location={vault.location}",
    )
    message = "".join(f"{line}\r\n" for line in lines)
    raise VaultError(403, "Forbidden", message, inner="ForbiddenByRbac")
