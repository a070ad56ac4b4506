"""What a proved pod gets, and how long it waits for it: the later rows of the decision."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podidentity.core import decision as core_decision
from podidentity.core.decision import Allowed, Ambiguity, Decision, Match, Use, match
from podidentity.core.errors import NotYetKnown, Refused, UnknownCaller
from podidentity.core.refusals import Reason
from podidentity.core.resources import ClientId, Malformed, ObjectRef, TokenRequest
from podidentity.nmi.request import decision
from podidentity.nmi.request.decision import Granted
from podidentity.nmi.request.hold import AT_ONCE, MOST_OF_NAMESPACE, PAUSE, HoldTimes
from podidentity.nmi.server.messages import Caller
from tests.fakes import (
    CLIENT,
    NOW,
    OTHER_CLIENT,
    VAULT,
    binding,
    identity,
    pod,
)
from tests.nmi.worlds import OLD, World, error_of, reason


async def test_what_a_pod_may_use_is_found_once_while_nothing_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, found = World(pod(started=OLD), identity(), binding()), []

    def counted(*given: Any) -> Match:
        found.append(match(*given))
        return found[-1]

    monkeypatch.setattr("podidentity.nmi.request.decision.match", counted)
    decider = world.decider()
    for expected in (1, 1, 2, 2):
        if expected == 2:
            world.cluster.put(identity(client_id=ClientId.parse(OTHER_CLIENT)))
        outcome = await world.ask(decider=decider)
        assert isinstance(outcome, Granted)
        assert len(found) == expected
    assert outcome.identity == identity(client_id=ClientId.parse(OTHER_CLIENT))


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([pod(labels={}, started=OLD), identity(), binding()], Reason.NO_LABEL),
        ([pod(started=OLD), identity()], Reason.NO_BINDING),
        (
            [pod(started=OLD), identity(), binding(ref=ObjectRef("other", "b"))],
            Reason.OTHER_NAMESPACE,
        ),
        ([pod(started=OLD), binding()], Reason.NO_IDENTITY),
        ([pod(started=OLD, host_network=True), identity(), binding()], Reason.HOST_NETWORK),
    ],
    ids=lambda value: str(value) if isinstance(value, Reason) else "",
)
async def test_an_old_pod_that_nothing_has_changed_for_is_refused_at_once(
    objects: list[Any], expected: Reason
) -> None:
    world = World(*objects)
    assert reason(await world.ask()) is expected
    assert world.clock.slept == []
    assert world.tokens.asked == []


@pytest.mark.parametrize(
    "objects",
    [
        [pod(labels={}), identity(), binding()],
        [pod(host_network=True), identity(), binding()],
    ],
    ids=["no label", "host network"],
)
async def test_what_no_waiting_can_change_is_refused_at_once_for_a_young_pod_too(
    objects: list[Any],
) -> None:
    world = World(*objects)
    assert isinstance(error_of(await world.ask()), Refused)
    assert world.clock.slept == []


async def test_a_young_pod_is_held_until_its_binding_comes() -> None:
    world = World(pod(started=NOW - 3), identity())
    asking = await world.asking()
    assert world.clock.slept == [5.0], "8 s after its start"
    world.cluster.put(binding())
    assert isinstance(await asking, Granted)


async def test_a_pod_is_held_to_the_last_moment() -> None:
    world = World(pod(started=NOW - 7.5), identity())
    asking = await world.asking()
    assert world.clock.slept == [0.5]
    world.cluster.put(binding())
    assert isinstance(await asking, Granted)


async def test_a_held_pod_is_refused_when_the_hold_is_over() -> None:
    world = World(pod(started=NOW - 3), identity())
    asking = await world.asking()
    world.clock.advance(5)
    assert reason(await asking) is Reason.NO_BINDING


async def test_a_change_in_its_namespace_holds_a_pod_from_then_on() -> None:
    world = World(pod(started=OLD), identity())
    world.cluster.put(binding(selector="another"))
    world.clock.advance(3)
    asking = await world.asking()
    assert world.clock.slept == [5.0]
    world.cluster.put(binding())
    assert isinstance(await asking, Granted)


async def test_a_change_in_another_namespace_holds_nobody_here() -> None:
    world = World(pod(started=OLD), identity())
    world.cluster.put(binding(ref=ObjectRef("other", "b"), selector="x"))
    assert reason(await world.ask()) is Reason.NO_BINDING
    assert world.clock.slept == []


async def test_an_identity_that_is_corrected_within_the_hold_serves_the_held_request() -> None:
    world = World(pod(started=OLD), binding())
    bad = Malformed(ref=identity().ref, kind="AzureIdentity", why="spec.clientID is missing")
    world.cluster.put(bad)
    asking = await world.asking()
    world.cluster.put(identity())
    assert (await asking).identity == identity()


async def test_a_label_corrected_within_the_hold_serves_the_held_request() -> None:
    world = World(pod(labels={"aadpodidbinding": "typo"}), identity(), binding())
    asking = await world.asking()
    world.cluster.put_pod(pod())
    outcome = await asking
    assert isinstance(outcome, Granted)
    assert outcome.pod == pod()


async def test_a_pod_that_ends_while_it_is_held_is_answered() -> None:
    world = World(pod(), identity())
    asking = await world.asking()
    world.cluster.remove_pod(pod().ref)
    assert isinstance(error_of(await asking), UnknownCaller)


async def _settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_namespace_has_so_many_held_requests_and_takes_no_place_of_another() -> None:
    """Else whoever changes his objects all the time has thousands decided at each change."""
    world = World(pod())
    decider = world.decider()
    asks = [asyncio.create_task(world.ask(decider=decider)) for _ in range(MOST_OF_NAMESPACE + 50)]
    await _settled()
    refused = [each.result() for each in asks if each.done()]
    assert [reason(each) for each in refused] == [Reason.NO_BINDING] * 50
    world.cluster.put_pod(pod("b", ref=ObjectRef("bank", "b"), addresses=("10.244.0.9",)))
    world.caller = Caller("10.244.0.9", 1)
    other = asyncio.create_task(world.ask(decider=decider))
    await _settled()
    assert not other.done()
    other.cancel()
    world.cluster.put(identity())
    world.cluster.put(binding())
    world.clock.advance(PAUSE)
    outcomes = await asyncio.gather(*asks)
    assert sum(isinstance(each, Granted) for each in outcomes) == MOST_OF_NAMESPACE
    assert not decider.hold.held, "all places are free again"


async def test_changes_without_end_have_a_held_request_decided_a_few_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, decided = World(pod()), 0
    decide = core_decision.decide

    def counted(*given: Any, **more: Any) -> Decision:
        nonlocal decided
        decided += 1
        return decide(*given, **more)

    monkeypatch.setattr(decision, "decide", counted)
    asking = await world.asking()
    for number in range(50):
        world.cluster.put(identity(f"x{number}"))
        await _settled()
    assert decided <= AT_ONCE + 1
    before = decided
    world.clock.advance(PAUSE)
    await _settled()
    assert decided == before + 1, "what changed meanwhile is not missed"
    world.cluster.put(identity())
    world.cluster.put(binding())
    world.clock.advance(PAUSE)
    assert isinstance(await asking, Granted)


async def _changes_until(world: World, seconds: float) -> None:
    """Let an object of another pod change each quarter of a second."""
    for number in range(int(seconds / PAUSE)):
        world.cluster.put(identity(f"x{number}"))
        await _settled()
        world.clock.advance(PAUSE)
        await _settled()


async def test_changes_without_end_hold_a_request_no_longer_than_one_does() -> None:
    """In a busy namespace a pod had no answer at all: its client left after 10 s, or 15."""
    world = World(pod(), identity())
    asking = await world.asking()
    await _changes_until(world, 7.75)
    assert not asking.done()
    await _changes_until(world, 0.25)
    assert asking.done()
    assert reason(await asking) is Reason.NO_BINDING


async def test_changes_without_end_hold_a_request_for_a_token_no_longer_than_one_does() -> None:
    world = World(pod(), identity(), binding())
    world.tokens.failures = [NotYetKnown("Identity not found", status=400, error="x")] * 99
    asking = await world.asking()
    await _changes_until(world, 7.75)
    assert not asking.done()
    await _changes_until(world, 1.0)
    assert asking.done()
    assert isinstance(error_of(await asking), NotYetKnown)


async def test_a_hold_of_nothing_holds_nobody() -> None:
    world = World(pod(), identity(), hold=HoldTimes(change=0))
    assert reason(await world.ask()) is Reason.NO_BINDING


async def test_an_id_that_is_not_among_the_pods_is_refused_at_once_with_what_is() -> None:
    world = World(pod(), identity(), binding())
    asked = TokenRequest(resource=VAULT, client_id=ClientId.parse(OTHER_CLIENT))
    outcome = await world.ask(asked)
    assert reason(outcome) is Reason.NOT_AMONG
    assert "orders (11111111-" in str(error_of(outcome))
    assert world.clock.slept == []
    assert world.tokens.asked == []


def two_identities() -> list[Any]:
    other = identity("other", client_id=ClientId.parse(OTHER_CLIENT))
    return [pod(), identity(), binding(), other, binding("b", identity="other", weight=5)]


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_permission_that_is_not_known_is_asked_for_and_counts_as_it_is_answered(
    *, allowed: bool
) -> None:
    world = World(pod(), identity(), binding())
    world.permissions.default = allowed
    outcome = await world.ask()
    assert isinstance(outcome, Granted) is allowed
    assert [use.name for use in world.permissions.asked] == [CLIENT]
    assert bool(world.tokens.asked) is allowed


async def test_what_was_allowed_before_a_wait_is_so_afterwards_if_it_would_be_allowed_now() -> None:
    world = World(pod(), identity(), binding())
    account = ObjectRef("shop", "default")
    uses = [Use(account, CLIENT), Use(account, OTHER_CLIENT)]
    world.permissions.allowed = dict.fromkeys(uses, True)
    decider = world.decider()
    _, allowed = decider.current(pod())
    assert isinstance(allowed, Allowed)

    def still() -> bool:
        return decider.still_allows(allowed, TokenRequest(resource=VAULT), Ambiguity.WEIGHT)

    assert still()
    world.permissions.allowed[uses[0]] = False
    assert not still(), "its permission was withdrawn"
    world.permissions.allowed[uses[0]] = True
    world.cluster.put(identity(client_id=ClientId.parse(OTHER_CLIENT)))
    assert not still(), "its identity is another one now"
    world.cluster.put(identity())
    assert still()
    world.cluster.remove_pod(pod().ref)
    assert not still(), "it has gone"


async def test_of_several_identities_the_heaviest_answers_who_names_none() -> None:
    outcome = await World(*two_identities()).ask()
    assert outcome.identity is not None
    assert outcome.identity.ref.name == "other"


async def test_of_several_identities_none_answers_who_names_none_where_that_is_chosen() -> None:
    world = World(*two_identities(), ambiguity=Ambiguity.REJECT)
    assert reason(await world.ask()) is Reason.AMBIGUOUS


async def test_bypass_cache_reaches_the_source() -> None:
    world = World(pod(), identity(), binding())
    await world.ask(TokenRequest(resource=VAULT, bypass_cache=True))
    assert world.tokens.asked[0][2] is True


async def test_a_client_that_leaves_ends_its_wait() -> None:
    world = World(pod(), identity())
    asking = await world.asking()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert world.clock._sleepers == []
