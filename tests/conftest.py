"""What all tests share: one event loop, asyncio's, as in production."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
