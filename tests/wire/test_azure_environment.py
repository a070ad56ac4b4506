from __future__ import annotations

import json

import pytest

from podidentity.wire.azure_environment import parse_environment


def described(endpoint: str) -> bytes:
    more = {"name": "AzureStackCloud", "tokenAudience": "https://management.x/", "n": [1]}
    return json.dumps(more | {"activeDirectoryEndpoint": endpoint}).encode()


@pytest.mark.parametrize(
    ("endpoint", "authority"),
    [
        ("https://login.microsoftonline.com/", "https://login.microsoftonline.com"),
        ("https://adfs.local.azurestack.external/adfs", "https://adfs.local.azurestack.external"),
        ("https://adfs.local.azurestack.external/adfs/", "https://adfs.local.azurestack.external"),
        ("https://login.X/", "https://login.x"),
    ],
)
def test_a_stack_hub_is_described_by_its_file(endpoint: str, authority: str) -> None:
    found = parse_environment(described(endpoint))
    assert (found.name, found.authority.url) == ("AzureStackCloud", authority)


@pytest.mark.parametrize(
    ("manager", "audience", "found"),
    [
        ("https://m.x/", "https://a.x/", ("https://m.x", "https://a.x")),
        ("https://m.x", "https://a.x", ("https://m.x", "https://a.x")),
        ("https://m.x//", "", ("https://m.x", "https://m.x")),
        ("https://m.x/X/", "https://a.x/X/", ("https://m.x/X", "https://a.x/X")),
        ("", "", ("", "")),
    ],
)
def test_its_manager_is_its_own_audience_unless_the_file_says_another(
    manager: str, audience: str, found: tuple[str, str]
) -> None:
    urls = {"resourceManagerEndpoint": manager, "tokenAudience": audience}
    told = {"activeDirectoryEndpoint": "https://a.b", **urls}
    cloud = parse_environment(json.dumps(told).encode())
    assert (cloud.resource_manager, cloud.resource_manager_audience) == found
    assert cloud.name == "AzureStackCloud"
    assert cloud.exchange_audience == "api://AzureADTokenExchange"


def test_a_manager_without_tls_is_refused() -> None:
    told = {"activeDirectoryEndpoint": "https://a.b", "resourceManagerEndpoint": "http://m.x"}
    with pytest.raises(ValueError, match="resourceManagerEndpoint must be an https URL"):
        parse_environment(json.dumps(told).encode())


def test_the_mark_that_windows_puts_before_a_file_is_no_part_of_it() -> None:
    assert parse_environment(b"\xef\xbb\xbf" + described("https://a.b/")).authority.url


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", described("http://a.b/"), described("https://a.b/x")]
)
def test_any_other_file_is_refused_with_the_reason(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"no environment file|activeDirectoryEndpoint"):
        parse_environment(body)
