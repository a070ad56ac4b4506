"""One sandbox with a real control plane for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.inspection import ask
from podidentity_sandbox.world.supervisor import REAL_PARTS
from tests.kubernetes.judge import BROUGHT_BY, WANTING
from tests.kubernetes.programs import place as programs
from tests.sandbox.world.places import Place, placed

KUBERNETES = programs() / "kubernetes"
needs_kubernetes = pytest.mark.skipif(not KUBERNETES.is_dir(), reason=f"{WANTING}: {BROUGHT_BY}")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with placed() as found:
        yield found


@pytest.fixture(scope="module")
def plan(place: Place) -> Plan:
    return place.up(parts=REAL_PARTS, kubernetes=str(KUBERNETES))


def order(place: Place, operation: str, part: str) -> None:
    assert "error" not in ask(place.folder().control, {"op": operation, "part": part}, seconds=60)
