"""Parameters of a SecretProviderClass for the Azure provider; refusals in the provider's words.

Order and texts: pkg/provider/provider.go and types/parameters.go of
https://github.com/Azure/secrets-store-csi-driver-provider-azure (v1.8). Served is the mode
`usePodIdentity` in the public cloud, with secrets; the other modes need no NMI.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import yaml


class MountFailed(Exception):
    """The volume cannot be mounted; `code` is gRPC's."""

    def __init__(self, message: str, code: str = "Unknown") -> None:
        super().__init__(message)
        self.code = code


POD_NAME = "csi.storage.k8s.io/pod.name"
POD_NAMESPACE = "csi.storage.k8s.io/pod.namespace"

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("", "0", "f", "F", "false", "FALSE", "False")
_MODES = ("usePodIdentity", "useVMManagedIdentity", "useAzureTokenProxy")


class VaultObject(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One object of a vault, and the file that it becomes."""

    object_name: str
    object_type: str
    object_alias: str = ""
    object_version: str = ""

    @property
    def file(self) -> str:
        return self.object_alias or self.object_name

    def failed(self, why: object) -> MountFailed:
        return MountFailed(
            f"failed to get objectType:{self.object_type}, objectName:{self.object_name}, "
            f"objectVersion:{self.object_version}: {why}"
        )


def parse(given: Mapping[str, str]) -> tuple[str, list[VaultObject]]:
    """Return the name of the vault, and what to read there; raise MountFailed."""
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
    if parameters.get("cloudName", "").upper() not in {"", "AZUREPUBLICCLOUD"}:
        raise MountFailed("the sandbox's provider serves cloudName AzurePublicCloud only")
    if any(used[1:]):
        raise MountFailed("the sandbox's provider serves usePodIdentity only")
    if not used[0]:
        raise MountFailed(
            "failed to create auth config, error: failed to get credentials, "
            "nodePublishSecretRef secret is not set"
        )
    return vault, _objects(_needed(parameters, "objects"))


def _flag(parameters: Mapping[str, str], name: str) -> bool:
    text = parameters.get(name, "")
    if text not in _TRUE + _FALSE:
        raise MountFailed(
            f"failed to parse {name} flag, error: strconv.ParseBool: "
            f'parsing "{text}": invalid syntax'
        )
    return text in _TRUE


def _needed(parameters: Mapping[str, str], name: str) -> str:
    value = parameters.get(name, "")
    if not value:
        raise MountFailed(f"{name} is not set")
    return value


def _objects(text: str) -> list[VaultObject]:
    where = "failed to yaml unmarshal objects"
    try:
        array = msgspec.convert(yaml.safe_load(text), dict[str, list[str]]).get("array", [])
        found = []
        for index, entry in enumerate(array):
            where = f"unmarshal failed for keyVaultObjects at index {index}"
            found.append(msgspec.convert(yaml.safe_load(entry), VaultObject))
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise MountFailed(f"{where}, error: {' '.join(str(error).split())}") from error
    return found
