"""Fixtures of the world's tests; see `places`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from podidentity_sandbox.world.lifecycle import down, names
from tests.root import WAYS
from tests.sandbox.world.places import Place


@pytest.fixture
def place() -> Iterator[Place]:
    # pytest's own folders are too deep for a Unix socket's address.
    base = Path(tempfile.mkdtemp(prefix="podidentity-test-"))
    found = Place(base)
    yield found
    for name in names(base):
        down(found.folder(name))
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(params=WAYS)
def each_mode(request: pytest.FixtureRequest, place: Place) -> Place:
    place.mode = request.param
    return place
