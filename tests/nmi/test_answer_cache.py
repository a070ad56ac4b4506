"""What was answered a moment ago: again while nothing has changed, and never otherwise."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podidentity.core.attestation import Verdict
from podidentity.core.decision import Authorization
from podidentity.core.resources import ObjectRef
from podidentity.nmi.request.caller import PROOF_SECONDS
from podidentity.nmi.request.pipeline import remembered_seconds
from podidentity.nmi.server.messages import Caller
from tests.fakes import ADDRESS, binding, identity, pod
from tests.nmi.pipelines import CHANGES, PLAIN, TAKEN_AWAY, TOKEN, World, forbid

TARGETS = (TOKEN, TOKEN + b"/", TOKEN + b"&bypass_cache=true", TOKEN + b"&client_id=x", b"/")
FIELDS = (PLAIN, PLAIN[:1], [*PLAIN, (b"x-forwarded-for", b"10.0.0.1")], [*PLAIN, *PLAIN[1:]])


async def test_what_was_answered_is_answered_again_byte_for_byte() -> None:
    world = World()
    assert world.remembered() is None
    decided = await world.warm()
    assert world.remembered() == decided


async def test_the_requests_of_one_namespace_end_no_memory_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CAPACITY", "MOST_REQUESTS"):
        monkeypatch.setattr(f"podidentity.nmi.request.pipeline.{name}", 50, raising=False)
    world = World()
    greedy = pod("g", ref=ObjectRef("greedy", "g"), addresses=("10.244.0.7",))
    world.cluster.put_pod(greedy)
    world.cluster.put(identity(ref=ObjectRef("greedy", "orders")))
    world.cluster.put(binding(ref=ObjectRef("greedy", "orders-binding")))
    assert await world.warm()
    quiet, world.caller = world.caller, Caller("10.244.0.7", 3)
    world.attestor.uid = greedy.uid
    for number in range(100):
        other = world.request(TOKEN + b"&x=%d" % number)
        assert b"access_token" in await world.decide(other)
    assert world.remembered(other)
    world.caller = quiet
    assert world.remembered()


async def test_it_leaves_the_same_records_as_a_decision() -> None:
    world = World()
    await world.warm()
    assert world.remembered()
    for records in (world.record.lines, world.record.audit):
        assert len(records) == 3
        assert records[-1] == records[-2]


@pytest.mark.parametrize("change", TAKEN_AWAY)
async def test_what_is_taken_away_counts_at_the_next_request_of_a_kept_connection(
    change: Callable[[World], None],
) -> None:
    world = World()
    await world.warm()
    change(world)
    assert world.remembered() is None
    assert b"access_token" not in await world.decide(world.request())
    assert world.remembered() is None


async def test_a_token_that_was_dropped_is_not_given_again() -> None:
    world = World()
    await world.warm()
    world.tokens.changed(identity().ref)
    assert world.remembered(), "it stands as it was"
    other = World()
    await other.warm()
    other.source.unread = True
    other.tokens.changed(identity().ref)
    assert other.remembered() is None


async def test_with_each_second_it_tells_what_is_left_of_the_token_without_a_decision() -> None:
    world = World()
    first = await world.warm()
    decided = len(world.record.lines)
    world.clock.advance(1)
    second = await world.decide_anew(world.request())
    assert second != first
    assert world.remembered() == second
    assert len(world.record.lines) == decided + 2


async def test_it_is_decided_anew_after_a_second_at_least_and_after_two_at_most() -> None:
    world = World()
    await world.warm()
    world.clock.advance(0.99)
    assert world.remembered()
    world.clock.advance(1.01)
    assert world.remembered() is None


def test_decisions_of_a_full_node_do_not_come_in_the_same_moment() -> None:
    seconds = [remembered_seconds(f"10.244.1.{number}", TOKEN) for number in range(110)]
    assert all(1 <= each < 2 for each in seconds)
    tenths = Counter(int(each * 10) for each in seconds)
    assert len(tenths) == 10
    assert max(tenths.values()) < 110 / 5


async def test_what_is_only_observed_is_decided_and_told_each_time() -> None:
    world = World(authorization=Authorization.OBSERVE)
    forbid(world)
    assert b"access_token" in await world.warm()
    assert world.remembered() is None


async def test_what_did_not_arrive_alone_and_in_one_piece_is_not_remembered() -> None:
    world = World()
    await world.warm()
    pieces = replace(world.request(TOKEN + b"&x=a"), raw=b"")
    assert b"access_token" in await world.decide(pieces)
    assert world.remembered(pieces) is None


async def test_a_new_connection_is_proved_before_anything_is_remembered_for_it() -> None:
    world = World()
    decided = await world.warm()
    world.decider_must_rest()
    world.caller = Caller(ADDRESS, 2)
    assert await world.remembered_later() == decided
    assert world.attestor.asked[-1] == (ADDRESS, 2, [pod()])
    assert world.caller.proven == pod().uid
    assert world.remembered() == decided
    assert len(world.attestor.asked) == 2, "each connection was asked about once"


async def test_a_kept_connection_is_proved_anew_before_it_gets_again_what_is_remembered() -> None:
    assert remembered_seconds(ADDRESS, TOKEN) > PROOF_SECONDS
    for verdict, given_again in ((Verdict.PROVEN, True), (Verdict.FORGED, False)):
        world = World()
        await world.warm()
        world.decider_must_rest()
        world.clock.advance(PROOF_SECONDS)
        world.attestor.verdict = verdict
        assert (await world.remembered_later() is not None) is given_again
        assert (world.caller.proven == pod().uid) is given_again
        assert len(world.attestor.asked) == 2


@pytest.mark.parametrize("uid", ["", "uid-of-another"])
async def test_an_answer_that_took_longer_goes_to_nobody_who_has_come_in_the_pods_place(
    uid: str,
) -> None:
    world = World()
    world.source.open.clear()
    answering = asyncio.ensure_future(world.pipeline(world.request()))
    await world.source.begun.wait()
    world.clock.advance(PROOF_SECONDS)
    world.attestor.verdict, world.attestor.uid = Verdict.FORGED, uid
    world.cluster.put_pod(pod("next", uid="uid-of-another", addresses=()))
    world.source.open.set()
    assert b"access_token" not in (await answering).body
    assert world.remembered() is None


async def test_a_new_connection_leaves_the_same_records() -> None:
    world = World()
    await world.warm()
    world.caller = Caller(ADDRESS, 2)
    await world.remembered_later()
    for records in (world.record.lines, world.record.audit):
        assert len(records) == 3
        assert records[-1] == records[-2]


@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not Verdict.PROVEN])
@pytest.mark.parametrize("uid", ["", pod().uid, "uid-of-another"])
async def test_a_new_connection_that_is_not_proved_is_left_to_the_pipeline(
    verdict: Verdict, uid: str
) -> None:
    world = World()
    await world.warm()
    world.caller = Caller(ADDRESS, 2)
    world.attestor.verdict, world.attestor.uid = verdict, uid
    assert await world.remembered_later() is None
    assert world.caller.proven == ""
    assert b"access_token" not in await world.decide(world.request())


async def test_where_an_address_is_merely_believed_the_pipeline_says_so() -> None:
    world = World()
    lowered = pod(attestation="address")
    world.cluster.put_pod(lowered)
    await world.warm()
    world.caller = Caller(ADDRESS, 2)
    world.attestor.verdict, world.attestor.uid, world.attestor.unseen = Verdict.FORGED, "", True
    assert await world.remembered_later() is None
    assert world.caller.proven == ""
    assert b"access_token" in await world.decide(world.request())


@pytest.mark.parametrize("change", TAKEN_AWAY)
async def test_what_is_taken_away_while_a_connection_is_proved_is_decided(
    change: Callable[[World], None],
) -> None:
    world = World()
    await world.warm()
    world.caller = Caller(ADDRESS, 2)
    answering = asyncio.ensure_future(world.remembered_later())
    await asyncio.sleep(0)
    change(world)
    assert await answering is None
    assert b"access_token" not in await world.decide(world.request())


async def test_a_pods_connection_whose_candidates_change_meanwhile_is_not_taken_for_its() -> None:
    world = World()
    await world.warm()
    world.caller = Caller(ADDRESS, 2)
    answering = asyncio.ensure_future(world.remembered_later())
    await asyncio.sleep(0)
    world.cluster.put_pod(pod("carts-0"))
    assert await answering is None
    assert world.caller.proven == ""


async def test_a_new_connection_is_asked_about_only_for_what_can_be_answered() -> None:
    world = World()
    await world.warm()
    world.caller = Caller(ADDRESS, 2)
    asked = len(world.attestor.asked)
    assert world.remembered(world.request(TOKEN + b"&client_id=x")) is None
    world.clock.advance(2)
    assert world.remembered() is None
    await asyncio.sleep(0)
    assert len(world.attestor.asked) == asked


async def test_where_nobody_can_be_asked_now_the_pipeline_waits_for_its_turn() -> None:
    world = World()
    decided = await world.warm()
    world.caller = Caller(ADDRESS, 2)
    world.attestor.asks = False
    assert world.remembered() is None
    assert await world.decide(world.request()) == decided


async def test_a_neighbour_with_the_same_address_gets_nothing_of_it() -> None:
    world = World()
    await world.warm()
    world.caller = Caller(ADDRESS, 2, proven="uid-of-another")
    assert world.remembered() is None


async def test_a_client_that_wants_no_other_answer_is_remembered_as_well() -> None:
    world = World()
    last = world.request(keep_alive=False)
    for _ in range(2):
        decided = await world.decide(last)
    assert b"\r\nConnection: close\r\n" in decided
    assert world.remembered(last) == decided


async def test_a_client_that_numbers_its_requests_has_the_same_answer_without_a_decision() -> None:
    world = World()
    decided = await world.warm()
    asked = len(world.record.lines)
    world.decider_must_rest()
    for number in range(3):
        fields = [*PLAIN, (b"x-ms-client-request-id", b"%d" % number)]
        assert await world.decide(world.request(fields=fields)) == decided
    assert len(world.record.lines) == asked + 3
    assert world.remembered(world.request(fields=fields)) == decided


async def test_a_target_that_was_answered_helps_no_request_without_the_header() -> None:
    world = World()
    await world.warm()
    for request, status in (
        (world.request(fields=PLAIN[:1]), b" 400 "),
        (world.request(fields=FIELDS[2]), b" 400 "),
        (world.request(fields=FIELDS[3]), b" 400 "),
        (world.request(method="PUT"), b" 405 "),
        (world.request(method="HEAD"), b" 405 "),
    ):
        assert world.remembered(request) is None
        assert status in await world.decide(request)


@pytest.mark.parametrize("fields", FIELDS[1:])
async def test_a_request_with_other_headers_is_decided(fields: list[tuple[bytes, bytes]]) -> None:
    world = World()
    await world.warm()
    assert world.remembered(world.request(fields=fields)) is None


Step = Callable[[World], None] | float | tuple[bytes, list[tuple[bytes, bytes]], str]
_STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.sampled_from(TARGETS), st.sampled_from(FIELDS), st.sampled_from(["GET", "PUT"])),
    st.sampled_from([0.3, 1.0, 1.9]),
    st.sampled_from(CHANGES),
)


async def play(steps: list[Step]) -> int:
    """Ask twice after each step; compare each answer at once with the decision, and count them."""
    world, seen = World(), 0
    for step in steps:
        requests = [world.request(TOKEN, fields=PLAIN)] * 2
        if isinstance(step, float):
            world.clock.advance(step)
        elif callable(step):
            step(world)
        else:
            target, fields, method = step
            requests.insert(0, world.request(target, fields=fields, method=method))
        for request in requests:
            at_once = world.remembered(request)
            if at_once is not None:
                seen += 1
                assert at_once == await world.decide_anew(replace(request))
            else:
                await world.decide(request)
    await world.tokens.close()
    return seen


def test_it_never_answers_otherwise_than_a_decision_would() -> None:
    seen = 0

    @settings(max_examples=300, deadline=None)
    @given(st.lists(_STEPS, min_size=5, max_size=40))
    def property_(steps: list[Step]) -> None:
        nonlocal seen
        seen += asyncio.run(play(steps))

    property_()
    assert seen > 300, "the worlds were empty"
