"""The cluster on which the manifests that we ship are judged: a real control plane."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest

from podidentity import manifests
from podidentity.client_connections import ClientConnections
from tests.kubernetes.control_plane import (
    NEWEST_FOLDER,
    OLDEST_FOLDER,
    ControlPlane,
    State,
    control_plane,
)


@dataclass(frozen=True)
class Served:
    """A cluster with the custom resources, as nobody has changed it, and clients of it."""

    control_plane: ControlPlane

    @property
    def admin_token(self) -> str:
        return self.control_plane.plan.admin_token

    def client(self, token: str | None = None, *, of_program: bool = False) -> httpx2.AsyncClient:
        """Return a client, the administrator's without a token, or as NMI and MIC are connected."""
        plan = self.control_plane.plan
        url = f"https://127.0.0.1:{plan.apiserver_port}"
        tls = ssl.create_default_context(cafile=str(plan.ca_certificate))
        return httpx2.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token or self.admin_token}"},
            verify=tls,
            trust_env=False,
            timeout=60,
            transport=ClientConnections(url, tls) if of_program else None,
        )


def serving(folder: str = NEWEST_FOLDER) -> Served:
    """Return this worker's cluster of these programs, put back."""
    found = control_plane(folder)
    state = _with_custom_resources(found)
    found.under(found.calm)
    found.put_back(state)
    return Served(found)


@functools.cache
def _with_custom_resources(found: ControlPlane) -> State:
    found.put_back(found.beginning)
    for each in manifests.crds():
        found.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", each)
    kinds = {each["spec"]["names"]["plural"] for each in manifests.crds()}
    found.wait_until_served("aadpodidentity.k8s.io", kinds)
    return found.state()


@pytest.fixture
def served() -> Served:
    return serving()


@pytest.fixture(params=[OLDEST_FOLDER, NEWEST_FOLDER])
def each_served(request: pytest.FixtureRequest) -> Served:
    """The oldest cluster that tests know, and the newest one."""
    return serving(request.param)


@pytest.fixture
async def api(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    """The administrator's client."""
    async with served.client() as client:
        yield client
