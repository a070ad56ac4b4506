"""Authorization in a storage account: its keys, and tokens with the rights of roles.

A key of the account allows everything; without a key or a token nothing is read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

from podidentity_sandbox.azure.arm.call import roles_at
from podidentity_sandbox.azure.blob.call import (
    BlobCall,
    BlobError,
    container_id,
    not_authenticated,
)
from podidentity_sandbox.azure.messages import Request
from podidentity_sandbox.azure.state import StorageAccount, World
from podidentity_sandbox.azure.verification import Caller, TokenFault, TokenRefused, Verifier

SCHEME = "SharedKey"
SKEW = 15 * 60
"""Seconds that a request may be old or young."""
_EMPTY_LENGTH_SINCE = "2015-02-21"
"""The version from which on a length of 0 is signed as an empty line."""
_SIGNED = (
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type"),
    *("date", "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)


def _check_key(request: Request, account: StorageAccount, now: float) -> None:
    """Raise BlobError unless a key of the account signed the request, just now."""
    given = request.headers["authorization"].partition(" ")[2].strip()
    name, _, signature = given.partition(":")
    if not name or not signature:
        raise BlobError("InvalidAuthenticationInfo")
    _check_date(request, now)
    signed = string_to_sign(request, account.name)
    if name == account.name and any(_fits(key, signed, signature) for key in account.keys):
        return
    # https://stackoverflow.com/questions/30465420
    raise not_authenticated(
        f"The MAC signature found in the HTTP request '{signature}' is not the same as any computed"
        f" signature. Server used following string to sign: '{signed}'."
    )


def string_to_sign(request: Request, account: str) -> str:
    """Return the text that a client of the account signs for this request."""
    headers = dict(request.headers)
    if (
        headers.get("content-length") == "0"
        and headers.get("x-ms-version", "") >= _EMPTY_LENGTH_SINCE
    ):
        headers["content-length"] = ""
    if "x-ms-date" in headers:
        headers["date"] = ""
    lines = [request.method, *(headers.get(name, "") for name in _SIGNED)]
    # The document would fold white space inside a value as well; Azure's own clients sign it as it
    # is: https://github.com/Azure/azure-sdk-for-js/tree/main/sdk/storage/storage-common
    lines += [
        f"{name}:{value.strip()}"
        for name, value in sorted(request.headers.items())
        if name.startswith("x-ms-")
    ]
    return "\n".join([*lines, _canonical_resource(request, account)])


def _canonical_resource(request: Request, account: str) -> str:
    path, _, query = request.target.partition("?")
    values: dict[str, list[str]] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        values.setdefault(unquote(name).lower(), []).append(unquote(value))
    lines = [f"{name}:{','.join(sorted(values[name]))}" for name in sorted(values)]
    return "\n".join([f"/{account}{path}", *lines])


def _fits(key: str, signed: str, signature: str) -> bool:
    right = hmac.new(base64.b64decode(key), signed.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(base64.b64encode(right), signature.encode())


def _check_date(request: Request, now: float) -> None:
    sent = request.headers.get("x-ms-date") or request.headers.get("date", "")
    try:
        when = parsedate_to_datetime(sent)
    except ValueError as error:
        # https://github.com/jakobht/azurex/issues/18
        raise not_authenticated("The Date header in the request is incorrect.") from error
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    if abs(when - datetime.fromtimestamp(now, UTC)).total_seconds() > SKEW:
        # https://github.com/Azure/azure-sdk-for-js/issues/5433
        raise not_authenticated(f"Request date header too old: '{sent}'")


# ---- Tokens: their callers, and the challenge that asks for one
#
# https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory

RESOURCE = "https://storage.azure.com"
APPLICATION = "e406a681-f3d4-42a8-90b6-c2b029497af1"
"""Azure Storage's own application, which a token may name instead."""
FIRST_VERSION = "2017-11-09"
"""The first that takes tokens."""
CHALLENGED_SINCE = "2019-12-12"
"""The first whose refusals say where to get one."""
# Two details are reported, and the rest are worded after them: "Lifetime" in
# https://github.com/Azure/azure-sdk-for-java/issues/8667, "Audience" in
# https://github.com/Azure/AzureStor/issues/119, "Issuer" in
# https://github.com/Azure/azure-sdk-for-net/issues/10529.
_DETAILS = {
    TokenFault.EXPIRED: "Lifetime validation failed. The token is expired.",
    TokenFault.NOT_YET_VALID: "Lifetime validation failed. The token is not yet valid.",
    TokenFault.AUDIENCE: "Audience validation failed. Audience did not match.",
    TokenFault.ISSUER: "Issuer validation failed. Issuer did not match.",
    TokenFault.SIGNATURE: "Signature validation failed. Signature verification failed.",
    TokenFault.UNKNOWN_KEY: "Signature validation failed. The key was not found.",
    TokenFault.MALFORMED: "Authentication scheme Bearer is not supported.",
}


