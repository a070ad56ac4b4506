"""The cloud provider's configuration of a node, `/etc/kubernetes/azure.json`.

It is JSON on AKS; the archived controller read it as YAML, and so other clusters have YAML. Other
keys than these are ignored. It holds a secret, so no error quotes any of it.

https://cloud-provider-azure.sigs.k8s.io/install/configs/
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from podidentity.wire import BROKEN_JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudConfig:
    """What it says about the cloud, and about how to sign in."""

    cloud: str = ""
    tenant: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    managed: bool = False
    """Whether to sign in by a managed identity of the machine."""
    managed_client_id: str = ""
    """Which; "" for the system-assigned one."""


class _File(msgspec.Struct):
    cloud: str | None = None
    tenantId: str | None = None  # noqa: N815 - the file's own name, as those below
    aadClientId: str | None = None  # noqa: N815
    aadClientSecret: str | None = None  # noqa: N815
    useManagedIdentityExtension: bool | None = None  # noqa: N815
    userAssignedIdentityID: str | None = None  # noqa: N815


def parse_cloud_config(body: bytes) -> CloudConfig:
    """Return what the file says; raise ValueError, which quotes nothing of it."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        found = msgspec.json.decode(body, type=_File)
    except BROKEN_JSON:
        found = _parsed_yaml(body)
    return CloudConfig(
        cloud=found.cloud or "",
        tenant=found.tenantId or "",
        client_id=found.aadClientId or "",
        client_secret=found.aadClientSecret or "",
        managed=bool(found.useManagedIdentityExtension),
        managed_client_id=found.userAssignedIdentityID or "",
    )


def _parsed_yaml(body: bytes) -> _File:
    try:
        return msgspec.yaml.decode(body, type=_File, strict=False)
    except BROKEN_JSON:
        raise ValueError(
            "it is neither JSON nor YAML with the fields of a cloud provider's configuration "
            "(tenantId, aadClientId, aadClientSecret, useManagedIdentityExtension)"
        ) from None
