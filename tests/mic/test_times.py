"""How soon identities are there and how often Azure is asked, on a clock that is a number."""

from __future__ import annotations

import random

import pytest

from podidentity.mic import hosts
from podidentity.mic.calls import (
    Action,
    CreateRecord,
    Failure,
    Fault,
    ListHosts,
    PatchHost,
    ReadHost,
    UpdateRecord,
    WriteLedger,
)
from podidentity.mic.hosts import QUIET
from tests.mic.timed_world import API, ARM, POLL, TimedWorld, of_machine, of_set

SLOW = 600.0


def crowd(world: TimedWorld, pods: int, sets: int, identities: int) -> dict[str, int]:
    """Have pods come within two seconds, each anywhere; return on which set each is."""
    drawn = random.Random(7)  # noqa: S311 - the same each time
    where = {f"p{number}": drawn.randrange(sets) for number in range(pods)}
    for number, (name, each) in enumerate(where.items()):
        identity = drawn.randrange(identities)
        world.at(world.now + 2 * number / pods, world.pod, name, f"n{each}", identity)
    return where


def test_a_pod_is_assigned_as_if_alone_while_another_scale_set_changes_for_ten_minutes() -> None:
    took = []
    for disturbed in (False, True):
        world = TimedWorld(2, takes=lambda host: SLOW if host.name == "set0" else 40.0)
        for number in (0, 1):
            world.node(f"n{number}", of_set(number))
        world.run(until=10)
        if disturbed:
            world.pod("slow", "n0", identity=0)
        world.run(until=20)
        world.pod("same", "n1", identity=0)
        world.pod("other", "n1", identity=1)
        world.run(until=200)
        took.append((world.when("same"), world.when("other")))
        assert world.when("slow") > 200
    alone, beside = map(max, took)
    assert beside <= alone < 20 + 40 + POLL


def test_pods_that_come_within_two_seconds_share_one_change_of_their_scale_set() -> None:
    world = TimedWorld(20, takes=lambda host: SLOW if host.name == "set0" else 40.0)
    for number in range(5):
        world.node(f"n{number}", of_set(number))
    world.run(until=10)
    where = crowd(world, pods=330, sets=5, identities=20)
    world.run(until=10 + 700)
    others = [world.when(name) - 10 for name, number in where.items() if number]
    own = [world.when(name) - 10 for name, number in where.items() if not number]
    assert max(others) < 60
    assert max(own) < 11 * 60
    assert world.calls[PatchHost] == 5


def test_if_changes_were_gathered_for_one_second_the_last_of_these_pods_would_wait_for_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "GATHER", 1.0)
    world = TimedWorld(20, takes=lambda _: 40.0)
    world.node("n0", of_set(0))
    world.run(until=10)
    pods = crowd(world, pods=66, sets=1, identities=20)
    world.run(until=10 + 200)
    assert max(world.when(name) - 10 for name in pods) > 80
    assert world.calls[PatchHost] == 2


def test_a_pod_alone_does_not_wait_for_others() -> None:
    world = TimedWorld(1, takes=lambda _: 0.0)
    world.node("n", of_set(0))
    world.run(until=10)
    world.pod("p", "n")
    world.run(until=30)
    # It is read, the pause in which others might come passes, it is changed, and polled.
    assert world.when("p") < 10 + ARM + QUIET + ARM + POLL + ARM + 10 * API


def test_a_pod_waits_for_two_answers_of_a_slow_api_server_from_when_it_is_scheduled() -> None:
    """Its machine's ledger and its record, one write each; its permission was asked for before."""
    world = TimedWorld(1, takes=lambda _: 0.0, api=3.0, poll=1.0)
    world.node("n", of_set(0))
    world.run(until=10)
    world.pod("p", node="")
    world.run(until=13)
    world.pod("p", "n")
    world.run(until=60)
    assert world.when("p") < 13 + QUIET + 3.0 + ARM + 1.0 + ARM + 3.0
    assert world.calls[CreateRecord] == 1
    assert not world.calls[UpdateRecord]


def test_a_pod_that_is_scheduled_at_once_waits_for_its_permission_and_for_no_second_record() -> (
    None
):
    world = TimedWorld(1, takes=lambda _: 0.0, api=3.0, poll=1.0)
    world.node("n", of_set(0))
    world.run(until=10)
    world.pod("p", "n")
    world.run(until=60)
    assert world.when("p") < 10 + 3.0 + QUIET + 3.0 + ARM + 1.0 + ARM + 3.0
    assert world.calls[CreateRecord] == 1
    assert not world.calls[UpdateRecord]


