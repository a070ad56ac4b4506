"""`/debug` of an NMI, by the cluster's own reviews: for whom it is, and whose tokens count nowhere.

Tokens are those that the API server makes and judges; NMI's page is the whole of it, but for TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from podidentity import manifests
from podidentity.adapters.path_permissions import ALLOWED, PathPermissions
from podidentity.nmi.reporting.endpoints import Reviewed
from podidentity.nmi.server.messages import Caller, Request, Response
from podidentity.wire.debug_access import FIELD, METRICS_AUDIENCE, PATH, SECONDS, audience_of
from tests.fakes import FakeClock
from tests.manifests.conftest import Served
from tests.manifests.rights import SYSTEM, Program
from tests.manifests.test_rights_of_nmi import of_nmi, opened

READER = manifests.DEBUG_READER
TENANT = "/api/v1/namespaces/shop/serviceaccounts/default/token"


async def page(_: Request) -> Response:
    return Response(200, b"what NMI knows")


@dataclass
class Agents:
    """NMI of two nodes, and who asks them."""

    nmi: Program
    served: Served
    clock: FakeClock

    def __post_init__(self) -> None:
        self.pages = {name: self._page(name) for name in ("node-0", "node-1")}

    def _page(self, node: str) -> Reviewed:
        readers = PathPermissions(
            self.nmi.kube, self.clock, path=PATH, audience=audience_of(node), outlives=0
        )
        return Reviewed(page, readers, role=READER, field=FIELD)

    async def token(
        self, audience: str = audience_of("node-0"), path: str = "", seconds: int = SECONDS
    ) -> str:
        """Return a token that the administrator makes, of the reader unless `path` says whose."""
        spec = {"audiences": [audience] if audience else [], "expirationSeconds": seconds}
        path = path or f"{SYSTEM}/serviceaccounts/{READER}/token"
        made = await self.nmi.make(path, {"spec": spec})
        return str(made["status"]["token"])

    async def ask(self, token: str, node: str = "node-0", field: str = FIELD) -> int:
        asked = Request(Caller("10.240.0.1", 1), method="GET", raw_target=PATH.encode())
        asked.fields = [(field.encode(), f"Bearer {token}".encode())] if token else []
        return (await self.pages[node](asked)).status


@asynccontextmanager
async def agents(served: Served) -> AsyncIterator[Agents]:
    everything = [each for each in manifests.nmi() if each["kind"] != "DaemonSet"]
    readers = [each for each in everything if each["metadata"]["name"] == READER]
    async with opened(served, [*of_nmi(), *readers], None) as (nmi, _):
        account: Any = next(each for each in readers if each["kind"] == "ServiceAccount")
        await nmi.make(f"{SYSTEM}/serviceaccounts", account)
        yield Agents(nmi, served, FakeClock())


@pytest.fixture
async def two(served: Served) -> AsyncIterator[Agents]:
    async with agents(served) as found:
        yield found


async def test_the_reader_reads_it_on_the_node_that_its_token_is_for_and_on_no_other(
    two: Agents,
) -> None:
    token = await two.token()
    assert await two.ask(token) == 200
    assert await two.ask(token, "node-1") == 401, "replayed by the root of another node"


async def test_its_token_is_taken_by_nobody_else(two: Agents) -> None:
    token = await two.token()
    async with two.served.client(token) as client:
        assert (await client.get("/api/v1/pods")).status_code == 401
        assert (await client.get("/metrics")).status_code == 401
    scrapers = PathPermissions(two.nmi.kube, two.clock, path="/metrics", audience=METRICS_AUDIENCE)
    metrics = Reviewed(page, scrapers, role="readers")
    asked = Request(Caller("10.240.0.1", 1), method="GET", raw_target=b"/metrics")
    asked.fields = [(b"Authorization", f"Bearer {token}".encode())]
    assert (await metrics(asked)).status == 401


async def test_who_has_a_token_for_the_api_server_alone_is_unknown(two: Agents) -> None:
    """An administrator's too: nobody need send such a token to a pod."""
    own = two.served.admin_token, two.nmi.token
    for token in (*own, await two.token(""), await two.token("", TENANT)):
        assert await two.ask(token) == 401
        two.clock.advance(1)


async def test_a_tenant_who_makes_a_token_for_it_of_his_own_account_is_refused(two: Agents) -> None:
    token = await two.token(path=TENANT)
    assert await two.ask(token) == 403


async def test_the_header_that_the_proxy_takes_for_itself_counts_for_nothing(two: Agents) -> None:
    assert await two.ask(await two.token(), field="Authorization") == 401
    assert await two.ask("") == 401


async def test_a_token_ends_with_its_account(two: Agents) -> None:
    """The API server trusts what it has judged for 10 s more."""
    token = await two.token()
    assert await two.ask(token) == 200
    await two.nmi.admin.delete(f"{SYSTEM}/serviceaccounts/{READER}")
    async with asyncio.timeout(60):
        while await two.ask(token) != 401:
            two.clock.advance(ALLOWED)
            await asyncio.sleep(0.1)


async def test_nobody_makes_a_token_of_the_reader_without_the_right_to(two: Agents) -> None:
    """NMI itself may not: where its right is bounded (1.30), for Entra's audience alone."""
    path = f"{SYSTEM}/serviceaccounts/{READER}/token"
    spec = {"spec": {"audiences": [audience_of("node-1")]}}
    tenant = await two.token("", TENANT)
    for token in (two.nmi.token, tenant):
        async with two.served.client(token) as client:
            refused: httpx2.Response = await client.post(path, json=spec)
            assert refused.status_code in (403, 422), refused.text


def test_nothing_runs_as_the_reader_and_it_may_do_nothing_else() -> None:
    made = [each for each in manifests.nmi() if each["metadata"]["name"] == READER]
    account, role, binding = made
    assert account["automountServiceAccountToken"] is False
    assert role["rules"] == [{"nonResourceURLs": [PATH], "verbs": ["get"]}]
    (subject,) = binding["subjects"]
    assert (subject["kind"], subject["name"]) == ("ServiceAccount", READER)
    pods = [each["spec"]["template"]["spec"] for each in manifests.nmi() if "template" in str(each)]
    assert READER not in [each.get("serviceAccountName") for each in pods]
