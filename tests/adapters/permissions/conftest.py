"""An API server, a clock, and what is remembered of the one by the other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from podidentity.adapters.permissions import RbacPermissions
from tests.adapters.permissions.reviewing import NIGHT, Server
from tests.fakes import FakeClock


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def permissions(server: Server, clock: FakeClock) -> AsyncIterator[RbacPermissions]:
    found = RbacPermissions(server, clock, outlives=NIGHT, jitter=lambda: 0.0)
    yield found
    await found.close()
