"""Azure's clouds, their authorities (the issuers of tokens), and tenants.

An AzureIdentity may name an authority, and its secret is sent there. So only the authorities of
Azure's clouds and those that the operator configured are valid. A tenant becomes part of a URL, so
it must be a GUID or a domain name.

https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from podidentity.core.ids import GUID, InvalidId

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+", re.ASCII)
_AUTHORITY = re.compile(rf"https://({_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?)/?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's id or one of its domain names, in lower case."""

    text: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the tenant in `text`; raise InvalidId."""
        if not isinstance(text, str):
            raise InvalidId(f"must be a GUID or a domain name, not {type(text).__name__}")
        folded = text.strip().lower()
        # `adfs` is Azure Stack Hub's name for the one tenant of AD FS.
        if folded == "adfs" or GUID.fullmatch(folded):
            return cls(folded)
        if len(folded) > 253 or not _DOMAIN.fullmatch(folded):
            raise InvalidId(f"must be a GUID or a domain name, not {text[:80]!r}")
        return cls(folded)

    @property
    def is_id(self) -> bool:
        """Whether it is the tenant's id, not one of its domain names."""
        return GUID.fullmatch(self.text) is not None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Authority:
    """An https origin that issues tokens, in lower case and without a slash at its end."""

    url: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the authority in `text`; raise InvalidId.

        It is an https origin, without user, path, query or fragment.
        """
        if not isinstance(text, str):
            raise InvalidId(f"must be an https URL, not {type(text).__name__}")
        found = _AUTHORITY.fullmatch(text.strip().lower())
        if found is None:
            raise InvalidId(f"must be https://HOST/ and nothing more, not {text[:80]!r}")
        return cls(f"https://{found.group(1)}")

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """One of Azure's clouds."""

    name: str
    authority: Authority
    """The issuer of its tokens."""
    exchange_audience: str
    """Audience of a federated assertion."""
    resource_manager: str = ""
    """URL of its Azure Resource Manager; "" if it is unknown."""
    resource_manager_audience: str = ""
    """Audience of a token for the resource manager."""


def _cloud(name: str, host: str, manager: str, suffix: str = "") -> Cloud:
    # The audiences are the endpoints:
    # https://github.com/Azure/azure-sdk-for-python/blob/main/sdk/core/azure-mgmt-core/azure/mgmt/core/tools.py
    return Cloud(
        name=name,
        authority=Authority(f"https://{host}"),
        exchange_audience=f"api://AzureADTokenExchange{suffix}",
        resource_manager=f"https://{manager}",
        resource_manager_audience=f"https://{manager}",
    )


PUBLIC = _cloud("AzurePublicCloud", "login.microsoftonline.com", "management.azure.com")
_US = _cloud(
    "AzureUSGovernmentCloud",
    "login.microsoftonline.us",
    "management.usgovcloudapi.net",
    suffix="USGov",
)
_CHINA = _cloud(
    "AzureChinaCloud", "login.chinacloudapi.cn", "management.chinacloudapi.cn", suffix="China"
)
_GERMANY = _cloud("AzureGermanCloud", "login.microsoftonline.de", "management.microsoftazure.de")
CLOUDS = {
    "azurepubliccloud": PUBLIC,
    "azurecloud": PUBLIC,
    "azureusgovernmentcloud": _US,
    "azureusgovernment": _US,
    "azurechinacloud": _CHINA,
    "azuregermancloud": _GERMANY,
}
"""By name in lower case, the older names included."""


_OTHER_NAMES = {
    "login.windows.net": PUBLIC,
    "sts.windows.net": PUBLIC,
    "login.microsoft.com": PUBLIC,
    "login.partner.microsoftonline.cn": CLOUDS["azurechinacloud"],
}
EXCHANGE_AUDIENCES = {cloud.authority.url: cloud.exchange_audience for cloud in CLOUDS.values()} | {
    f"https://{host}": cloud.exchange_audience for host, cloud in _OTHER_NAMES.items()
}
"""Audience of assertions by the authority's URL: each cloud accepts only its own.

https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity
"""

KNOWN_AUTHORITIES = frozenset(map(Authority, EXCHANGE_AUDIENCES))
"""Microsoft's own authorities: a secret may be sent to any of them."""
