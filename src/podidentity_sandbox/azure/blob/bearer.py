"""Tokens at the blob service: whom they name, and how it asks for one.

https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from podidentity_sandbox.azure.blob.errors import BlobError, not_authenticated
from podidentity_sandbox.azure.messages import Request
from podidentity_sandbox.azure.state import StorageAccount, World
from podidentity_sandbox.azure.verification import Caller, Fault, TokenRefused, Verifier

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
    Fault.EXPIRED: "Lifetime validation failed. The token is expired.",
    Fault.NOT_YET_VALID: "Lifetime validation failed. The token is not yet valid.",
    Fault.AUDIENCE: "Audience validation failed. Audience did not match.",
    Fault.ISSUER: "Issuer validation failed. Issuer did not match.",
    Fault.SIGNATURE: "Signature validation failed. Signature verification failed.",
    Fault.UNKNOWN_KEY: "Signature validation failed. The key was not found.",
    Fault.MALFORMED: "Authentication scheme Bearer is not supported.",
}


def caller_of(
    request: Request, world: World, account: StorageAccount, keys: Callable[[], dict[str, Any]]
) -> Caller:
    """Return whom the token names; raise BlobError."""
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
        refusal = challenge(world, "InvalidAuthenticationInfo")
        refusal.more = {"AuthenticationErrorDetail": detail}
        raise refusal from error


def challenge(world: World, code: str) -> BlobError:
    """Return the refusal that says where a token is to be had."""
    where = f"https://login.microsoftonline.com/{world.plan.tenant_id}/oauth2/authorize"
    header = f"Bearer authorization_uri={where} resource_id={RESOURCE}"
    return BlobError(
        401,
        code,
        "Server failed to authenticate the request. Please refer to the information in the"
        " www-authenticate header.",
        headers={"WWW-Authenticate": header},
    )
