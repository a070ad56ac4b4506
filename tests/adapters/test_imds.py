from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from podidentity.adapters import imds as adapter
from podidentity.adapters.imds import (
    AT_ONCE,
    GENERAL_RATE,
    MOST_OF_NAMESPACE,
    MOST_OF_POD,
    RATE,
    RECONNECT_SECONDS,
    Imds,
    Quota,
)
from podidentity.core.errors import TokenRefused, TokenSourceDown, TokenThrottled
from podidentity.core.rate_limits import Flow
from podidentity.core.resources import AccessToken, ClientId, Grant, ObjectId, ObjectRef, ResourceId
from tests.adapters.scripted import (
    Conversation,
    Script,
    Turn,
    answers,
    cuts,
    hangs,
    resets,
    scripted,
)
from tests.fakes import (
    CLIENT,
    NOW,
    OTHER_CLIENT,
    RESOURCE_ID,
    VAULT,
    FakeClock,
    ImpatientClock,
    grant,
    identity,
    pod,
)
from tests.jwts import jwt

FLOW = Flow("", "10.244.0.2")
TOKEN = {
    "access_token": jwt(appid=CLIENT),
    "client_id": CLIENT,
    "expires_in": "86399",
    "expires_on": str(int(NOW) + 86_399),
    "not_before": str(int(NOW)),
    "resource": VAULT,
    "token_type": "Bearer",
}


@pytest.fixture(autouse=True)
def _a_machine_of_tests_may_take_longer_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "_TIMEOUT", httpx2.Timeout(60))


@asynccontextmanager
async def asked(*turns: Turn, seconds: float = 5.0) -> AsyncIterator[tuple[Imds, Script]]:
    async with scripted(*turns) as server:
        imds = Imds.connect(
            "127.0.0.1", server.port, clock=FakeClock(), user_agent="ours/1", seconds=seconds
        )
        try:
            yield imds, server
        finally:
            await imds.close()


async def test_a_token_is_asked_for_as_imds_wants_it_and_nothing_more_is_said() -> None:
    async with asked(answers(TOKEN)) as (imds, server):
        token = await imds.issue(grant(), VAULT)
    assert token.value == TOKEN["access_token"]
    lines = server.asked[0].head.strip().split("\r\n")
    assert lines[0] == (
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01"
        f"&resource=https%3A%2F%2Fvault.azure.net&client_id={CLIENT} HTTP/1.1"
    )
    names = {line.split(":")[0].lower() for line in lines[1:]}
    assert names == {"host", "accept", "accept-encoding", "connection", "metadata", "user-agent"}
    assert "Metadata: true" in lines


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with asked(answers(TOKEN)) as (imds, _):
        await imds.issue(grant(), VAULT)


async def test_what_imds_refuses_is_refused() -> None:
    body = {"error": "invalid_resource", "error_description": "AADSTS500011: unknown"}
    async with asked(answers(body, 400)) as (imds, _):
        with pytest.raises(TokenRefused, match="AADSTS500011"):
            await imds.issue(grant(), "https://unknown")


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        (cuts, "cannot be asked"),
        (answers(b"<html>"), "no JSON object"),
        (answers(b"x" * 2_000_000), "more than 1048576 bytes"),
        (answers(b"", 503), "503"),
    ],
    ids=["resets", "rubbish", "endless", "down"],
)
async def test_an_imds_that_resets_or_answers_rubbish_is_down(turn: Turn, why: str) -> None:
    async with asked(turn) as (imds, _):
        with pytest.raises(TokenSourceDown, match=why):
            await imds.issue(grant(), VAULT)


async def test_an_imds_that_hangs_is_waited_for_no_longer_than_said() -> None:
    async with asked(hangs, seconds=0.05) as (imds, _):
        with pytest.raises(TokenSourceDown, match=r"within 0\.05 s"):
            await imds.issue(grant(), VAULT)


