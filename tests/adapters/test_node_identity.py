"""Whether NMI counts as its own node: what the API server says, and how often it is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from podidentity.adapters.node_identity import AGAIN, SOON, NodeIdentity
from podidentity.lasting import ASK_AGAIN
from podidentity.wire.kube import KubeError
from tests.fakes import FakeClock, FakeKubeApi

MINE = ("system:nodes", "system:authenticated")


class Server(FakeKubeApi):
    """Takes the asker for whom the test says, or fails."""

    def __init__(self, name: str = "system:node:n1", groups: Sequence[str] = MINE) -> None:
        self.says: bytes | KubeError = takes_for(name, groups)
        self.asked = 0

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        assert path == "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        assert body["kind"] == "SelfSubjectReview"
        self.asked += 1
        if isinstance(self.says, KubeError):
            raise self.says
        return self.says


def takes_for(name: str, groups: Sequence[str] = MINE) -> bytes:
    return json.dumps({"status": {"userInfo": {"username": name, "groups": groups}}}).encode()


def asking(server: Server) -> NodeIdentity:
    return NodeIdentity(server, FakeClock(), node="n1")


async def test_before_it_was_asked_pods_get_no_token_and_afterwards_they_do() -> None:
    identity = asking(Server())
    (trouble,) = identity.problems()
    assert trouble == "it is not known yet whether NMI may act as node n1"
    await identity.look()
    assert identity.problems() == ()


@pytest.mark.parametrize(
    ("name", "groups", "who"),
    [
        ("system:node:n2", MINE, "system:node:n2"),
        ("system:node:n1", ("system:authenticated",), "system:node:n1"),
        ("system:serviceaccount:kube-system:nmi", MINE, "system:serviceaccount:kube-system:nmi"),
        ("", (), "nobody"),
    ],
)
async def test_whoever_is_not_its_own_node_by_name_and_group_is_not(
    name: str, groups: Sequence[str], who: str
) -> None:
    identity = asking(Server(name, groups))
    await identity.look()
    (trouble,) = identity.problems()
    assert trouble.startswith(f"the API server takes NMI for {who}, not for node n1: ")
    assert "podidentity enable" in trouble


@pytest.mark.parametrize("status", [403, 404])
async def test_an_api_server_that_refuses_twice_ends_what_it_allowed_before(status: int) -> None:
    server, clock = Server(), FakeClock()
    identity = NodeIdentity(server, clock, node="n1")
    await identity.look()
    server.says = KubeError("no", status=status)
    await identity.look()
    assert identity.problems() == (), "an API server that starts refuses what is allowed"
    clock.advance(ASK_AGAIN)
    await identity.look()
    (trouble,) = identity.problems()
    assert trouble.startswith("NMI may not act as node n1 (no): ")
    assert "podidentity enable" in trouble


@pytest.mark.parametrize("status", [0, 401, 429, 500, 503])
async def test_an_api_server_that_is_away_changes_nothing(status: int) -> None:
    server = Server()
    never, once = asking(server), asking(server)
    await once.look()
    server.says = KubeError("away", status=status)
    for identity in (never, once):
        before = identity.problems()
        await identity.look()
        assert identity.problems() == before


async def test_an_answer_that_says_nothing_is_no_permission() -> None:
    server = Server()
    identity = asking(server)
    await identity.look()
    server.says = b"[]"
    await identity.look()
    (trouble,) = identity.problems()
    assert trouble.startswith("NMI does not know as whom it acts: ")


async def test_it_is_asked_soon_again_while_there_is_trouble_and_each_minute_otherwise() -> None:
    server, clock = Server(), FakeClock()
    identity = NodeIdentity(server, clock, node="n1")
    running = asyncio.create_task(identity.run())
    await clock.somebody_sleeps()
    assert clock.slept == [AGAIN]
    server.says = KubeError("no", status=403)
    clock.advance(AGAIN)
    await clock.somebody_slept(SOON, 1)
    clock.advance(SOON)
    await clock.somebody_slept(SOON, 2)
    assert identity.problems() != ()
    server.says = takes_for("system:node:n1")
    clock.advance(SOON)
    await clock.somebody_slept(AGAIN, 2)
    assert (server.asked, identity.problems()) == (4, ())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
