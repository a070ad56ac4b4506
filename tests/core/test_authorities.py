from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.authorities import CLOUDS, EXCHANGE_AUDIENCES, KNOWN_AUTHORITIES, PUBLIC
from podidentity.core.resources import Authority, InvalidId, Tenant

GUID = "72F988BF-86F1-41AF-91AB-2D7CD011DB47"


@pytest.mark.parametrize(
    ("text", "tenant"),
    [
        (GUID, GUID.lower()),
        (f" {GUID} ", GUID.lower()),
        ("Contoso.onmicrosoft.com", "contoso.onmicrosoft.com"),
        ("a-b.example", "a-b.example"),
        ("ADFS", "adfs"),
    ],
)
def test_a_tenant_is_a_guid_or_a_domain_name_in_lower_case(text: str, tenant: str) -> None:
    assert str(Tenant.parse(text)) == tenant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "common",
        "contoso",
        "../x",
        "a/b.example",
        "a.example/",
        "a..example",
        "-a.example",
        "a.example?x=1",
        "a.example#",
        "a%2eexample.com",
        "a.exa mple",
        "a.example\nb",
        "ä.example",
        "\u212aontoso.example",  # the sign for kelvin: a k in lower case
        "a." * 130 + "example",
        "x" * 64 + ".example",
        GUID[:-1],
        "{" + GUID + "}",
        None,
        7,
        ["a.example"],
    ],
)
def test_anything_else_is_no_tenant_and_enters_no_url(text: object) -> None:
    with pytest.raises(InvalidId, match="must be a GUID or a domain name"):
        Tenant.parse(text)


@given(st.text())
def test_whatever_a_tenant_is_it_is_one_segment_of_a_path(text: str) -> None:
    try:
        found = str(Tenant.parse(text))
    except InvalidId:
        return
    assert not set(found) & set("/\\?#%:@ ")
    assert ".." not in found


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://login.microsoftonline.com/", "https://login.microsoftonline.com"),
        ("HTTPS://LOGIN.microsoftonline.us", "https://login.microsoftonline.us"),
        (
            " https://adfs.local.azurestack.external:8443/ ",
            "https://adfs.local.azurestack.external:8443",
        ),
        ("https://stack", "https://stack"),
        ("https://stack:65535", "https://stack:65535"),
    ],
)
def test_an_authority_is_an_https_origin(text: str, url: str) -> None:
    assert str(Authority.parse(text)) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "login.microsoftonline.com",
        "http://login.microsoftonline.com",
        "https://login.microsoftonline.com//",
        "https://login.microsoftonline.com/common",
        "https://login.microsoftonline.com?x",
        "https://login.microsoftonline.com#x",
        "https://user@login.microsoftonline.com",
        "https://login.microsoftonline.com\\@evil.example",
        "https://login.microsoftonline.com:port",
        "https://login.microsoftonline.com:",
        "https://login.microsoftonline.com:0",
        "https://login.microsoftonline.com:65536",
        "https://\u212aontoso.example",
        "https://[::1]",
        f"https://{'a.' * 127}a",
        "https://",
        "https:///x",
        "https://a b",
        "file:///etc/passwd",
        None,
        3,
    ],
)
def test_anything_else_is_no_authority(text: object) -> None:
    with pytest.raises(InvalidId, match="must be"):
        Authority.parse(text)


def test_a_name_that_only_looks_like_a_known_one_is_not_known() -> None:
    for host in ("login.microsoftonline.com.evil.example", "login-microsoftonline.com", "x.com"):
        assert Authority.parse(f"https://{host}") not in KNOWN_AUTHORITIES


@pytest.mark.parametrize(
    ("name", "host", "manager", "exchange"),
    [
        ("Public", "login.microsoftonline.com", "management.azure.com", ""),
        ("USGovernment", "login.microsoftonline.us", "management.usgovcloudapi.net", "USGov"),
        ("China", "login.chinacloudapi.cn", "management.chinacloudapi.cn", "China"),
        ("German", "login.microsoftonline.de", "management.microsoftazure.de", ""),
    ],
)
def test_a_cloud_has_an_issuer_a_manager_and_an_audience_for_assertions(
    name: str, host: str, manager: str, exchange: str
) -> None:
    """Of https://github.com/Azure/go-autorest/blob/main/autorest/azure/environments.go."""
    found = CLOUDS[f"azure{name}cloud".lower()]
    assert (found.name, found.authority.url) == (f"Azure{name}Cloud", f"https://{host}")
    assert found.resource_manager == found.resource_manager_audience == f"https://{manager}"
    assert found.exchange_audience == f"api://AzureADTokenExchange{exchange}"
    assert EXCHANGE_AUDIENCES[found.authority.url] == found.exchange_audience


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("login.windows.net", "azurepubliccloud"),
        ("sts.windows.net", "azurepubliccloud"),
        ("login.microsoft.com", "azurepubliccloud"),
        ("login.partner.microsoftonline.cn", "azurechinacloud"),
    ],
)
def test_another_name_of_an_issuer_is_known_with_its_clouds_audience(host: str, name: str) -> None:
    assert Authority.parse(f"https://{host}") in KNOWN_AUTHORITIES
    assert EXCHANGE_AUDIENCES[f"https://{host}"] == CLOUDS[name].exchange_audience


def test_every_cloud_but_germanys_has_a_graph() -> None:
    graphs = {cloud.name: cloud.graph for cloud in CLOUDS.values()}
    assert graphs == {
        "AzurePublicCloud": "https://graph.microsoft.com",
        "AzureUSGovernmentCloud": "https://graph.microsoft.us",
        "AzureChinaCloud": "https://microsoftgraph.chinacloudapi.cn",
        "AzureGermanCloud": "",
    }


def test_all_documented_clouds_are_known_by_their_old_names_too() -> None:
    assert CLOUDS["azurecloud"] is PUBLIC
    assert CLOUDS["azureusgovernment"] is CLOUDS["azureusgovernmentcloud"]
    for name in ("azurepubliccloud", "azureusgovernment", "azurechinacloud", "azuregermancloud"):
        assert CLOUDS[name].authority in KNOWN_AUTHORITIES