@asynccontextmanager
async def unreachable() -> AsyncIterator[tuple[asyncio.Task[AccessToken], FakeClock, int]]:
    """Yield a request to a port where nothing listens, after its first attempt."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    clock = FakeClock()
    imds = Imds.connect("127.0.0.1", port, clock=clock, user_agent="t")
    asking = asyncio.create_task(imds.issue(grant(), VAULT))
    await clock.somebody_slept(RECONNECT_SECONDS, 1)
    yield asking, clock, port
    await imds.close()


async def test_an_imds_that_is_not_there_is_down() -> None:
    async with unreachable() as (asking, clock, _):
        clock.advance(RECONNECT_SECONDS)
        with pytest.raises(TokenSourceDown, match=r"^IMDS cannot be asked: Connection refused$"):
            await asking


async def test_a_failure_without_words_is_told_by_its_kind() -> None:
    def fails(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("", request=request)

    client = httpx2.AsyncClient(base_url="http://x", transport=httpx2.MockTransport(fails))
    imds = Imds(client, FakeClock(), seconds=60)
    with pytest.raises(TokenSourceDown, match=r"cannot be asked: ReadError$"):
        await imds.issue(grant(), VAULT)
    await imds.close()


async def test_an_imds_that_could_not_be_reached_for_a_moment_is_asked_again() -> None:
    async with unreachable() as (asking, clock, port), scripted(answers(TOKEN), port=port):
        clock.advance(RECONNECT_SECONDS)
        assert (await asking).value == TOKEN["access_token"]


async def test_an_identity_is_asked_for_by_its_resource_id_where_it_has_no_client_id() -> None:
    token = TOKEN | {"access_token": jwt(appid=CLIENT, xms_mirid=RESOURCE_ID)}
    async with asked(answers(token)) as (imds, server):
        await imds.issue(grant(identity(client_id=None)), VAULT)
    assert f"&msi_res_id={quote(RESOURCE_ID, safe='')} HTTP/1.1" in server.asked[0].head


@pytest.mark.parametrize(
    ("known", "asked_for"),
    [
        (("client_id", "resource_id", "object_id"), "client_id"),
        (("resource_id", "object_id"), "resource_id"),
        (("object_id",), "object_id"),
        ((), None),
    ],
    ids=str,
)
async def test_tokens_are_kept_by_the_id_that_imds_is_asked_for(
    known: tuple[str, ...], asked_for: str | None
) -> None:
    ids: dict[str, Any] = {
        "client_id": ClientId.parse(CLIENT),
        "resource_id": ResourceId.parse(RESOURCE_ID),
        "object_id": ObjectId.parse(OTHER_CLIENT),
    }
    held: dict[str, Any] = {name: ids[name] if name in known else None for name in ids}
    whose = identity(**held)
    async with asked(answers(TOKEN)) as (imds, _):
        key = imds.credential(grant(whose))
    assert key == ("imds", ids.get(asked_for or ""), whose.resource_id, whose.system_assigned)


async def test_what_decides_which_token_it_is_differs_wherever_the_answer_may_differ() -> None:
    whom = [
        identity(),
        identity(client_id=ClientId.parse(OTHER_CLIENT)),
        identity(resource_id=None),
        identity(client_id=None),
        identity(client_id=None, resource_id=None, object_id=ObjectId.parse(CLIENT)),
        identity(client_id=None, resource_id=None, system_assigned=True),
    ]
    async with asked(answers(TOKEN)) as (imds, _):
        keys = {imds.credential(grant(each)) for each in whom}
        assert len(keys) == len(whom)
        renamed = identity("another", ref=ObjectRef("bank", "another"))
        assert imds.credential(grant(renamed)) == await imds.ready(grant())


@pytest.mark.parametrize("ends", [cuts, resets])
async def test_a_kept_connection_that_imds_closes_costs_no_request(ends: Turn) -> None:
    async with asked(answers(TOKEN), ends, answers(TOKEN)) as (imds, server):
        await imds.issue(grant(), VAULT)
        await imds.issue(grant(), VAULT)
    assert len(server.asked) == 3


async def test_never_more_than_five_are_asked_at_once() -> None:
    full, go = asyncio.Event(), asyncio.Event()

    async def turn(conversation: Conversation) -> None:
        if server.open == AT_ONCE:
            full.set()
        await go.wait()
        await conversation.answer(TOKEN)

    async with asked(turn) as (imds, server):
        asking = [asyncio.ensure_future(imds.issue(grant(), f"r{n}")) for n in range(20)]
        await full.wait()
        go.set()
        await asyncio.gather(*asking)
    assert (server.most_open, len(server.asked)) == (AT_ONCE, 20)


async def test_metadata_is_passed_on_with_status_and_type() -> None:
    turn = answers(b"westeurope", 404, more="Content-Type: text/plain\r\nServer: IMDS\r\n")
    async with asked(turn) as (imds, server):
        found = await imds.metadata("/metadata/instance?format=text", "text/plain", FLOW)
    assert (found.status, found.content_type, found.body) == (404, "text/plain", b"westeurope")
    assert server.asked[0].target == "/metadata/instance?format=text"
    assert "Accept: text/plain" in server.asked[0].head
    assert json.dumps("X-Forwarded-For") not in server.asked[0].head


@pytest.mark.parametrize("accept", ["", " ", "\xff", "a\tb", "text/plain\x00"])
async def test_headers_that_nobody_can_send_are_not_passed_on(accept: str) -> None:
    turn = answers(b"westeurope", more="Content-Type: text/\u20ac\r\n")
    async with asked(turn) as (imds, server):
        found = await imds.metadata("/metadata/instance", accept, FLOW)
    assert (found.content_type, found.body) == ("application/json", b"westeurope")
    assert "Accept: */*" in server.asked[0].head


# The rate limit, shared by all pods of the node.


WEB = Flow("shop", "web")
BUSY = answers({"error": "too_many_requests"}, 429, more="Retry-After: 3\r\n")


class Metered:
    """A service that counts as IMDS does, and answers 429 beyond its limit."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.last: deque[float] = deque(maxlen=RATE)
        self.busy = 0
        self.refused = 0
        self.served: list[Any] = []

    async def ask(
        self, quota: Quota, who: Any = None, *, flow: Flow = WEB, seconds: float = 10.0
    ) -> None:
        async with quota.turn(flow, seconds):
            now = self.clock.monotonic()
            crowded = len(self.last) == RATE and now - self.last[0] < 1.0
            self.refused += crowded or self.busy >= AT_ONCE
            self.last.append(now)
            self.busy += 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.busy -= 1
            self.served.append(who)


async def test_a_hundred_at_once_are_all_served_by_turns_and_none_too_soon() -> None:
    clock = ImpatientClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    flows = [Flow("shop", f"p{number}") for number in range(10)]
    asking = [
        imds.ask(quota, (number, flow.pod), flow=flow) for flow in flows for number in range(10)
    ]
    await asyncio.gather(*asking)
    assert imds.refused == 0
    for flow in flows:
        own = [number for number, pod in imds.served if pod == flow.pod]
        assert own == list(range(10))
    assert len(set(imds.served)) == 100
    assert clock.monotonic() == pytest.approx(4 * 1.1)


async def test_the_service_of_this_test_does_refuse() -> None:
    clock = FakeClock()
    imds, generous = Metered(clock), Quota(1000, clock)
    asking = [imds.ask(generous, flow=Flow("shop", f"p{number}")) for number in range(100)]
    await asyncio.gather(*asking)
    assert imds.refused == 80


async def test_who_leaves_while_he_waits_takes_nobodys_place() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE):
        await imds.ask(quota)
    leaving = [asyncio.create_task(imds.ask(quota, "left")) for _ in range(2 * AT_ONCE)]
    await clock.somebody_sleeps()
    staying = asyncio.create_task(imds.ask(quota, "stayed"))
    for each in leaving:
        each.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    await clock.somebody_sleeps()
    clock.advance(1.2)
    await staying
    assert imds.served[RATE:] == ["stayed"]


async def test_what_could_not_be_answered_in_time_is_refused_at_once() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE):
        await imds.ask(quota)
    flows = [Flow(f"n{number}", f"p{pod}") for number in range(2) for pod in range(4)]
    waiting = [asyncio.create_task(imds.ask(quota, flow=flow)) for flow in flows for _ in range(20)]
    await clock.somebody_sleeps()
    await asyncio.sleep(0)
    with pytest.raises(TokenThrottled) as found:
        async with quota.turn(flows[0], 9.5):
            pass
    # 160 wait, and 20 may be asked for in 1.1 s.
    assert found.value.retry_after == 10
    newcomer = asyncio.create_task(imds.ask(quota, "newcomer", flow=Flow("n2", "p0")))
    await asyncio.sleep(0)
    clock.advance(1.2)
    await newcomer
    assert len(imds.served) < RATE + 2 * AT_ONCE
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_pause_that_outlasts_ones_timeout_is_told_at_once() -> None:
    clock = FakeClock()
    quota = Quota(RATE, clock)
    quota.pause(60)
    with pytest.raises(TokenThrottled) as found:
        await Metered(clock).ask(quota)
    assert found.value.retry_after == 60


async def test_what_nobody_waits_for_leaves_half_to_the_others() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE // 2 - 1):
        await imds.ask(quota)
    await quota.spare()
    await imds.ask(quota)
    sparing = asyncio.create_task(quota.spare())
    await clock.somebody_sleeps()
    clock.advance(1.2)
    await sparing