def _caller_of(
    request: Request, world: World, account: StorageAccount, keys: Callable[[], dict[str, Any]]
) -> Caller:
    version = request.headers.get("x-ms-version", "")
    if version < FIRST_VERSION:
        # https://github.com/MicrosoftDocs/azure-docs/issues/95050
        raise not_authenticated("Authentication scheme Bearer is not supported in this version.")
    own = f"https://{account.name}.blob.core.windows.net"
    verifier = Verifier(
        keys=keys,
        issuer=f"https://sts.windows.net/{world.plan.tenant_id}/",
        audiences=(RESOURCE, f"{RESOURCE}/", own, f"{own}/", APPLICATION),
    )
    try:
        return verifier.verify(request.bearer, world.clock())
    except TokenRefused as error:
        detail = _DETAILS[error.fault]
        if version < CHALLENGED_SINCE:
            raise not_authenticated(detail) from error
        raise _challenge(world, detail) from error


def _challenge(world: World, detail: str) -> BlobError:
    """Return the refusal that says where a token is to be had."""
    where = f"https://login.microsoftonline.com/{world.plan.tenant_id}/oauth2/authorize"
    header = f"Bearer authorization_uri={where} resource_id={RESOURCE}"
    message = (
        "Server failed to authenticate the request. Please refer to the information in the"
        " www-authenticate header."
    )
    return BlobError(
        "InvalidAuthenticationInfo",
        more={"AuthenticationErrorDetail": detail},
        headers={"WWW-Authenticate": header},
        instead=(401, message),
    )


# ---- Permissions
#
# The action that each operation needs:
# https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory#permissions-for-blob-service-operations
# Those on containers are ordinary actions, which Owner, Contributor and Reader have too; those on
# blobs are data actions, which only the Storage Blob Data roles have.

_CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"


def check(call: BlobCall, needed: Sequence[str], keys: Callable[[], dict[str, Any]]) -> None:
    """Raise BlobError unless the sender of the request may do any of the actions `needed`.

    These are below containers, such as `read` and `blobs/read`; `keys` reads the published JSON Web
    Key Set.
    """
    authorization = call.request.headers.get("authorization")
    if authorization is None:
        raise BlobError("PublicAccessNotPermitted")
    scheme, _, credentials = authorization.partition(" ")
    if not credentials.strip():
        raise BlobError("InvalidAuthenticationInfo")
    if scheme == SCHEME:
        _check_key(call.request, call.account, call.world.clock())
    elif scheme.lower() == "bearer":
        caller = _caller_of(call.request, call.world, call.account, keys)
        _check_roles(call, caller, needed)
    else:
        raise not_authenticated(f"Authentication scheme {scheme} is not supported.")


def _check_roles(call: BlobCall, caller: Caller, needed: Sequence[str]) -> None:
    account = call.account
    scope = container_id(account, call.container) if call.container else account.id
    for role in roles_at(call.world, caller.object_id, scope):
        for action in needed:
            allows = role.allows_data if action.startswith("blobs/") else role.allows
            if allows(f"{_CONTAINERS}/{action}"):
                return
    raise BlobError("AuthorizationPermissionMismatch")
