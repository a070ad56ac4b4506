"""The sandbox's own API server and a real one, of which each test asks the same.

What is false of the real one is no expectation.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from podidentity.client_connections import ClientConnections
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.authority import write_certificates
from tests.kubernetes.control_plane import NEWEST_FOLDER, control_plane
from tests.sandbox.cluster.conftest import (
    DEFINITIONS,
    WIDGETS,
    Client,
    definition,
    plan_of,
    serving,
)


class Judged:
    """An API server, and clients of it."""

    def __init__(self, plan: Plan, url: str) -> None:
        self.plan = plan
        self._url = url
        self._tls = ssl.create_default_context(cafile=str(plan.ca_certificate))

    def client(self, token: str | None = None, *, of_program: bool = False) -> Client:
        """Return a client, the administrator's without a token; see `Served`."""
        return Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {token or self.plan.admin_token}"},
            verify=self._tls,
            trust_env=False,
            timeout=60,
            transport=ClientConnections(self._url, self._tls) if of_program else None,
        )


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sandbox without nodes: its certificates are made once."""
    path = tmp_path_factory.mktemp("contract")
    plan = plan_of(path)
    write_certificates(plan)
    plan.save()
    return path


@pytest.fixture(params=["light", "real"])
async def served(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Judged]:
    if request.param == "light":
        async with serving(folder) as served:
            yield Judged(served.plan, served.url)
        return
    plane = control_plane(NEWEST_FOLDER)
    plane.under(plane.calm)
    plane.put_back(plane.beginning)
    yield Judged(plane.plan, f"https://127.0.0.1:{plane.plan.apiserver_port}")


@pytest.fixture
async def api(served: Judged) -> AsyncIterator[Client]:
    """The administrator's client."""
    async with served.client() as client:
        yield client


@pytest.fixture
def crd() -> dict[str, Any]:
    return definition()


@pytest.fixture
async def widgets(api: Client, crd: dict[str, Any]) -> Client:
    """The administrator's client of a cluster that serves the small definition."""
    await define(api, crd)
    return api


async def define(api: Client, crd: dict[str, Any]) -> None:
    """Make the definition of widgets, and return when they are served as it says."""
    assert (await api.post(DEFINITIONS, json=crd)).status_code == 201
    await until(api, WIDGETS, 200)


async def until(client: Client, path: str, code: int) -> None:
    """Return when a path is answered by this code: a real server takes its time."""
    for _ in range(1200):
        if (await client.get(path)).status_code == code:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{path} is not answered by {code}")
