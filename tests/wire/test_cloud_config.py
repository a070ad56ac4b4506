from __future__ import annotations

import pytest

from podidentity.wire.cloud_config import CloudConfig, parse_cloud_config

AKS = b"""{
  "cloud": "AzurePublicCloud",
  "tenantId": "11111111-0000-0000-0000-000000000000",
  "subscriptionId": "s", "resourceGroup": "MC_g", "vmType": "vmss",
  "aadClientId": "msi", "aadClientSecret": "msi",
  "useManagedIdentityExtension": true,
  "userAssignedIdentityID": "22222222-0000-0000-0000-000000000000",
  "loadBalancerSku": "Standard", "maximumLoadBalancerRuleCount": 250, "excludeMaster": true
}"""
YAML = b"""
cloud: AzureUSGovernmentCloud
tenantId: 11111111-0000-0000-0000-000000000000
aadClientId: 33333333-0000-0000-0000-000000000000
aadClientSecret: "pa:ss # word"
useManagedIdentityExtension: false
"""


def test_the_file_of_an_aks_node_names_its_managed_identity() -> None:
    assert parse_cloud_config(AKS) == CloudConfig(
        cloud="AzurePublicCloud",
        tenant="11111111-0000-0000-0000-000000000000",
        client_id="msi",
        client_secret="msi",
        managed=True,
        managed_client_id="22222222-0000-0000-0000-000000000000",
    )


def test_yaml_is_read_too_as_the_archived_controller_did() -> None:
    found = parse_cloud_config(YAML)
    assert (found.cloud, found.managed) == ("AzureUSGovernmentCloud", False)
    assert found.client_secret == "pa:ss # word"


@pytest.mark.parametrize("body", [b"{}", b'{"cloud":null,"tenantId":null}', b"\xef\xbb\xbf{}"])
def test_a_file_may_say_nothing(body: bytes) -> None:
    assert parse_cloud_config(body) == CloudConfig()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"tenantId": {"a": "s3cr3t"}}',
        b"a: [",
        b"\xff\xfe",
        b"s3cr3t",
        b"aadClientSecret: {s3cr3t: 1}",
    ],
)
def test_what_cannot_be_read_is_told_and_quotes_nothing(body: bytes) -> None:
    with pytest.raises(ValueError, match="neither JSON nor YAML") as told:
        parse_cloud_config(body)
    assert "s3cr3t" not in str(told.value)
    assert told.value.__suppress_context__


def test_the_secret_shows_itself_nowhere() -> None:
    assert "pa:ss" not in repr(parse_cloud_config(YAML))
