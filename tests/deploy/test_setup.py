"""What `./scripts/setup` says before it installs anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.values import ROOT
from tests.sandbox.world.test_requirements import ENTER

SETUP = str(ROOT / "scripts/setup")
ALONE = ("unshare", "--user", "--map-root-user", "--mount")
BARE = """
mount -t tmpfs none /usr/sbin
[ ! -e /usr/bin/python3 ] || mount --bind /dev/null /usr/bin/python3
PATH=$1 exec bash "$2"
"""
"""A machine on which the programs of the folder $1 are the only ones."""


def run(*command: str, venv: Path) -> subprocess.CompletedProcess[str]:
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return subprocess.run(
        command,
        env={"PATH": path, "PODIDENTITY_VENV": str(venv), "PODIDENTITY_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.net
def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "id", "tr", "cat", "cut", "sha256sum"):
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    done = run(
        *(*ALONE, "env", "-u", "PODIDENTITY_PYTHON", "sh", "-c", BARE, "sh"),
        *(str(programs), SETUP),
        venv=tmp_path / "venv",
    )
    wanted = "nftables iproute2 curl jq procps util-linux python3 python3-venv"
    assert done.stderr.startswith(f"setup: missing: {wanted}"), done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert not (tmp_path / "venv").exists()


@pytest.mark.net
def test_in_a_chroot_the_demo_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    root, venv = tmp_path / "root", tmp_path / "venv"
    root.mkdir()
    enter = ENTER.replace('"$2" -c "$3"', '"$2" --for-the-demo')
    done = run(*ALONE, "sh", "-c", enter, "sh", str(root), SETUP, venv=venv)
    assert done.stderr.startswith("setup: this is a chroot, and no sandbox runs in one"), done
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert not venv.exists()
