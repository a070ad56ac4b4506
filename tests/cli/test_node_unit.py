"""The unit that `podidentity node-unit` prints: strictly read, and by systemd itself."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from podidentity.kernel.rules import Redirect
from tests.cli.conftest import Ran

Run = Callable[..., Ran]


def read(text: str) -> configparser.ConfigParser:
    """Return the unit; raise configparser.Error for a key that it says twice, and other faults."""
    parser = configparser.ConfigParser(
        delimiters=("=",), comment_prefixes=("#",), interpolation=None, strict=True
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


def test_it_comes_before_the_kubelet_which_does_not_start_without_it(podidentity: Run) -> None:
    unit = read(podidentity("node-unit").out)
    assert unit["Unit"]["Before"] == unit["Install"]["RequiredBy"] == "kubelet.service"
    assert "nftables.service" in unit["Unit"]["After"].split()
    assert unit["Unit"]["RefuseManualStop"] == "yes"
    assert (unit["Service"]["Type"], unit["Service"]["RemainAfterExit"]) == ("oneshot", "yes")


def test_the_kubelet_may_be_a_part_of_another_unit(podidentity: Run) -> None:
    unit = read(podidentity("node-unit", "--kubelet-unit", "k3s-agent.service").out)
    assert unit["Unit"]["Before"] == unit["Install"]["RequiredBy"] == "k3s-agent.service"


@pytest.mark.parametrize("name", ["", "kubelet", "a b.service", "a.service\nExecStart=x"])
def test_what_is_no_name_of_a_unit_is_refused(podidentity: Run, name: str) -> None:
    assert podidentity("node-unit", "--kubelet-unit", name).code == 2


def test_its_command_is_one_of_nft_about_imds_and_a_table_that_is_not_nmis(
    podidentity: Run,
) -> None:
    line = read(podidentity("node-unit").out)["Service"]["ExecStart"]
    program, given = shlex.split(line)
    assert program == "/usr/sbin/nft"
    assert not {"$", "%", "\\"} & set(given), "systemd would read these itself"
    assert f"ip daddr {Redirect().metadata_ip} counter drop" in given
    assert {word for word in given.replace(";", " ").split() if word.startswith("podid")} == {
        "podid_boot"
    }


systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd is not installed here: it cannot judge"
)


@systemd
def test_systemd_takes_it(podidentity: Run, tmp_path: Path) -> None:
    text = podidentity("node-unit").out.replace("/usr/sbin/nft", "/bin/true")
    assert verified(tmp_path, text) == ""


@systemd
def test_systemd_would_say_what_is_wrong(podidentity: Run, tmp_path: Path) -> None:
    text = podidentity("node-unit").out.replace("RemainAfterExit", "RemainsAfterExit")
    assert "Unknown key" in verified(tmp_path, text)


def verified(folder: Path, text: str) -> str:
    """Return what systemd finds wrong with a unit."""
    path = folder / "podidentity-boot.service"
    path.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr
