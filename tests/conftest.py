"""What all tests share: one event loop, asyncio's, as in production, and properties that repeat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples at each run: a failure can be seen again, and none comes by luck.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# The local addresses of the machine's own network, to which NMI adds one where it intercepts. They
# must stay as they are: 169.254.169.254 may be a real metadata service there.
_LOCAL = Path("/proc/net/fib_trie")


@pytest.fixture(autouse=True)
def _the_machines_own_network_stays_as_it_is() -> Iterator[None]:
    yield
    assert b"169.254.25.79" not in _LOCAL.read_bytes(), (
        "NMI intercepts in the machine's own network"
    )