async def test_what_nobody_waits_for_comes_after_those_who_wait() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE):
        await imds.ask(quota)
    asking = asyncio.create_task(imds.ask(quota))
    await clock.somebody_sleeps()
    sparing = asyncio.create_task(quota.spare())
    await asyncio.sleep(0)
    assert not sparing.done()
    clock.advance(1.2)
    await asyncio.gather(asking, sparing)


@pytest.mark.parametrize("pods", [1, 16])
async def test_a_pod_and_a_namespace_have_a_bound_of_what_waits(pods: int) -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    flows = [Flow("tenant", f"p{number}") for number in range(pods)]
    # The seconds are real ones: so many that none runs out on a crowded machine.
    asking = [
        asyncio.create_task(imds.ask(quota, flow=flow, seconds=1000.0))
        for flow in flows
        for _ in range(50)
    ]
    await clock.somebody_sleeps()
    refused = [each for each in asking if each.done() and each.exception() is not None]
    assert len(asking) - len(refused) - len(imds.served) <= min(
        pods * MOST_OF_POD, MOST_OF_NAMESPACE
    )
    assert all(isinstance(each.exception(), TokenThrottled) for each in refused)
    assert refused
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_a_turn_that_does_not_come_in_time_is_told_to_its_pod_alone() -> None:
    """Others of its namespace came later and went first; IMDS is not down."""
    clock = FakeClock()
    quota = Quota(RATE, clock)
    async with AsyncExitStack() as held:
        for number in range(AT_ONCE):
            await held.enter_async_context(quota.turn(Flow("shop", f"p{number}"), 10.0))
        async with asyncio.timeout(60):
            with pytest.raises(TokenThrottled) as found:
                await held.enter_async_context(quota.turn(WEB, 0.2))
    assert found.value.of_caller
    await Metered(clock).ask(quota)


async def test_a_request_that_leaves_in_the_moment_of_its_turn_takes_no_place() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE):
        await imds.ask(quota)
    leaving = [asyncio.create_task(imds.ask(quota, "left")) for _ in range(AT_ONCE)]
    staying = asyncio.create_task(imds.ask(quota, "stayed"))
    await clock.somebody_sleeps()
    clock.advance(1.2)
    for each in leaving:
        each.cancel()
    await staying
    await asyncio.gather(*leaving, return_exceptions=True)
    assert imds.served[RATE:] == ["stayed"]
    async with quota.turn(WEB, 1), quota.turn(WEB, 1), quota.turn(WEB, 1), quota.turn(WEB, 1):
        await asyncio.wait_for(imds.ask(quota, "the fifth place is free"), 60)


async def test_a_429_is_asked_again_when_imds_wants_to_be() -> None:
    clock = ImpatientClock()
    async with scripted(BUSY, answers(IDENTITY_TOKEN)) as server:
        imds = Imds.connect("127.0.0.1", server.port, clock=clock, user_agent="t")
        token = await imds.issue(grant(), VAULT)
        await imds.close()
    assert (token.client_id, clock.monotonic()) == (grant().identity.client_id, 3.0)


async def test_a_429_that_lasts_is_told() -> None:
    clock = ImpatientClock()
    async with scripted(BUSY) as server:
        imds = Imds.connect("127.0.0.1", server.port, clock=clock, user_agent="t")
        with pytest.raises(TokenThrottled) as found:
            await imds.issue(grant(), VAULT)
        await imds.close()
    assert found.value.retry_after == 3
    assert len(server.asked) == 3


@pytest.mark.parametrize("wanted", [3, 7, 8, 12])
async def test_no_pod_is_blamed_for_a_429_of_imds_however_long_imds_wants_to_rest(
    wanted: int,
) -> None:
    clock = ImpatientClock()
    busy = answers({"error": "too_many_requests"}, 429, more=f"Retry-After: {wanted}\r\n")
    async with scripted(busy) as server:
        imds = Imds.connect("127.0.0.1", server.port, clock=clock, user_agent="t")
        for _ in range(3):
            with pytest.raises(TokenThrottled) as found:
                await imds.issue(grant(), VAULT)
            assert (found.value.of_caller, str(found.value)[:5]) == (False, "IMDS:")
        await imds.close()


async def test_other_metadata_has_a_limit_of_its_own() -> None:
    clock = ImpatientClock()
    async with scripted(answers(b"{}")) as server:
        imds = Imds.connect("127.0.0.1", server.port, clock=clock, user_agent="t")
        flow = Flow("", "10.244.0.2")
        asking = [imds.metadata(f"/metadata/versions?{n}", "", flow) for n in range(11)]
        await asyncio.gather(*asking)
        await imds.close()
    assert clock.monotonic() == pytest.approx(2 * 1.1)


