"""The data plane of Key Vault: secrets are set and read, by an access policy or by a role.

A request is judged by its token, its version, its path and the permission of its caller, in that
order. The AKV codes and words are those that the real service was seen to send; which code a broken
signature gets is not documented, so AKV10046 here stands for every signature that the published
keys do not explain.

https://learn.microsoft.com/rest/api/keyvault/secrets
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from podidentity_sandbox.azure.arm.call import roles_at
from podidentity_sandbox.azure.messages import Reply, Request, ServiceError
from podidentity_sandbox.azure.state import Vault, World
from podidentity_sandbox.azure.tokens import Issuer
from podidentity_sandbox.azure.verification import Caller, TokenFault, TokenRefused, Verifier

RESOURCE = "https://vault.azure.net"
SUFFIX = ".vault.azure.net"


class VaultError(ServiceError):
    """A refusal of the vault."""


def _bad_parameter(message: str) -> VaultError:
    return VaultError(400, "BadParameter", message)


def _forbidden(message: str, inner: str) -> VaultError:
    return VaultError(403, "Forbidden", message, more={"innererror": {"code": inner}})


# ---- The contents of a vault: secrets, which are resources of the world below their vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a secret."""

    version: str
    value: str = field(repr=False)
    created: int
    """Seconds since 1970, as all times here."""
    attributes: Mapping[str, Any]
    """Of enabled, nbf and exp those that were sent."""
    more: Mapping[str, Any]
    """Of contentType and tags those that were sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret with its versions, the newest last."""

    id: str
    name: str
    """As it was first written; found in any case."""
    versions: tuple[Version, ...]


RETENTION = 90
"""Days that a deleted secret can be recovered."""
_ATTRIBUTES = {"enabled": bool, "nbf": int, "exp": int}
_MORE = {"contentType": str, "tags": dict}


def _rendered(vault: Vault, secret: Secret, one: Version) -> dict[str, Any]:
    """Return a version with its value."""
    attributes = {
        "enabled": True,
        **one.attributes,
        "created": one.created,
        "updated": one.created,
        "recoveryLevel": "Recoverable+Purgeable",
        "recoverableDays": RETENTION,
    }
    return {
        "value": one.value,
        "id": f"https://{vault.name.lower()}{SUFFIX}/secrets/{secret.name}/{one.version}",
        "attributes": attributes,
        **one.more,
    }


def _sent(values: Mapping[str, Any], kinds: Mapping[str, type]) -> dict[str, Any]:
    """Return those of `values` that are of these names; raise VaultError for a wrong type."""
    found = {name: values[name] for name in kinds if values.get(name) is not None}
    for name, value in found.items():
        if type(value) is not kinds[name]:
            raise _bad_parameter(f"Property {name} has invalid value")
    return found


# ---- Operations


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultCall:
    """One authorized request to a vault."""

    world: World
    vault: Vault
    request: Request
    name: str
    version: str
    """"" for the newest."""

    @property
    def id(self) -> str:
        return f"{self.vault.id}/secrets/{self.name}"


def put(call: VaultCall) -> Reply:
    body = call.request.json_object(_bad_parameter)
    if not isinstance(body.get("value"), str):
        raise _bad_parameter("Property value is required")
    new = Version(
        version=uuid.uuid4().hex,
        value=body["value"],
        created=int(call.world.clock()),
        attributes=_sent(_sent(body, {"attributes": dict}).get("attributes", {}), _ATTRIBUTES),
        more=_sent(body, _MORE),
    )
    first = Secret(id=call.id, name=call.name, versions=())
    old = call.world.find(Secret, call.id) or first
    secret = replace(old, versions=(*old.versions, new))
    call.world.put(secret)
    return Reply.json(_rendered(call.vault, secret, new))


