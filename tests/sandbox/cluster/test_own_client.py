"""The client that the sandbox's commands and the tests have: what becomes of its connections."""

from __future__ import annotations

import asyncio
import http.client
from pathlib import Path

import pytest

from podidentity_sandbox.world import SandboxError, api
from podidentity_sandbox.world.api import ApiError
from tests.sandbox.cluster.conftest import Served, serving

NODES = "/api/v1/nodes"


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[http.client.HTTPSConnection]:
    """Return the connections that are made."""
    made: list[http.client.HTTPSConnection] = []
    connect = http.client.HTTPSConnection.connect

    def noted(connection: http.client.HTTPSConnection) -> None:
        made.append(connection)
        connect(connection)

    monkeypatch.setattr(http.client.HTTPSConnection, "connect", noted)
    return made


async def test_requests_after_each_other_share_a_connection(
    served: Served, connects: list[http.client.HTTPSConnection]
) -> None:
    own = served.own
    for _ in range(3):
        await asyncio.to_thread(own.request, "GET", NODES)
    assert len(connects) == 1
    # A thread may hold the last request for a moment longer.
    await asyncio.get_running_loop().shutdown_default_executor()
    del own
    assert connects[0].sock is None, "it ends with its client"


async def test_a_watch_has_a_connection_of_its_own_that_ends_with_it(
    served: Served, connects: list[http.client.HTTPSConnection]
) -> None:
    own = served.own
    await asyncio.to_thread(own.request, "GET", NODES)
    assert await asyncio.to_thread(list, own.watch(NODES, "", 1)) == []
    await asyncio.to_thread(own.request, "GET", NODES)
    assert len(connects) == 2


async def test_behind_a_refusal_there_is_a_new_connection(
    served: Served, connects: list[http.client.HTTPSConnection]
) -> None:
    own = served.own
    with pytest.raises(ApiError):
        await asyncio.to_thread(own.request, "GET", f"{NODES}/none")
    await asyncio.to_thread(own.request, "GET", NODES)
    assert len(connects) == 2


async def test_a_connection_that_was_not_used_for_long_is_not_used_again(
    served: Served,
    connects: list[http.client.HTTPSConnection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "_IDLE", 0.0)
    own = served.own
    for _ in range(2):
        await asyncio.to_thread(own.request, "GET", NODES)
    assert len(connects) == 2


async def test_a_connection_that_the_server_has_closed_is_not_used_again(
    folder: Path, connects: list[http.client.HTTPSConnection]
) -> None:
    async with serving(folder) as served:
        own = served.own
        await asyncio.to_thread(own.request, "GET", NODES)
    with pytest.raises(SandboxError, match=r"does not answer .*refused"):
        await asyncio.to_thread(own.request, "GET", NODES)
    assert len(connects) == 2
