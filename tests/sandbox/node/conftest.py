"""One sandbox a module, way of running and kind of network; its pods go after each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from podidentity_sandbox.plan import Network
from podidentity_sandbox.world.api import Api
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.lifecycle import UpOptions, down, up
from tests.sandbox.node.site import Site

# Without root there is but one way; root can go both, each on another kind of network.
MODES = [("rootless", Network.ROUTED)]
if os.geteuid() == 0:
    MODES.append(("root", Network.BRIDGE))


@pytest.fixture(scope="module", params=MODES, ids=lambda mode: f"{mode[0]}-{mode[1]}")
def sandbox(request: pytest.FixtureRequest) -> Iterator[Site]:
    # Not in /tmp, which a pod has of its own: that it does not see the folder must be our doing.
    base = Path(tempfile.mkdtemp(prefix="podidentity-node-", dir="/var/tmp"))
    folder = Folder.of("node", base)
    way, network = request.param
    options = UpOptions(
        folder=folder,
        path=os.environ["PATH"],
        nodes=1,
        rootless=way == "rootless",
        network=network,
    )
    try:
        plan = up(options)
        yield Site(folder, plan, Api(plan))
    finally:
        down(folder)
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def site(sandbox: Site) -> Iterator[Site]:
    yield sandbox
    sandbox.clear()
