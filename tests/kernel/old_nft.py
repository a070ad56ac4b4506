"""Debian 12's nft 1.0.6 with its libraries, by pinned hashes: a node's own, not installed here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.image.packages import Missing, fetch_debs
from deploy.image.pins import Deb
from tests.kernel.topology import ROOT

_PINS = Path(__file__).with_suffix(".pins")


@pytest.fixture(scope="session")
def old_nft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which it is unpacked."""
    lines = _PINS.read_text().splitlines()
    pinned = [Deb(*line.split(" ")) for line in lines if not line.startswith("#")]
    folder = tmp_path_factory.mktemp("old-nft")
    try:
        packages = fetch_debs(pinned, ROOT / ".cache/nft", ())
    except Missing as error:
        pytest.skip(f"the pinned packages are gone: {error}")
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    return folder
