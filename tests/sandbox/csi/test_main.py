from __future__ import annotations

import argparse

import pytest
from click.testing import CliRunner

from podidentity_sandbox.cli import sandbox
from podidentity_sandbox.cli.csi import manifests
from podidentity_sandbox.csi.main import duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("2m", 120), ("90s", 90), ("500ms", 0.5), ("1h", 3600)]
)
def test_an_interval_is_written_as_go_writes_it(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "2", "m", "-1s", "1.5s", "2 m", "1m30s"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="invalid duration"):
        duration(text)
    ran = CliRunner().invoke(sandbox, ["csi", "--rotation-poll-interval", text])
    assert ran.exit_code == 2
    assert "invalid duration" in ran.output


def test_without_a_sandbox_the_command_says_so() -> None:
    ran = CliRunner().invoke(sandbox, ["csi", "--name", "there-is-none"])
    assert ran.exit_code == 1
    assert "there-is-none" in ran.output


def test_the_driver_is_installed_under_the_providers_own_service_account() -> None:
    *_, daemon_set = manifests(rotation="7s")
    spec = daemon_set["spec"]["template"]["spec"]
    assert (spec["serviceAccountName"], spec["hostNetwork"]) == (
        "csi-secrets-store-provider-azure",
        True,
    )
    (container,) = spec["containers"]
    assert container["args"] == ["--rotation-poll-interval=7s", "--healthz-port=8989"]


def test_its_objects_are_made_in_an_order_that_holds() -> None:
    assert [one["kind"] for one in manifests(rotation="2m")] == [
        "CustomResourceDefinition",
        "CSIDriver",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "DaemonSet",
    ]
