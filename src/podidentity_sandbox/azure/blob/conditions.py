"""Conditional headers, as the blob service reads them.

https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from podidentity_sandbox.azure.blob.call import (
    BlobError,
    invalid_header,
)
from podidentity_sandbox.azure.blob.store import Stamp
from podidentity_sandbox.azure.messages import Request


def check_read(request: Request, changed: Stamp) -> None:
    """Raise BlobError unless the conditions let a blob of that time be read."""
    if _tag(request, "if-none-match") == "*":
        raise invalid_header("If-None-Match", "*")
    _check_unchanged(request, changed)
    if _none_match_fails(request, changed) or _not_newer(request, changed):
        raise BlobError("ConditionNotMet", instead=(304, ""))


def check_write(request: Request, changed: Stamp | None) -> None:
    """Raise BlobError unless a blob, None where there is none yet, may be written."""
    if changed is None:
        if _tag(request, "if-match"):
            raise BlobError("ConditionNotMet")
        return
    if _tag(request, "if-none-match") == "*":
        raise BlobError("BlobAlreadyExists")
    _check_unchanged(request, changed)
    if _none_match_fails(request, changed) or _not_newer(request, changed):
        raise BlobError("ConditionNotMet")


def check_delete(request: Request, changed: Stamp | None) -> None:
    """Raise BlobError unless a blob is there and may be deleted."""
    if changed is None:
        raise BlobError("BlobNotFound")
    if _tag(request, "if-none-match") == "*":
        raise BlobError("ConditionNotMet")
    check_write(request, changed)


def _check_unchanged(request: Request, changed: Stamp) -> None:
    wanted = _tag(request, "if-match")
    if wanted and wanted not in {"*", changed.etag}:
        raise BlobError("ConditionNotMet")
    since = _seconds(request, "if-unmodified-since")
    if since is not None and changed.seconds > since:
        raise BlobError("ConditionNotMet")


def _none_match_fails(request: Request, changed: Stamp) -> bool:
    return _tag(request, "if-none-match") == changed.etag


def _not_newer(request: Request, changed: Stamp) -> bool:
    since = _seconds(request, "if-modified-since")
    return since is not None and changed.seconds <= since


def _tag(request: Request, name: str) -> str:
    return request.headers.get(name, "").strip().strip('"')


def _seconds(request: Request, name: str) -> float | None:
    sent = request.headers.get(name)
    if not sent:
        return None
    try:
        when = parsedate_to_datetime(sent)
    except ValueError as error:
        raise invalid_header(name.title(), sent) from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
