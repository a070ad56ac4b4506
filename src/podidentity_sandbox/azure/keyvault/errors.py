"""How a vault refuses. The words are the real service's; where each was seen stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podidentity_sandbox.azure.messages import NO_HEADERS


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


def bad_parameter(message: str) -> VaultError:
    """Return the error of a request that makes no sense."""
    return VaultError(400, "BadParameter", message)


def no_such_secret(name: str, version: str = "") -> VaultError:
    """Return the error of a secret, or a version of it, that is not there.

    https://github.com/Azure/azure-sdk-for-js/issues/25489
    """
    return VaultError(
        404,
        "SecretNotFound",
        f"A secret with (name/id) {name}{f'/{version}' if version else ''} was not found in this"
        " key vault. If you recently deleted this secret you may be able to recover it using the"
        " correct recovery command. For help resolving this issue, please see"
        " https://go.microsoft.com/fwlink/?linkid=2125182",
    )


def no_such_deleted_secret(name: str) -> VaultError:
    """Return the error of a secret that was not deleted.

    https://github.com/Azure/azure-sdk-for-net/issues/26027
    """
    return VaultError(404, "SecretNotFound", f"Deleted Secret not found: {name}")


def name_of_deleted_secret(name: str) -> VaultError:
    """Return the error of setting what was deleted and not purged.

    https://github.com/Azure/azure-rest-api-specs/issues/9222, the inner code:
    https://github.com/external-secrets/external-secrets/issues/3519
    """
    return VaultError(
        409,
        "Conflict",
        f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be"
        " reused; in this state, the secret can only be recovered or purged.",
        inner="ObjectIsDeletedButRecoverable",
    )


def disabled_secret() -> VaultError:
    """Return the error of reading what is disabled.

    https://github.com/Azure/azure-sdk-for-js/issues/24756
    """
    message = "Operation get is not allowed on a disabled secret."
    return VaultError(403, "Forbidden", message, inner="SecretDisabled")
