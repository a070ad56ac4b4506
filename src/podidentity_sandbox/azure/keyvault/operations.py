"""Every operation of a vault on one page: method, path, the permission that it needs, handler."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from podidentity_sandbox.azure.keyvault import secrets
from podidentity_sandbox.azure.keyvault.errors import VaultError, bad_parameter
from podidentity_sandbox.azure.keyvault.secrets import Call
from podidentity_sandbox.azure.messages import Reply, Request


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table."""

    method: str
    path: re.Pattern[str]
    permission: str
    do: Callable[[Call], Reply]


def _row(method: str, path: str, permission: str, do: Callable[[Call], Reply]) -> Operation:
    return Operation(method, re.compile(f"{path}/?"), permission, do)


_ALL, _GONE = "/secrets", "/deletedsecrets"
_ONE, _ONE_GONE = f"{_ALL}/(?P<name>[^/]*)", f"{_GONE}/(?P<name>[^/]+)"
_VERSION = f"{_ONE}(?:/(?P<version>[^/]*))?"
OPERATIONS = (
    _row("GET", _ALL, "list", secrets.list_secrets),
    _row("GET", f"{_ONE}/versions", "list", secrets.list_versions),
    _row("GET", _VERSION, "get", secrets.get),
    _row("PUT", _ONE, "set", secrets.put),
    _row("PATCH", _VERSION, "set", secrets.update),
    _row("DELETE", _ONE, "delete", secrets.delete),
    _row("GET", _GONE, "list", secrets.list_deleted),
    _row("GET", _ONE_GONE, "get", secrets.get_deleted),
    _row("POST", f"{_ONE_GONE}/recover", "recover", secrets.recover),
    _row("DELETE", _ONE_GONE, "purge", secrets.purge),
)
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")


def operation_of(request: Request) -> tuple[Operation, str, str]:
    """Return what is asked, with the name and the version of the path; raise VaultError."""
    for row in OPERATIONS:
        match = row.path.fullmatch(request.path)
        if match and row.method == request.method:
            names = match.groupdict()
            name = names.get("name")
            if name is not None and not _NAME.fullmatch(name):
                raise bad_parameter(f"The request URI contains an invalid name: {name}")
            return row, name or "", names.get("version") or ""
    raise VaultError(404, "NotFound", "The sandbox serves secrets only.")