def test_of_pods_that_come_one_by_one_the_last_ones_pause_is_waited_for_and_no_longer() -> None:
    world = TimedWorld(5, takes=lambda _: 0.0)
    world.node("n", of_set(0))
    world.run(until=10)
    for number in range(5):
        world.at(10 + 0.3 * number, world.pod, f"p{number}", "n", number)
    world.run(until=40)
    assert world.calls[PatchHost] == 1
    last = 10 + 0.3 * 4
    assert world.when("p4") < last + QUIET + ARM + POLL + ARM + 10 * API


def test_pods_that_come_again_within_the_grace_cost_one_attachment_an_edge() -> None:
    """Identities are neither detached nor attached again while their pods are replaced."""
    world = TimedWorld(5, grace=300.0)
    for number in range(4):
        world.node(f"n{number}", of_set(number))
    drawn = random.Random(7)  # noqa: S311 - the same each time
    for name, number in ((f"p{each}", each) for each in range(100)):
        # Of an edge all pods go at about the same time.
        edge, when = number % 20, 10 + drawn.random()
        for _ in range(5):
            world.at(when, world.pod, name, f"n{edge % 4}", edge // 4)
            world.at(when + 60, world.gone, name)
            when += 60 + 200 + 10 * drawn.random()
    # The first edge is without pods for good not before its five turns of 260 s.
    world.run(until=10 + 4 * 260 + 60 + 299)
    assert (len(world.attached), {*world.attached.values()}) == (20, {1})
    assert not world.detached
    world.run(until=world.now + 500)
    assert (len(world.detached), {*world.detached.values()}) == (20, {1})


def test_scale_sets_of_a_group_are_reconciled_by_one_list_and_nothing_is_written() -> None:
    world = TimedWorld(2)
    for number in range(100):
        world.node(f"n{number}", of_set(number))
        world.pod(f"p{number}", f"n{number}", number % 2)
    world.run(until=120)
    assert len(world.assigned) == 100
    for _ in range(3):
        before = world.calls.copy()
        world.run(until=world.now + 180)
        made = {kind.__name__: number for kind, number in (world.calls - before).items()}
        assert made == {"ListHosts": 1, "ListLedgers": 1}


def come(world: TimedWorld, number: int) -> None:
    world.node(f"n{number}", of_machine(number))
    world.pod(f"p{number}", f"n{number}")


def test_new_machines_have_their_identity_soon_however_few_changes_azure_takes() -> None:
    world = TimedWorld(1, takes=lambda _: 15.0, writes=10.0)
    for number in range(200):
        world.at(1 + number / 200, come, world, number)
    world.run(until=120)
    # 20 s are needed to send them, 15 s for each change, and up to 10 s between two polls.
    assert max(world.when(f"p{number}") for number in range(200)) < 60
    assert world.refused < 200
    assert world.early == 0


def test_a_machine_that_waits_for_its_turn_is_read_when_it_has_come_and_not_meanwhile() -> None:
    world = TimedWorld(1, takes=lambda _: 15.0, writes=10.0)
    for number in range(400):
        world.at(1 + number / 400, come, world, number)
    world.run(until=120)
    assert len(world.assigned) == 400
    # A read when the pod comes, and one more for a change that was refused, or has waited.
    assert world.calls[ReadHost] + world.calls[ListHosts] <= 2 * 400 + world.refused


def sick(world: TimedWorld) -> None:
    """Have three machines come, whose changes nobody answers for the first half minute.

    From then on one call at a time finds out whether the subscription is well again.
    """
    for number in range(3):
        come(world, number)
    world.run(until=200)


@pytest.mark.parametrize("kind", [ReadHost, WriteLedger])
def test_a_machine_that_cannot_go_on_gives_its_turn_to_the_next(kind: type[Action]) -> None:
    def fails(now: float, action: Action) -> Failure | None:
        if isinstance(action, PatchHost) and now < 30:
            return Failure(kind=Fault.UNREACHABLE)
        host = action.ledger.host if isinstance(action, WriteLedger) else None
        host = action.host if isinstance(action, ReadHost) else host
        if isinstance(action, kind) and now > 8 and host and host.name == "vm0":
            return Failure(kind=Fault.FORBIDDEN)
        return None

    world = TimedWorld(1, takes=lambda _: 15.0, fails=fails)
    sick(world)
    assert max(world.when("p1"), world.when("p2")) < 120


def test_a_machine_that_needs_nothing_any_more_gives_its_turn_to_the_next() -> None:
    gone: list[float] = []

    def fails(now: float, action: Action) -> Failure | None:
        if isinstance(action, PatchHost) and now < 30:
            return Failure(kind=Fault.UNREACHABLE)
        if isinstance(action, ReadHost) and now > 30 and not gone:
            # It was read because its turn has come; now its pod goes.
            gone.append(now)
            world.at(now, world.gone, action.host.name.replace("vm", "p"))
        return None

    world = TimedWorld(1, takes=lambda _: 15.0, fails=fails)
    sick(world)
    assert gone
    assert len(world.assigned) == 2
    assert max(world.assigned.values()) < 120
