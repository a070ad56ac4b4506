"""One sandbox a module, way of running and kind of network; its pods go after each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from podidentity_sandbox.plan import Network
from podidentity_sandbox.world.api import Api
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.root import needs_root
from tests.sandbox.node.site import Site

# Each on another kind of network.
ROOTLESS, AS_ROOT = ("rootless", Network.ROUTED), ("root", Network.BRIDGE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that asks for a world of root's is of no other."""
    left = [each for each in items if not _of_another_world(each)]
    config.hook.pytest_deselected(items=[each for each in items if _of_another_world(each)])
    items[:] = left


def _of_another_world(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or "rooted" not in item.fixturenames:
        return False
    return item.callspec.params.get("sandbox") == ROOTLESS


@pytest.fixture(
    scope="module",
    params=[ROOTLESS, pytest.param(AS_ROOT, marks=needs_root)],
    ids=lambda mode: f"{mode[0]}-{mode[1]}",
)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Site]:
    # Not in /tmp, which a pod has of its own: that it does not see the folder must be our doing.
    base = Path(tempfile.mkdtemp(prefix="podidentity-node-", dir="/var/tmp"))
    folder = Folder.of("node", base)
    way, network = request.param
    shape = Shape(nodes=1, rootless=way == "rootless", network=network)
    try:
        plan = bring_up(folder.name, shape, base=base, bound=True)
        yield Site(folder, plan, Api(plan))
    finally:
        bring_down(folder.name, base)
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def site(sandbox: Site) -> Iterator[Site]:
    yield sandbox
    sandbox.clear()


@pytest.fixture
def rooted(site: Site) -> Site:
    """A world of root's: without root there is one user only, and no cgroup."""
    assert not site.plan.rootless
    return site
