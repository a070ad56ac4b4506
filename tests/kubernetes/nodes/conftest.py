"""Two real nodes for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kubernetes.nodes.node import RealNode, opened
from tests.sandboxes import own


@pytest.fixture(scope="session")
def nodes() -> Iterator[list[RealNode]]:
    with opened(own("nodes")) as found:
        yield found


@pytest.fixture(scope="session", params=["routed", "bridge"])
def node(request: pytest.FixtureRequest, nodes: list[RealNode]) -> RealNode:
    """One of them, with two pods: `app`, which is bound, and `other`, which has no right."""
    (found,) = [each for each in nodes if each.own.network.value == request.param]
    found.share()
    return found


@pytest.fixture(autouse=True)
def cleaned(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails leaves no pod to the next one."""
    yield
    if "nodes" in request.fixturenames:
        for each in request.getfixturevalue("nodes"):
            each.clean()
