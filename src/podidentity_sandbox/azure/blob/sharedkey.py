"""SharedKey: a request that is signed with one of the account's keys.

The string to sign, with each of its rules:
https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

from podidentity_sandbox.azure.blob.errors import (
    BlobError,
    malformed_authorization,
    not_authenticated,
)
from podidentity_sandbox.azure.messages import Request
from podidentity_sandbox.azure.state import StorageAccount

SCHEME = "SharedKey"
SKEW = 15 * 60
"""Seconds that a request may be old or young."""
_EMPTY_LENGTH_SINCE = "2015-02-21"
"""The version from which on a length of 0 is signed as an empty line."""
_SIGNED = (
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type"),
    *("date", "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)


def check(request: Request, account: StorageAccount, now: float) -> None:
    """Raise BlobError unless a key of the account signed the request, just now."""
    name, _, signature = _credentials(request).partition(":")
    if not name or not signature:
        raise malformed_authorization()
    _check_date(request, now)
    signed = string_to_sign(request, account.name)
    if name == account.name and any(_fits(key, signed, signature) for key in account.keys):
        if account.shared_key_access:
            return
        message = "Key based authentication is not permitted on this storage account."
        raise BlobError(403, "KeyBasedAuthenticationNotPermitted", message)
    # https://stackoverflow.com/questions/30465420
    raise not_authenticated(
        f"The MAC signature found in the HTTP request '{signature}' is not the same as any computed"
        f" signature. Server used following string to sign: '{signed}'."
    )


def string_to_sign(request: Request, account: str) -> str:
    """Return what a client of the account has to sign for this request."""
    headers = dict(request.headers)
    if headers.get("content-length") == "0" and _version(request) >= _EMPTY_LENGTH_SINCE:
        headers["content-length"] = ""
    if "x-ms-date" in headers:
        headers["date"] = ""
    lines = [request.method, *(headers.get(name, "") for name in _SIGNED)]
    return "\n".join([*lines, *_canonical_headers(request), _canonical_resource(request, account)])


def _canonical_headers(request: Request) -> list[str]:
    # The document would fold white space inside a value as well; Azure's own clients sign it as it
    # is: https://github.com/Azure/azure-sdk-for-js/tree/main/sdk/storage/storage-common
    return [
        f"{name}:{value.strip()}"
        for name, value in sorted(request.headers.items())
        if name.startswith("x-ms-")
    ]


def _canonical_resource(request: Request, account: str) -> str:
    path, _, query = request.target.partition("?")
    values: dict[str, list[str]] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        values.setdefault(unquote(name).lower(), []).append(unquote(value))
    lines = [f"{name}:{','.join(sorted(values[name]))}" for name in sorted(values)]
    return "\n".join([f"/{account}{path}", *lines])


def _credentials(request: Request) -> str:
    return request.headers["authorization"].partition(" ")[2].strip()


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


def _version(request: Request) -> str:
    return request.headers.get("x-ms-version", "")
