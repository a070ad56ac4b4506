"""The clouds and tenants of the sandbox's Entra: the home of its subscription, and three others.

A partner's tenant in the same cloud, for applications of more than one tenant; one tenant each in
the clouds of the US government and of China, which know nothing of the public one.

https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from podidentity_sandbox.plan import Plan, stable_guid

EXCHANGE = "api://AzureADTokenExchange"
EXCHANGE_APP = "fb60f99c-7a34-4190-8149-302f77469936"
"""Application id of that resource, the same in every tenant of the public cloud: the audience
that tokens for it carry, as in every example that people publish:
https://github.com/search?type=code&q=fb60f99c-7a34-4190-8149-302f77469936"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """An Azure that is closed in itself."""

    name: str
    logins: tuple[str, ...]
    """Host names of its Entra; by the first it names itself."""
    sts: str
    """Host name in the issuer of v1 tokens."""
    resources: tuple[str, ...]
    """Resources with a service principal in every tenant, without the slash that may follow."""
    graph: str
    """Host name of its Graph."""
    blobs: str
    """The suffix of its storage accounts' names."""

    def has_resource(self, name: str) -> bool:
        """Return whether its tenants know the resource; one slash at the end is part of its name.

        A storage account's own name is one too:
        https://learn.microsoft.com/azure/storage/blobs/authorize-access-azure-active-directory#microsoft-authentication-library-msal
        """
        resource = name.removesuffix("/")
        account = re.fullmatch(rf"https://[a-z0-9]{{3,24}}{re.escape(self.blobs)}", resource)
        return resource in self.resources or account is not None


PUBLIC = Cloud(
    name="AzurePublicCloud",
    logins=("login.microsoftonline.com", "sts.windows.net", "login.windows.net"),
    sts="sts.windows.net",
    resources=(
        "https://management.core.windows.net",
        "https://management.azure.com",
        "https://vault.azure.net",
        "https://graph.microsoft.com",
        "https://storage.azure.com",
        "https://database.windows.net",
        EXCHANGE,
    ),
    graph="graph.microsoft.com",
    blobs=".blob.core.windows.net",
)
GOVERNMENT = Cloud(
    name="AzureUSGovernmentCloud",
    logins=("login.microsoftonline.us",),
    # https://github.com/microsoft/botbuilder-dotnet: GovernmentAuthenticationConstants.
    sts="sts.windows.net",
    resources=(
        "https://management.core.usgovcloudapi.net",
        "https://management.usgovcloudapi.net",
        "https://vault.usgovcloudapi.net",
        "https://graph.microsoft.us",
        "https://storage.azure.com",
        "https://database.usgovcloudapi.net",
        f"{EXCHANGE}USGov",
    ),
    graph="graph.microsoft.us",
    blobs=".blob.core.usgovcloudapi.net",
)
CHINA = Cloud(
    name="AzureChinaCloud",
    logins=("login.partner.microsoftonline.cn", "login.chinacloudapi.cn"),
    sts="sts.chinacloudapi.cn",
    resources=(
        "https://management.core.chinacloudapi.cn",
        "https://management.chinacloudapi.cn",
        "https://vault.azure.cn",
        "https://microsoftgraph.chinacloudapi.cn",
        "https://storage.azure.com",
        "https://database.chinacloudapi.cn",
        f"{EXCHANGE}China",
    ),
    graph="microsoftgraph.chinacloudapi.cn",
    blobs=".blob.core.chinacloudapi.cn",
)
CLOUDS = (PUBLIC, GOVERNMENT, CHINA)
MANAGEMENT = ("management.azure.com", "management.core.windows.net")
"""Host names of the one ARM that there is: the public cloud's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A directory."""

    id: str
    domain: str
    """The name by which it can be addressed as well."""
    cloud: Cloud

    @property
    def issuer(self) -> str:
        return f"https://{self.cloud.sts}/{self.id}/"

    @property
    def issuer_v2(self) -> str:
        return f"https://{self.cloud.logins[0]}/{self.id}/v2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenants:
    """All tenants."""

    home: Tenant
    """Of the subscription, its managed identities and the operator."""
    partner: Tenant
    """Another one of the same cloud."""
    government: Tenant
    china: Tenant

    @property
    def all(self) -> tuple[Tenant, ...]:
        return self.home, self.partner, self.government, self.china

    def find(self, name: str) -> Tenant | None:
        wanted = name.lower()
        return next((one for one in self.all if wanted in {one.id, one.domain}), None)


def tenants_of(plan: Plan) -> Tenants:
    """Return the tenants of a sandbox: the same at each `up`."""

    def other(what: str, domain: str, cloud: Cloud) -> Tenant:
        return Tenant(id=stable_guid(plan.name, f"{what} tenant"), domain=domain, cloud=cloud)

    return Tenants(
        home=Tenant(id=plan.tenant_id, domain="contoso.onmicrosoft.com", cloud=PUBLIC),
        partner=other("partner", "fabrikam.onmicrosoft.com", PUBLIC),
        government=other("government", "contoso.onmicrosoft.us", GOVERNMENT),
        china=other("china", "contoso.partner.onmschina.cn", CHINA),
    )


def cloud_of(host: str) -> Cloud | None:
    return next((cloud for cloud in CLOUDS if host in cloud.logins), None)
