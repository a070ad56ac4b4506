from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from podidentity.cli.nmi import nmi, settings_from
from podidentity.core.authorities import CLOUDS, KNOWN_AUTHORITIES, PUBLIC
from podidentity.core.resources import Authority, Tenant
from podidentity.settings import NmiSettings

OWN = Authority("https://login.example")


def settings(*flags: str, **environment: str) -> NmiSettings:
    """Return what these flags make of the settings; raise UsageError."""
    with CliRunner().isolation(env=environment):
        return settings_from(nmi.make_context("nmi", ["--node=n1", *flags]).params)


def test_without_a_flag_it_is_the_public_cloud_and_microsofts_authorities() -> None:
    assert (settings().cloud, settings().authorities) == (PUBLIC, KNOWN_AUTHORITIES)


@pytest.mark.parametrize(
    "name", ["AzureUSGovernmentCloud", "azureusgovernment", " AZURECHINACLOUD"]
)
def test_a_cloud_is_chosen_by_its_name_in_any_case(name: str) -> None:
    assert settings(f"--cloud={name}").cloud is CLOUDS[name.strip().lower()]


def test_authorities_are_added_to_microsofts() -> None:
    flag = "--authorities=https://login.example/, https://other.example:8443,"
    added = settings(flag).authorities - KNOWN_AUTHORITIES
    assert added == {OWN, Authority("https://other.example:8443")}


def test_a_tenant_is_an_id_or_a_domain() -> None:
    assert settings("--tenant-id=Contoso.onmicrosoft.com").tenant == Tenant(
        "contoso.onmicrosoft.com"
    )


def test_a_stack_hub_is_described_by_a_file_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    file.write_text(json.dumps({"activeDirectoryEndpoint": f"{OWN}/adfs"}))
    found = settings("--cloud=AzureStackCloud", AZURE_ENVIRONMENT_FILEPATH=str(file))
    assert found.cloud.authority == OWN
    assert OWN in found.authorities


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--cloud=Azure"], "must be one of"),
        (["--cloud=AzureStackCloud"], "needs --azure-environment-file"),
        (["--cloud=AzureStackCloud", "--azure-environment-file=/nowhere"], "No such file"),
        (["--cloud=AzureStackCloud", "--azure-environment-file=/dev/null"], "no environment file"),
        (["--authorities=http://a.b"], "must be https"),
        (["--tenant-id=a/b"], "GUID or a domain"),
    ],
    ids=["unknown", "no file", "absent", "empty", "plain http", "no tenant"],
)
def test_what_cannot_be_used_is_a_wrong_use_with_its_reason(flags: list[str], why: str) -> None:
    with pytest.raises(click.UsageError, match=why):
        settings(*flags)
