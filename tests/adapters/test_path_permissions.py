"""The permission to read the agent's metrics, by the cluster's RBAC, cached."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from podidentity.adapters.path_permissions import (
    ALLOWED,
    AT_ONCE,
    CAPACITY,
    DENIED,
    OUTLIVES,
    QUESTIONS_BURST,
    Access,
    PathPermissions,
)
from podidentity.lasting import ASK_AGAIN
from podidentity.wire.kube import KubeError
from tests.fakes import FakeClock, FakeKubeApi

PROMETHEUS = b"Bearer eyJhbGciOiJSUzI1NiJ9.prometheus.sig"
STRANGER = b"Bearer eyJhbGciOiJSUzI1NiJ9.stranger.signed"
NOBODY = b"Bearer eyJhbGciOiJSUzI1NiJ9.nobody.signature"
SCRAPER = "10.0.0.9"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


class Reviews(FakeKubeApi):
    """An API server that permits Prometheus and denies a stranger."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.allowed = {"prometheus"}
        self.audiences = ["for-us"]
        self.failure: KubeError | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        self.asked.append((path, body["spec"]))
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        if path == REVIEWS:
            name = body["spec"]["token"].partition(".")[2].partition(".")[0]
            user = {"username": name, "uid": "u", "groups": ["g"], "extra": {"k": ["v"]}}
            known = name in {"prometheus", "stranger"}
            status = {"authenticated": known, "user": user if known else {}}
            status["audiences"] = self.audiences
        else:
            status = {"allowed": body["spec"]["user"] in self.allowed}
        return json.dumps({"status": status}).encode()


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.server = Reviews()
        self.permissions = PathPermissions(
            self.server, self.clock, path="/metrics", audience="for-us"
        )

    async def access(self, token: bytes = PROMETHEUS, address: str = SCRAPER) -> Access:
        return await self.permissions.access(token, address)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.permissions.close()


async def test_the_cluster_is_asked_whose_the_token_is_and_whether_it_may_get_the_path(
    world: World,
) -> None:
    assert await world.access() is Access.ALLOWED
    (first, token), (second, review) = world.server.asked
    assert (first, token) == (
        REVIEWS,
        {"token": PROMETHEUS.split(b" ")[1].decode(), "audiences": ["for-us"]},
    )
    assert second == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert review == {
        "user": "prometheus",
        "uid": "u",
        "groups": ["g"],
        "extra": {"k": ["v"]},
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
    }


async def test_a_known_user_without_the_permission_and_an_unknown_token_are_told_apart(
    world: World,
) -> None:
    assert await world.access(STRANGER) is Access.DENIED
    assert await world.access(NOBODY) is Access.UNKNOWN_TOKEN


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer short",
        b"Basic dXNlcjpwYXNzd29yZHBhc3N3b3Jk",
        b"Bearer a b c d e f g",
        b"Bearer " + b"x" * 9000,
        b"Bearer \xff" + b"x" * 40,
        b"Bearer " + b"x" * 40 + b'"',
    ],
    ids=["none", "bare", "short", "basic", "words", "long", "bytes", "quote"],
)
async def test_what_is_no_token_is_refused_without_a_question(world: World, header: bytes) -> None:
    assert await world.access(header) is Access.UNKNOWN_TOKEN
    assert world.server.asked == []


@pytest.mark.parametrize("scheme", [b"bearer ", b" BEARER  "])
async def test_the_scheme_of_a_token_has_no_case_and_any_number_of_spaces(
    world: World, scheme: bytes
) -> None:
    token = PROMETHEUS.removeprefix(b"Bearer ")
    assert await world.access(scheme + token + b"== ") is Access.ALLOWED


async def test_an_answer_counts_for_its_time_and_is_then_asked_for_again(world: World) -> None:
    world.clock.advance(10 * ALLOWED)
    await world.access()
    world.server.allowed.clear()
    world.clock.advance(ALLOWED - 1)
    assert await world.access() is Access.ALLOWED
    assert len(world.server.asked) == 2
    world.clock.advance(1)
    asking = asyncio.create_task(world.access())
    await world.clock.somebody_sleeps()
    world.clock.advance(ASK_AGAIN)
    assert await asking is Access.DENIED, "refused twice"
    world.server.allowed.add("prometheus")
    world.clock.advance(DENIED)
    assert await world.access() is Access.ALLOWED


