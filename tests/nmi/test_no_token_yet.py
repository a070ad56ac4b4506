"""Whoever issues tokens says no: what is asked for again, how long, and what never is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podidentity.core.errors import NotYetKnown, TokenRefused, TokenSourceDown
from podidentity.nmi.request.decision import Granted
from podidentity.nmi.request.pipeline import fetch_until
from tests.fakes import binding, identity, pod
from tests.nmi.worlds import OLD, World, error_of


async def test_an_identity_attached_a_moment_ago_is_asked_for_again_within_the_hold() -> None:
    world = World(pod(), identity(), binding())
    absent = NotYetKnown("Identity not found", status=400, error="invalid_request")
    world.tokens.failures = [absent, absent]
    asking = await world.asking()
    world.clock.advance(1)
    await asyncio.sleep(0)
    await world.clock.somebody_sleeps()
    while len(world.tokens.asked) < 3:
        world.clock.advance(1)
        await asyncio.sleep(0)
    assert isinstance(await asking, Granted)
    assert set(world.clock.slept) == {1.0}


async def test_what_is_known_to_come_is_waited_for_and_not_asked_for_again_and_again() -> None:
    world = World(pod(), identity(), binding())
    come = asyncio.Event()
    world.tokens.failures = [
        NotYetKnown("Secret s does not exist", status=401, error="x", comes=come.wait)
    ]
    asking = await world.asking()
    world.clock.advance(7)
    await asyncio.sleep(0)
    assert len(world.tokens.asked) == 1
    come.set()
    assert isinstance(await asking, Granted)
    assert world.clock.slept == [8.0]


async def test_what_does_not_come_is_refused_when_the_hold_is_over() -> None:
    world = World(pod(), identity(), binding())
    never = asyncio.Event().wait
    absent = NotYetKnown("Secret s does not exist", status=401, error="x", comes=never)
    world.tokens.failures = [absent, absent]
    asking = await world.asking()
    world.clock.advance(8)
    assert error_of(await asking) is absent
    assert world.clock._sleepers == []


@pytest.mark.parametrize(
    ("allowed", "until"), [(0.0, 9.0), (7.5, 9.0), (8.0, 9.0), (8.5, 17.5), (60.0, 69.0)]
)
def test_a_token_is_waited_for_until_nine_seconds_after_the_request_or_a_long_hold(
    allowed: float, until: float
) -> None:
    assert fetch_until(100.0, 100.0 + allowed) == 100.0 + until


async def test_the_hold_of_a_request_counts_in_the_time_that_its_token_has() -> None:
    world = World(pod(started=OLD), identity())
    begun = world.clock.monotonic()
    world.cluster.put(binding("other", selector="other"))
    asking = await world.asking()
    world.clock.advance(6)
    world.cluster.put(binding())
    assert isinstance(await asking, Granted)
    assert world.tokens.until == begun + 9


async def test_an_identity_that_is_not_attached_is_refused_when_the_hold_is_over() -> None:
    world = World(pod(started=OLD), identity(), binding())
    world.tokens.failures = [NotYetKnown("Identity not found", status=400, error="x")]
    outcome = await world.ask()
    assert isinstance(error_of(outcome), NotYetKnown)
    assert len(world.tokens.asked) == 1


@pytest.mark.parametrize(
    "failure", [TokenRefused("no", status=400, error="x"), TokenSourceDown("away")], ids=repr
)
async def test_other_failures_are_never_repeated(failure: Any) -> None:
    world = World(pod(), identity(), binding())
    world.tokens.failures = [failure]
    outcome = await world.ask()
    assert error_of(outcome) is failure
    assert (outcome.pod, outcome.identity) == (pod(), identity())
    assert len(world.tokens.asked) == 1
