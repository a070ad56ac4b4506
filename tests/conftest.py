"""What all tests share: one event loop, asyncio's, as in production, and properties that repeat."""

from __future__ import annotations

import pytest
from hypothesis import settings

# The same examples at each run: a failure can be seen again, and none comes by luck.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
