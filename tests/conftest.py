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


# What NMI sets where it intercepts. Of the machine's own network it must stay as it is: there
# 169.254.169.254 may be a real metadata service.
_ROUTE_LOCALNET = Path("/proc/sys/net/ipv4/conf/all/route_localnet")


@pytest.fixture(autouse=True)
def _the_machines_own_network_stays_as_it_is() -> Iterator[None]:
    before = _ROUTE_LOCALNET.read_bytes()
    yield
    assert _ROUTE_LOCALNET.read_bytes() == before, "NMI intercepts in the machine's own network"
