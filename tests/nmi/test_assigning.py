"""Standard mode: a request waits for the controller's record by the watch, and asks nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podidentity.core.decision import Rules
from podidentity.core.errors import NotYetKnown, UnknownCaller
from podidentity.core.refusals import Reason
from podidentity.core.resources import ClientId, ObjectRef, TokenRequest
from podidentity.nmi.request.decision import Granted, Outcome
from podidentity.nmi.request.hold import HoldTimes
from tests.fakes import OTHER_CLIENT, VAULT, assigned, binding, identity, pod
from tests.nmi.worlds import World, error_of, reason

OTHER = TokenRequest(resource=VAULT, client_id=ClientId.parse(OTHER_CLIENT))


def standard(*objects: Any, **policy: Any) -> World:
    found = objects or (pod(), identity(), binding())
    return World(*found, rules=Rules(standard=True), **policy)


async def settled(asking: asyncio.Task[Outcome]) -> bool:
    """Return whether a request is answered once everything has run that can."""
    for _ in range(10):
        await asyncio.sleep(0)
    return asking.done()


async def test_a_held_request_is_answered_when_the_record_becomes_assigned() -> None:
    world = standard()
    asking = await world.asking()
    world.cluster.put(assigned(state="Created"))
    assert not await settled(asking)
    world.cluster.put(assigned())
    assert (await asking).identity == identity()
    assert world.tokens.asked == [(identity(), VAULT, False)]


async def test_a_controller_that_has_begun_is_given_the_longer_time() -> None:
    world = standard()
    asking = await world.asking()
    world.clock.advance(79)
    world.cluster.put(assigned(state="Created"))
    assert not await settled(asking)
    world.clock.advance(20)
    assert not await settled(asking)
    world.clock.advance(1)
    assert reason(await asking) is Reason.NOT_ASSIGNED


async def test_the_time_is_that_of_the_operator() -> None:
    world = standard(hold=HoldTimes(unseen=2, begun=3))
    asking = await world.asking()
    assert world.clock.slept == [2]
    world.clock.advance(2)
    outcome = await asking
    assert reason(outcome) is Reason.NOT_ASSIGNED
    assert outcome.identity == identity(), "the log says which one"


async def test_a_record_that_goes_back_is_waited_for_again() -> None:
    world = standard(pod(), identity(), binding(), assigned())
    assert isinstance(await world.ask(), Granted)
    world.cluster.put(assigned(state="Created"))
    asking = await world.asking()
    world.cluster.put(assigned())
    assert isinstance(await asking, Granted)


async def test_a_forged_record_does_not_lengthen_or_shorten_the_wait() -> None:
    forged = [
        assigned(ref=ObjectRef("bank", "x"), identity=ObjectRef("bank", "orders")),
        assigned(ref=ObjectRef("bank", "y"), pod=ObjectRef("bank", "orders-0")),
        assigned(ref=ObjectRef("bank", "z"), node="n2", state="Created"),
    ]
    world = standard(pod(), identity(), binding(), *forged)
    asking = await world.asking()
    assert world.clock.slept == [80]
    world.clock.advance(80)
    assert reason(await asking) is Reason.NOT_ASSIGNED


async def test_the_heaviest_is_waited_for_and_another_that_is_there_answers_by_its_id() -> None:
    second = identity("second", client_id=ClientId.parse(OTHER_CLIENT))
    objects = [pod(), identity(), binding(weight=5), second, binding("b2", identity="second")]
    world = standard(*objects, assigned("second"))
    assert (await world.ask(OTHER)).identity == second
    asking = await world.asking()
    world.cluster.put(assigned())
    assert (await asking).identity == identity()


async def test_what_imds_does_not_know_just_after_assignment_is_asked_for_again() -> None:
    world = standard(pod(started=1.0), identity(), binding())
    world.tokens.failures = [NotYetKnown("Identity not found", status=400, error="x")]
    asking = await world.asking()
    world.cluster.put(assigned())
    await world.tokens.begun.wait()
    await world.clock.somebody_sleeps()
    world.clock.advance(1)
    assert isinstance(await asking, Granted)


async def test_a_long_wait_for_a_controller_leaves_the_time_that_its_work_needs_to_spread() -> None:
    world = standard(pod(started=1.0), identity(), binding())
    world.tokens.failures = [NotYetKnown("Identity not found", status=400, error="x")]
    asking = await world.asking()
    world.clock.advance(50)
    world.cluster.put(assigned())
    await world.tokens.begun.wait()
    await world.clock.somebody_sleeps()
    world.clock.advance(1)
    assert isinstance(await asking, Granted)


async def test_what_imds_learns_late_is_asked_for_during_half_a_minute_after_assignment() -> None:
    world = standard(pod(started=1.0), identity(), binding())
    world.cluster.put(assigned())
    world.clock.advance(9)
    world.tokens.failures = [NotYetKnown("Identity not found", status=400, error="x")] * 99
    asking = await world.asking()
    world.clock.advance(20)
    assert not await settled(asking)
    world.clock.advance(1)
    assert isinstance(error_of(await asking), NotYetKnown)
    world.tokens.failures = [NotYetKnown("Identity not found", status=400, error="x")]
    assert isinstance(error_of(await world.ask()), NotYetKnown), "at once, from then on"


async def test_an_identity_that_is_unbound_while_a_controller_works_is_refused() -> None:
    world = standard(pod(started=1.0), identity(), binding(), hold=HoldTimes(change=0))
    asking = await world.asking()
    world.cluster.remove("AzureIdentityBinding", binding().ref)
    assert reason(await asking) is Reason.NO_BINDING


@pytest.mark.parametrize("state", ["Created", "Unassigned"])
async def test_a_pod_that_dies_while_it_waits_is_let_go(state: str) -> None:
    world = standard(pod(), identity(), binding(), assigned(state=state))
    asking = await world.asking()
    world.cluster.remove_pod(pod().ref)
    assert isinstance(error_of(await asking), UnknownCaller)


async def test_a_pod_of_the_same_name_does_not_inherit_the_wait_of_the_one_before() -> None:
    world = standard()
    asking = await world.asking()
    world.cluster.put_pod(pod(uid="another"))
    world.cluster.put(assigned())
    assert isinstance(error_of(await asking), UnknownCaller)
    assert world.tokens.asked == []


async def test_a_client_that_leaves_ends_its_wait() -> None:
    world = standard()
    asking = await world.asking()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await settled(asking)
    assert world.clock._sleepers == []


async def test_many_wait_for_one_record_and_all_are_answered() -> None:
    world = standard()
    waiting = [await world.asking() for _ in range(110)]
    world.cluster.put(assigned())
    outcomes = await asyncio.gather(*waiting)
    assert all(isinstance(outcome, Granted) for outcome in outcomes)
