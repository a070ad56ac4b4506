"""Azure's clouds, and the authorities that are known to issue tokens.

An AzureIdentity may name an authority, and its secret is sent there. So only the authorities of
Azure's clouds and those that the operator configured are valid.

https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
"""

from __future__ import annotations

from dataclasses import dataclass

from podidentity.core.resources import Authority

STACK = "AzureStackCloud"
"""What Azure calls a cloud that a file describes, such as an Azure Stack Hub."""


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
    graph: str = ""
    """URL of its Microsoft Graph, and audience of a token for it; "" if it has none.
    https://learn.microsoft.com/graph/deployments
    """

    @property
    def manager_scope(self) -> str:
        """Scope by which such a token is asked for."""
        return f"{self.resource_manager_audience}/.default"


def _cloud(name: str, host: str, manager: str, suffix: str = "", graph: str = "") -> Cloud:
    # The audiences are the endpoints:
    # https://github.com/Azure/azure-sdk-for-python/blob/main/sdk/core/azure-mgmt-core/azure/mgmt/core/tools.py
    return Cloud(
        name=name,
        authority=Authority(f"https://{host}"),
        exchange_audience=f"api://AzureADTokenExchange{suffix}",
        resource_manager=f"https://{manager}",
        resource_manager_audience=f"https://{manager}",
        graph=f"https://{graph}" if graph else "",
    )


PUBLIC = _cloud(
    "AzurePublicCloud",
    "login.microsoftonline.com",
    "management.azure.com",
    graph="graph.microsoft.com",
)
_US = _cloud(
    "AzureUSGovernmentCloud",
    "login.microsoftonline.us",
    "management.usgovcloudapi.net",
    suffix="USGov",
    graph="graph.microsoft.us",
)
_CHINA = _cloud(
    "AzureChinaCloud",
    "login.chinacloudapi.cn",
    "management.chinacloudapi.cn",
    suffix="China",
    graph="microsoftgraph.chinacloudapi.cn",
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