async def test_a_limit_that_is_closed_waits_for_nothing() -> None:
    clock = FakeClock()
    imds, quota = Metered(clock), Quota(RATE, clock)
    for _ in range(RATE):
        await imds.ask(quota)
    asking = asyncio.create_task(imds.ask(quota))
    await clock.somebody_sleeps()
    await quota.close()
    assert clock._sleepers == []
    await ended([asking])


async def test_what_is_closed_sends_nothing_more() -> None:
    clock = FakeClock()
    async with scripted(answers(TOKEN)) as server:
        imds = Imds.connect("127.0.0.1", server.port, clock=clock, user_agent="t")
        await asyncio.gather(*(imds.issue(grant(), f"r{n}") for n in range(RATE)))
        await asyncio.gather(*(imds.metadata(f"/{n}", "", FLOW) for n in range(GENERAL_RATE)))
        waiting: list[asyncio.Task[Any]] = [
            asyncio.create_task(imds.issue(grant(), "one more")),
            asyncio.create_task(imds.metadata("/more", "", FLOW)),
        ]
        for _ in range(9):  # the loop's turns until both wait
            await asyncio.sleep(0)
        assert len(clock._sleepers) == 2
        await imds.close()
        assert clock._sleepers == []
        await ended(waiting)
    assert len(server.asked) == RATE + GENERAL_RATE


IDENTITY_TOKEN = {"access_token": jwt(appid=CLIENT), "client_id": CLIENT, "expires_in": "86399"}
BURST = 10
"""Tokens that a pod may ask for at once within its own budget."""


@pytest.fixture
async def service() -> AsyncIterator[Script]:
    async with scripted(answers(IDENTITY_TOKEN)) as server:
        yield server


@pytest.fixture
async def imds(service: Script) -> AsyncIterator[Imds]:
    made = Imds.connect("127.0.0.1", service.port, clock=ImpatientClock(), user_agent="t")
    yield made
    await made.close()


def of(namespace: str, name: str) -> Grant:
    return grant(pod=pod(name, ref=ObjectRef(namespace, name), uid=f"uid-{namespace}-{name}"))


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def place(service: Script, resource: str) -> int:
    """Return how many requests reached IMDS before the one for `resource`."""
    return next(n for n, each in enumerate(service.asked) if resource in each.target)


async def test_sixteen_pods_of_a_tenant_hold_a_neighbour_up_for_two_turns_at_most(
    imds: Imds, service: Script
) -> None:
    """Each of them is within its own budget; together they are 160 requests."""
    tenant = [
        asyncio.create_task(imds.issue(of("tenant", f"p{number}"), f"https://r{n}"))
        for number in range(16)
        for n in range(BURST)
    ]
    await asyncio.sleep(0)
    await imds.issue(of("shop", "web"), "https://neighbour")
    assert place(service, "neighbour") <= AT_ONCE + 2
    await ended(tenant)


async def test_pods_of_one_namespace_take_turns_as_well(imds: Imds, service: Script) -> None:
    greedy = [
        asyncio.create_task(imds.issue(of("shop", "greedy"), f"https://r{n}")) for n in range(30)
    ]
    await asyncio.sleep(0)
    await imds.issue(of("shop", "web"), "https://neighbour")
    assert place(service, "neighbour") <= AT_ONCE + 2
    await ended(greedy)


async def test_a_pod_beyond_its_share_is_refused_and_its_neighbour_is_not(imds: Imds) -> None:
    greedy = [
        asyncio.create_task(imds.issue(of("tenant", "greedy"), f"https://r{n}"))
        for n in range(1000)
    ]
    await asyncio.sleep(0)
    assert (await imds.issue(of("shop", "web"), "https://neighbour")).client_id is not None
    done = [each for each in greedy if each.done()]
    assert done
    for each in done:
        if each.exception() is not None:
            assert isinstance(each.exception(), TokenThrottled)
    await ended(greedy)


async def test_one_address_that_reads_instance_documents_in_a_loop_delays_no_other(
    imds: Imds, service: Script
) -> None:
    greedy = [
        asyncio.create_task(imds.metadata(f"/metadata/instance?{n}", "", Flow("", "10.244.0.9")))
        for n in range(180)
    ]
    await asyncio.sleep(0)
    await imds.metadata("/metadata/instance?neighbour", "", Flow("", "10.244.0.2"))
    assert place(service, "neighbour") <= AT_ONCE + 2
    await ended(greedy)
