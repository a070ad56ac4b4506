from __future__ import annotations

import json
from pathlib import Path

import pytest

from podidentity.core.authorities import CLOUDS, PUBLIC
from podidentity.core.decision import Authorization
from podidentity.core.resources import ClientId
from podidentity.mic.controller import Assign
from podidentity.mic.main import cloud_of
from podidentity.mic.policies import controller_settings
from podidentity.settings import MicSettings
from tests.core.objects import client_id
from tests.fakes import CLIENT, OTHER_CLIENT

STACK = {
    "name": "AzureStackCloud",
    "resourceManagerEndpoint": "https://management.local.azurestack.external/",
    "activeDirectoryEndpoint": "https://login.microsoftonline.com/",
    "tokenAudience": "https://management.contoso.onmicrosoft.com/x",
}


def settings(**more: object) -> MicSettings:
    return MicSettings(own_namespace="kube-system", **more)  # type: ignore[arg-type] # a test's own


def test_the_settings_of_mic_are_those_of_its_controller() -> None:
    found = controller_settings(
        settings(assign="all-hosts", detach_grace=7.0, reconcile_interval=9.0, writes_at_once=3)
    )
    assert (found.assign, found.grace, found.reconcile) == (Assign.ALL_HOSTS, 7.0, 9.0)
    assert (found.record_writes, found.asks_permission) == (3, True)
    assert found.rules.exception_namespaces == frozenset({"kube-system"})


@pytest.mark.parametrize(
    ("flag", "assign"),
    [("pods", Assign.PODS), ("all-hosts", Assign.ALL_HOSTS), ("none", Assign.NONE)],
)
def test_what_gets_identities_is_what_the_flag_says(flag: str, assign: Assign) -> None:
    assert controller_settings(settings(assign=flag)).assign is assign


@pytest.mark.parametrize("choice", [Authorization.OBSERVE, Authorization.OFF])
def test_without_rbac_it_is_not_asked_and_that_is_said(
    choice: Authorization, caplog: pytest.LogCaptureFixture
) -> None:
    assert not controller_settings(settings(authorization=choice)).asks_permission
    assert f"--authorization={choice}" in caplog.text


def test_that_pods_of_the_nodes_network_count_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert not controller_settings(settings()).node_network
    assert controller_settings(settings(node_network=True)).node_network
    assert "--attach-for-node-network" in caplog.text


def test_that_identities_of_other_namespaces_count_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    controller_settings(settings())
    assert caplog.text == ""
    assert controller_settings(settings(cross_namespace=True)).rules.cross_namespace
    assert "--compat-cross-namespace" in caplog.text


def test_one_record_at_least_is_written_at_once() -> None:
    found = [controller_settings(settings(writes_at_once=each)) for each in (0, 1, 2)]
    assert [each.record_writes for each in found] == [1, 1, 2]


def test_what_the_cloud_provider_and_mic_use_themselves_is_never_detached(tmp_path: Path) -> None:
    file, mine = tmp_path / "azure.json", str(client_id(7))
    file.write_text(json.dumps({"userAssignedIdentityID": f" {CLIENT.upper()}"}))
    found = controller_settings(
        settings(
            cloud_config=str(file),
            managed_client_id=f" {client_id(7)} ".upper(),
            immutable=frozenset({ClientId(OTHER_CLIENT)}),
        )
    )
    assert found.protected == {CLIENT, OTHER_CLIENT, mine}
    assert controller_settings(settings()).protected == frozenset()


def test_the_cloud_is_that_of_the_file_then_of_the_flag_then_the_public_one(tmp_path: Path) -> None:
    file = tmp_path / "azure.json"
    file.write_text(json.dumps({"cloud": "AzureUSGovernmentCloud"}))
    assert cloud_of(settings()) is PUBLIC
    assert cloud_of(settings(cloud="azurechinacloud")) is CLOUDS["azurechinacloud"]
    both = settings(cloud="AzureChinaCloud", cloud_config=str(file))
    assert cloud_of(both) is CLOUDS["azureusgovernmentcloud"]


@pytest.mark.parametrize(
    ("name", "login", "manager"),
    [
        ("AzurePublicCloud", "login.microsoftonline.com", "management.azure.com"),
        ("AzureUSGovernmentCloud", "login.microsoftonline.us", "management.usgovcloudapi.net"),
        ("AzureChinaCloud", "login.chinacloudapi.cn", "management.chinacloudapi.cn"),
    ],
)
def test_in_each_cloud_mic_signs_in_and_calls_there(name: str, login: str, manager: str) -> None:
    """As listed for their developers.

    https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure
    https://learn.microsoft.com/azure/china/resources-developer-guide
    """
    found = cloud_of(settings(cloud=name))
    assert str(found.authority) == f"https://{login}"
    assert found.resource_manager == f"https://{manager}"
    assert found.manager_scope == f"https://{manager}/.default"


def test_azure_stack_is_described_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "akscustom.json"
    file.write_text(json.dumps(STACK))
    found = cloud_of(settings(cloud="AzureStackCloud", environment_file=str(file)))
    assert found.resource_manager == "https://management.local.azurestack.external"
    assert found.resource_manager_audience == "https://management.contoso.onmicrosoft.com/x"


@pytest.mark.parametrize(
    ("cloud", "environment", "says"),
    [
        ("AzureMoonCloud", "", "must be one of"),
        ("AzureStackCloud", "", "AZURE_ENVIRONMENT_FILEPATH"),
    ],
)
def test_a_cloud_that_is_not_known_is_refused(cloud: str, environment: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        cloud_of(settings(cloud=cloud, environment_file=environment))


def test_a_stack_without_a_resource_manager_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "akscustom.json"
    file.write_text(json.dumps({**STACK, "resourceManagerEndpoint": ""}))
    with pytest.raises(ValueError, match="resourceManagerEndpoint"):
        cloud_of(settings(cloud="AzureStackCloud", environment_file=str(file)))
