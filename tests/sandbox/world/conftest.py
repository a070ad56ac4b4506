"""Fixtures of the world's tests; see `places`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.root import WAYS
from tests.sandbox.world.places import Place, placed


@pytest.fixture
def place() -> Iterator[Place]:
    with placed() as found:
        yield found


@pytest.fixture(params=WAYS)
def each_mode(request: pytest.FixtureRequest, place: Place) -> Place:
    place.mode = request.param
    return place
