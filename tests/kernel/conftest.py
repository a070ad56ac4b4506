from __future__ import annotations

import os
import re

import pytest

from tests.root import WAYS


def _release() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert found
    return int(found[1]), int(found[2])


OWNED_TABLES = _release() >= (5, 12)
"""Whether a table can belong to one process, so that no other can flush it (the flag `owner`)."""

needs_owned_tables = pytest.mark.skipif(
    not OWNED_TABLES, reason="a table that belongs to one process: Linux 5.12"
)
WITH_AND_WITHOUT_COPY = [
    pytest.param(True, id="copy", marks=needs_owned_tables),
    pytest.param(False, id="no copy"),
]
"""Agents with a copy of their rules that others cannot flush, and without."""


@pytest.fixture(params=WAYS)
def rootless(request: pytest.FixtureRequest) -> bool:
    """Both kinds of world, of which root's needs root."""
    return bool(request.param == "rootless")