async def test_a_permission_counts_from_its_question_and_a_refusal_from_its_answer(
    world: World,
) -> None:
    for token, counts in ((PROMETHEUS, ALLOWED - 10.0), (STRANGER, DENIED)):
        world.server.open.clear()
        asking = asyncio.create_task(world.access(token))
        for _ in range(3):  # the loop's turns until the question is out
            await asyncio.sleep(0)
        world.clock.advance(10.0)
        world.server.open.set()
        access, asked = await asking, len(world.server.asked)
        world.clock.advance(counts - 1.0)
        assert await world.access(token) is access
        assert len(world.server.asked) == asked
        world.clock.advance(1.0)
        await world.access(token)
        assert len(world.server.asked) > asked


async def test_many_who_ask_at_once_with_one_token_ask_once(world: World) -> None:
    found = await asyncio.gather(*(world.access() for _ in range(50)))
    assert set(found) == {Access.ALLOWED}
    assert len(world.server.asked) == 2


async def test_while_the_api_server_is_away_a_permission_stands_and_nothing_else(
    world: World,
) -> None:
    await world.access()
    world.server.failure = KubeError("away")
    world.clock.advance(OUTLIVES - 1)
    assert await world.access() is Access.ALLOWED
    assert await world.access(STRANGER) is Access.UNDECIDED
    world.clock.advance(1)
    assert await world.access() is Access.UNDECIDED


async def test_a_refusal_allows_nothing_while_the_api_server_is_away(world: World) -> None:
    world.clock.advance(10 * OUTLIVES)
    await world.access()
    assert await world.access(STRANGER) is Access.DENIED
    world.server.failure = KubeError("away")
    world.clock.advance(DENIED)
    assert await world.access(STRANGER) is Access.UNDECIDED
    world.clock.advance(ALLOWED)
    assert await world.access() is Access.ALLOWED


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"status":{"authenticated":"yes"}}'])
async def test_an_answer_that_makes_no_sense_allows_nothing(
    world: World, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rubbish(*_: Any) -> bytes:
        return body

    monkeypatch.setattr(world.server, "create", rubbish)
    assert await world.access() is Access.UNDECIDED


def invented(number: int) -> bytes:
    return b"Bearer " + f"invented-{number}".encode().ljust(32, b"x")


async def test_an_address_that_invents_tokens_has_few_questions_and_prometheus_has_its_own(
    world: World,
) -> None:
    found = [await world.access(invented(number), "10.244.0.9") for number in range(100)]
    assert found.count(Access.TOO_OFTEN) == 100 - QUESTIONS_BURST
    assert await world.access() is Access.ALLOWED


async def test_few_questions_are_under_way_at_once(world: World) -> None:
    world.server.open.clear()
    asking = [
        asyncio.create_task(world.access(invented(number), f"10.244.0.{number}"))
        for number in range(20)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(world.server.asked) == AT_ONCE
    world.server.open.set()
    found = await asyncio.gather(*asking)
    assert found.count(Access.TOO_OFTEN) == 20 - AT_ONCE


async def test_closing_ends_the_questions_under_way(world: World) -> None:
    world.server.open.clear()
    asking = asyncio.create_task(world.access())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await world.permissions.close()
    assert world.permissions._flights == {}
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_invented_tokens_fill_no_memory_and_drive_no_permission_out(world: World) -> None:
    await world.access()
    for number in range(3 * CAPACITY):
        await world.access(invented(number), f"10.244.{number}.1")
    asked = len(world.server.asked)
    assert len(world.permissions._answers) == CAPACITY
    assert await world.access() is Access.ALLOWED
    assert len(world.server.asked) == asked


async def test_of_refusals_the_one_that_was_asked_longest_ago_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podidentity.adapters.path_permissions.CAPACITY", 2)
    for token in (STRANGER, NOBODY):
        await world.access(token)
    world.clock.advance(DENIED)
    await world.access(STRANGER)
    await world.access(invented(1))
    asked = len(world.server.asked)
    assert await world.access(STRANGER) is Access.DENIED
    assert len(world.server.asked) == asked


async def test_no_token_is_in_memory_after_its_question(world: World) -> None:
    await world.access()
    assert b"prometheus" not in repr(vars(world.permissions)).encode()


async def test_a_token_for_the_api_server_or_another_audience_is_unknown(world: World) -> None:
    world.server.audiences = ["https://kubernetes.default.svc"]
    assert await world.access() is Access.UNKNOWN_TOKEN
    world.server.audiences = ["for-us"]
    world.clock.advance(DENIED)
    assert await world.access() is Access.ALLOWED


async def test_a_permission_that_outlives_nothing_ends_with_the_api_server(world: World) -> None:
    only = PathPermissions(world.server, world.clock, path="/debug", audience="for-us", outlives=0)
    assert await only.access(PROMETHEUS, SCRAPER) is Access.ALLOWED
    world.server.failure = KubeError("away")
    world.clock.advance(ALLOWED)
    assert await only.access(PROMETHEUS, SCRAPER) is Access.UNDECIDED
