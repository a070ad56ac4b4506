"""Parameters of a SecretProviderClass for the Azure provider; refusals in the provider's words.

Order and texts: pkg/provider/provider.go, validate.go and types/parameters.go of
https://github.com/Azure/secrets-store-csi-driver-provider-azure (v1.8). Served is the mode
`usePodIdentity`, with secrets; the other modes need no NMI.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml


class MountFailed(Exception):
    """The volume cannot be mounted; `code` is gRPC's."""

    def __init__(self, message: str, code: str = "Unknown") -> None:
        super().__init__(message)
        self.code = code


POD_NAME = "csi.storage.k8s.io/pod.name"
POD_NAMESPACE = "csi.storage.k8s.io/pod.namespace"

# Of the clouds of autorest/azure; the sandbox is the first.
_CLOUDS = {
    "AZUREPUBLICCLOUD": ("https://vault.azure.net", "vault.azure.net"),
    "AZUREUSGOVERNMENTCLOUD": ("https://vault.usgovcloudapi.net", "vault.usgovcloudapi.net"),
    "AZURECHINACLOUD": ("https://vault.azure.cn", "vault.azure.cn"),
}
_TRUE, _FALSE = (
    {"1", "t", "T", "true", "TRUE", "True"},
    {"0", "f", "F", "false", "FALSE", "False"},
)
_MODES = ("usePodIdentity", "useVMManagedIdentity", "useAzureTokenProxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultObject:
    """One object of a vault, and the file that it becomes."""

    name: str
    type: str
    alias: str = ""
    version: str = ""
    encoding: str = ""
    mode: int = 0o644

    @property
    def file(self) -> str:
        """Its path below the volume."""
        return self.alias or self.name

    def failed(self, why: object) -> MountFailed:
        """Return the error that names the object."""
        return MountFailed(
            f"failed to get objectType:{self.type}, objectName:{self.name}, "
            f"objectVersion:{self.version}: {why}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRequest:
    """All that a volume needs."""

    vault: str
    """Host of the vault."""
    resource: str
    pod_namespace: str
    pod_name: str
    objects: tuple[VaultObject, ...]


def parse(given: Mapping[str, str]) -> MountRequest:
    """Return the request in the parameters, which include the pod's attributes."""
    parameters = {name: value.strip() for name, value in given.items()}
    used = [_flag(parameters, mode) for mode in _MODES]
    if sum(used) > 1:
        raise MountFailed(
            "only one identity mode can be enabled at a time: "
            "usePodIdentity, useVMManagedIdentity, or useAzureTokenProxy"
        )
    vault = _needed(parameters, "keyvaultName")
    if not (parameters.get("tenantID") or parameters.get("tenantId")):
        raise MountFailed("tenantId is not set")
    resource, suffix = _cloud(parameters.get("cloudName", ""))
    _check_mode(used)
    objects = tuple(_objects(_needed(parameters, "objects")))
    if objects:
        _check_vault(vault)
    pod_namespace, pod_name = parameters.get(POD_NAMESPACE, ""), parameters.get(POD_NAME, "")
    if objects and not (pod_namespace and pod_name):
        raise MountFailed(
            "failed to get keyvault client: pod information is not available. "
            "deploy a CSIDriver object to set podInfoOnMount: true"
        )
    return MountRequest(
        vault=f"{vault}.{suffix}",
        resource=resource,
        pod_namespace=pod_namespace,
        pod_name=pod_name,
        objects=objects,
    )


def _flag(parameters: Mapping[str, str], name: str) -> bool:
    text = parameters.get(name, "")
    if text in _TRUE:
        return True
    if not text or text in _FALSE:
        return False
    raise MountFailed(
        f'failed to parse {name} flag, error: strconv.ParseBool: parsing "{text}": invalid syntax'
    )


def _needed(parameters: Mapping[str, str], name: str) -> str:
    value = parameters.get(name, "")
    if not value:
        raise MountFailed(f"{name} is not set")
    return value


def _cloud(name: str) -> tuple[str, str]:
    found = _CLOUDS.get(name.upper() or "AZUREPUBLICCLOUD")
    if found is None:
        raise MountFailed(
            f"cloudName {name} is not valid, error: autorest/azure: There is no cloud environment "
            f'matching the name "{name.upper()}"'
        )
    return found


def _check_mode(used: list[bool]) -> None:
    pod_identity, *others = used
    if any(others):
        raise MountFailed("the sandbox's provider serves usePodIdentity only")
    if not pod_identity:
        raise MountFailed(
            "failed to create auth config, error: failed to get credentials, "
            "nodePublishSecretRef secret is not set"
        )


def _check_vault(name: str) -> None:
    if not 3 <= len(name) <= 24:
        why = "must be between 3 and 24 chars"
    elif not re.fullmatch(r"[-A-Za-z0-9]+", name):
        why = "must match [-a-zA-Z0-9]{3,24}"
    else:
        return
    raise MountFailed(f'failed to get vault: Invalid vault name: "{name}", {why}')


def _objects(text: str) -> list[VaultObject]:
    try:
        entries = _mapping(yaml.safe_load(text)).get("array") or []
    except (yaml.YAMLError, TypeError) as error:
        raise MountFailed(f"failed to yaml unmarshal objects, error: {_line(error)}") from error
    found = []
    for index, entry in enumerate(entries):
        try:
            fields = _mapping(yaml.safe_load(entry))
        except (yaml.YAMLError, TypeError, AttributeError) as error:
            raise MountFailed(
                f"unmarshal failed for keyVaultObjects at index {index}, error: {_line(error)}"
            ) from error
        found.append(_object(fields))
    return found


def _object(fields: Mapping[str, Any]) -> VaultObject:
    def text(name: str) -> str:
        value = fields.get(name)
        return "" if value is None else str(value).strip()

    found = VaultObject(
        name=text("objectName"),
        type=text("objectType"),
        alias=text("objectAlias"),
        version=text("objectVersion"),
        encoding=text("objectEncoding").lower(),
    )
    why = _why_not(found, text("objectFormat"))
    if int(fields.get("objectVersionHistory") or 0) > 1:
        why = why or "the sandbox's provider does not serve objectVersionHistory"
    if why:
        raise found.failed(why)
    mode = text("filePermission")
    try:
        return replace(found, mode=int(mode, 8)) if mode else found
    except ValueError:
        raise found.failed(
            f'file permission must be a valid octal number: strconv.ParseInt: parsing "{mode}": '
            "invalid syntax"
        ) from None


def _why_not(found: VaultObject, form: str) -> str:
    if form and form.lower() not in {"pem", "pfx"}:
        return f"invalid objectFormat: {form}, should be PEM or PFX"
    if found.encoding not in {"", "hex", "base64", "utf-8"}:
        return f"invalid objectEncoding: {found.encoding}, should be hex, base64 or utf-8"
    if not found.file:
        return "file name must not be empty"
    if found.file.startswith("/"):
        return "file name must be a relative path"
    if ".." in found.file:
        return "file name must not contain '..'"
    return ""


def _mapping(value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(f"cannot unmarshal {type(value).__name__} into a mapping")
    return value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