def get(call: VaultCall) -> Reply:
    """Return a version of a secret with its value: the newest where none is named.

    Its times say nothing here: https://github.com/Azure/AzureKeyVault/issues/19.
    """
    secret = call.world.find(Secret, call.id)
    found = [one for one in secret.versions if call.version in ("", one.version)] if secret else []
    if secret is None or not found:
        # https://github.com/Azure/azure-sdk-for-js/issues/25489
        raise VaultError(
            404,
            "SecretNotFound",
            f"A secret with (name/id) {'/'.join(filter(None, (call.name, call.version)))} was not"
            " found in this key vault. If you recently deleted this secret you may be able to"
            " recover it using the correct recovery command. For help resolving this issue, please"
            " see https://go.microsoft.com/fwlink/?linkid=2125182",
        )
    if not found[-1].attributes.get("enabled", True):
        # https://github.com/Azure/azure-sdk-for-js/issues/24756
        raise _forbidden("Operation get is not allowed on a disabled secret.", "SecretDisabled")
    return Reply.json(_rendered(call.vault, secret, found[-1]))


class VaultOperation(NamedTuple):
    """What a method does, and what it needs."""

    permission: str
    """Of an access policy, for secrets."""
    action: str
    """The data action of a role:
    https://learn.microsoft.com/azure/role-based-access-control/permissions/security#microsoftkeyvault
    """
    do: Callable[[VaultCall], Reply]


_ACTIONS = "Microsoft.KeyVault/vaults/secrets"
_OPERATIONS = {
    "GET": VaultOperation("get", f"{_ACTIONS}/getSecret/action", get),
    "PUT": VaultOperation("set", f"{_ACTIONS}/setSecret/action", put),
}
_PATH = re.compile(r"/secrets/(?P<name>[^/]*)(?:/(?P<version>[^/]*))?/?")
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")


def _operation_of(request: Request) -> tuple[VaultOperation, str, str]:
    """Return the operation, with the name and the version of the path; raise VaultError."""
    match, found = _PATH.fullmatch(request.path), _OPERATIONS.get(request.method)
    if match is None or found is None or (match["version"] and request.method == "PUT"):
        raise VaultError(404, "NotFound", "The sandbox's vaults set and read secrets, and no more.")
    if not _NAME.fullmatch(match["name"]):
        raise _bad_parameter(f"The request URI contains an invalid name: {match['name']}")
    return found, match["name"], match["version"] or ""


# ---- The front


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
            reply = error.reply()
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
        operation, name, version = _operation_of(request)
        call = VaultCall(
            world=self._world, vault=vault, request=request, name=name, version=version
        )
        if vault.by_roles:
            _check_role(call, caller, operation.action)
        else:
            _check_policy(vault, caller, operation.permission)
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
        raise _bad_parameter("api-version must be specified")
    if version not in VERSIONS:
        newest = next(one for one in reversed(VERSIONS) if "preview" not in one)
        raise _bad_parameter(
            f"The specified version ({version}) is not recognized. Consider using the latest"
            f" supported version ({newest})."
        )


def _check_policy(vault: Vault, caller: Caller, permission: str) -> None:
    for policy in vault.policies:
        granted = {str(name).lower() for name in policy["permissions"].get("secrets", [])}
        if policy["objectId"].lower() == caller.object_id and granted & {permission, "all"}:
            return
    who = f"appid={caller.app_id};oid={caller.object_id};iss={caller.issuer}"
    raise _forbidden(
        f"The user, group or application '{who}' does not have secrets {permission} permission on"
        f" key vault '{vault.name};location={vault.location}'. For help resolving this issue,"
        " please see https://go.microsoft.com/fwlink/?linkid=2125287",
        "AccessDenied",
    )


def _check_role(call: VaultCall, caller: Caller, action: str) -> None:
    roles = roles_at(call.world, caller.object_id, call.id)
    if any(role.allows_data(action) for role in roles):
        return
    # Line by line as people publish it: https://github.com/search?type=code&q=DeniedWithNoValidRBAC
    lines = (
        "Caller is not authorized to perform action on resource.",
        "If role assignments, deny assignments or role definitions were changed recently, please"
        " observe propagation time.",
        f"Caller: appid={caller.app_id};oid={caller.object_id};iss={caller.issuer}",
        f"Action: '{action}'",
        f"Resource: '{call.id.lower()}'",
        "Assignment: (not found)",
        "DenyAssignmentId: null",
        "DecisionReason: 'DeniedWithNoValidRBAC' ",
        f"Vault: {call.vault.name};location={call.vault.location}",
    )
    raise _forbidden("".join(f"{line}\r\n" for line in lines), "ForbiddenByRbac")
