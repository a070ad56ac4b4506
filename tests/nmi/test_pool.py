"""Who gets a place, and who loses one: each holder pays for what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from podidentity.nmi.server.listener import (
    BEGUN_AT_ONCE,
    READ_AT_ONCE,
    SETTLED_SECONDS,
    ConnectionPool,
)
from podidentity.nmi.server.messages import Limits


class FakeConnection:
    """A connection that is gone as soon as it is evicted."""

    def __init__(self, name: str, since: float = 0.0, *, busy: bool = False) -> None:
        self.name = name
        self.since = since
        self.busy = busy
        self.half_closed = False
        self.evicted = False
        self.begun = 0

    def __repr__(self) -> str:
        return self.name

    def evict(self) -> None:
        self.evicted = True

    def begin_now(self) -> None:
        self.begun += 1


class House:
    """A pool, and the connections that came."""

    def __init__(self, **limits: int) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], None]] = []
        self.pool: ConnectionPool[FakeConnection] = ConnectionPool(
            Limits(**limits), lambda: self.now, self.soon.append
        )
        self.all: list[FakeConnection] = []

    def come(
        self, address: str, *, busy: bool = False, local: bool = False, pod: str = ""
    ) -> FakeConnection | None:
        """Let a connection come, the idle time of each being shorter than those before it."""
        if not self.pool.makes_room(address, local=local):
            return None
        connection = FakeConnection(f"{address}-{len(self.all)}", len(self.all) / 1000, busy=busy)
        self.pool.add(connection, address, local=local)
        self.all.append(connection)
        if pod:
            self.pool.attribute(connection, pod)
        return connection

    def turn(self) -> None:
        """Let a turn of the event loop pass."""
        due, self.soon[:] = [*self.soon], []
        for each in due:
            each()

    def evicted(self) -> list[str]:
        return [each.name for each in self.all if each.evicted]


def addresses(count: int) -> Iterable[str]:
    return (f"10.244.0.{number}" for number in range(count))


def test_a_pod_that_speaks_with_every_address_of_the_subnet_gets_one_small_pool() -> None:
    house = House(unproven=64, per_address=8)
    for address in addresses(250):
        for _ in range(16):
            house.come(address)
    assert len(house.pool) == 64


def test_a_newcomer_gets_a_place_whatever_a_pod_with_many_addresses_holds() -> None:
    house = House(unproven=64, per_address=8)
    for address in addresses(250):
        for _ in range(16):
            house.come(address, busy=True)
    victim = house.come("10.244.1.7")
    assert victim is not None
    assert not victim.evicted
    assert len(house.pool) == 64


def test_connections_of_pods_are_not_touched_by_those_that_are_not_proved() -> None:
    house = House(unproven=4, per_address=4)
    mine = [house.come("10.244.0.9", pod="uid-orders") for _ in range(20)]
    for address in addresses(8):
        house.come(address)
    assert not any(each is None or each.evicted for each in mine)


def test_the_longest_idle_of_the_address_that_holds_most_goes_and_a_busy_one_last() -> None:
    house = House(unproven=4)
    house.come("10.244.0.1", busy=True)
    house.come("10.244.0.1")
    house.come("10.244.0.1")
    house.come("10.244.0.2")
    house.come("10.244.0.3")
    assert house.evicted() == ["10.244.0.1-1"]
    house.come("10.244.0.4")
    assert house.evicted() == ["10.244.0.1-1", "10.244.0.1-2"]


def test_a_half_closed_connection_is_evicted_first_even_if_it_is_busy() -> None:
    house = House(per_address=3)
    first, _, last = (house.come("10.244.0.1", busy=busy) for busy in (False, True, True))
    assert last is not None
    last.half_closed = True
    assert house.come("10.244.0.1") is not None
    assert house.evicted() == [last.name]
    assert first is not None


def test_who_holds_as_much_as_anybody_gets_no_more_from_a_full_house() -> None:
    house = House(unproven=2)
    house.come("10.244.0.1")
    house.come("10.244.0.2")
    assert house.come("10.244.0.1") is None
    assert house.evicted() == []


def test_an_address_at_its_own_limit_gets_another_place_once_one_of_its_own_was_idle_a_while() -> (
    None
):
    house = House(per_address=2)
    first, second = house.come("10.244.0.1"), house.come("10.244.0.1")
    assert first is not None
    assert second is not None
    first.since = second.since = house.now
    assert house.come("10.244.0.1") is None
    house.now += SETTLED_SECONDS
    assert house.come("10.244.0.1") is not None
    assert house.evicted() == [first.name]


def test_a_flood_from_one_address_is_refused_before_anything_is_made_of_it() -> None:
    house = House(per_address=32)
    for _ in range(10_000):
        house.now += 0.0001
        connection = house.come("10.244.0.1")
        if connection is not None:
            connection.since = house.now
    assert len(house.all) < 32 + 32 * 2
    assert len(house.pool) == 32


def test_a_pod_at_its_limit_loses_its_own_longest_idle() -> None:
    house = House(per_pod=3)
    for _ in range(5):
        house.come("10.244.0.1", pod="uid-a")
    house.come("10.244.0.2", pod="uid-b")
    assert house.evicted() == ["10.244.0.1-0", "10.244.0.1-1"]


def test_a_pod_is_one_holder_however_many_addresses_it_has() -> None:
    house = House(per_pod=3)
    for address in addresses(5):
        house.come(address, pod="uid-a")
    assert len(house.evicted()) == 2


def test_where_all_places_of_pods_are_taken_the_pod_that_holds_most_loses_one() -> None:
    house = House(connections=10, per_pod=9)
    for _ in range(9):
        house.come("10.244.0.1", pod="uid-greedy")
    for address in ("10.244.0.2", "10.244.0.3", "10.244.0.4"):
        house.come(address, pod=f"uid-{address}")
    assert house.evicted() == ["10.244.0.1-0", "10.244.0.1-1"]


def test_the_node_itself_has_places_that_no_pod_takes_and_takes_none_of_theirs() -> None:
    house = House(unproven=4, per_address=4, local=2)
    for address in addresses(8):
        for _ in range(8):
            house.come(address)
    before = house.evicted()
    for _ in range(3):
        assert house.come("10.240.0.4", local=True) is not None
    assert len(house.pool) == 4 + 2
    assert [name for name in house.evicted() if name not in before] == [
        "10.240.0.4-" + str(len(house.all) - 3)
    ]


def test_a_connection_moves_to_its_pod_once_and_another_one_when_the_pod_is() -> None:
    house = House(unproven=1, per_pod=1)
    connection = house.come("10.244.0.1", pod="uid-a")
    assert connection is not None
    house.pool.attribute(connection, "uid-a")
    house.pool.attribute(connection, "uid-b")
    assert house.come("10.244.0.2", pod="uid-a") is not None
    assert house.evicted() == []
    house.pool.remove(connection)
    house.pool.remove(connection)
    assert len(house.pool) == 1


@pytest.mark.parametrize("pod", ["", "uid-a"])
def test_what_the_requests_of_one_holder_take_in_memory_is_bounded(pod: str) -> None:
    house = House(held_per_address=100, held_per_pod=100)
    found = [house.come("10.244.0.1", pod=pod) for _ in range(3)]
    other = house.come("10.244.0.2")
    first, second, third = (each for each in found if each is not None)
    assert other is not None
    assert house.pool.hold(first, 60)
    assert house.pool.hold(second, 40)
    assert not house.pool.hold(third, 1)
    assert house.pool.hold(other, 100)
    assert house.pool.hold(first, 10)
    assert house.pool.hold(third, 0)
    assert house.pool.held == 150


def test_where_all_memory_is_taken_the_holder_of_most_loses_its_largest() -> None:
    house = House(held_bytes=100, held_per_pod=80)
    greedy = [house.come("10.244.0.1", pod="uid-greedy") for _ in range(2)]
    modest = house.come("10.244.0.2", pod="uid-modest")
    small, large = (each for each in greedy if each is not None)
    assert modest is not None
    assert house.pool.hold(small, 30)
    assert house.pool.hold(large, 50)
    assert house.pool.hold(modest, 21)
    assert house.evicted() == [large.name]
    assert house.pool.held == 51
    assert not house.pool.hold(small, 80)


def test_memory_moves_with_its_connection() -> None:
    house = House(held_per_address=50, held_per_pod=100)
    connection = house.come("10.244.0.1")
    assert connection is not None
    assert house.pool.hold(connection, 50)
    house.pool.attribute(connection, "uid-a")
    assert house.pool.hold(connection, 100)
    house.pool.remove(connection)
    assert house.pool.held == 0
    assert not house.pool.hold(connection, 1)


def begins(house: House, connection: FakeConnection | None) -> bool:
    assert connection is not None
    return house.pool.may_begin(connection)


def reads(house: House, connection: FakeConnection | None) -> bool:
    assert connection is not None
    return house.pool.may_read(connection)


def begun(connections: Iterable[FakeConnection | None]) -> list[int]:
    return [each.begun for each in connections if each is not None]


def test_a_few_requests_are_begun_in_a_turn_and_the_others_in_their_order() -> None:
    house, few = House(), BEGUN_AT_ONCE
    many = [house.come("10.244.0.2", pod="many") for _ in range(3 * few)]
    assert [begins(house, each) for each in many] == [True] * few + [False] * 2 * few
    for turn in (1, 2):
        house.turn()
        assert begun(many) == [0] * few + [1] * turn * few + [0] * (2 - turn) * few


def test_what_was_put_off_is_begun_in_turns_of_the_holders() -> None:
    house = House()
    many = [house.come("10.244.0.2", pod="many") for _ in range(10 * BEGUN_AT_ONCE)]
    for each in many:
        begins(house, each)
    neighbour, stranger = house.come("10.244.1.1", pod="neighbour"), house.come("10.244.2.2")
    for each in (neighbour, stranger):
        assert not begins(house, each)
    house.turn()
    assert begun([neighbour, stranger]) == [1] * 2
    assert sum(begun(many)) == BEGUN_AT_ONCE - 2


def test_of_many_new_connections_of_an_address_the_first_are_read_at_once() -> None:
    house = House()
    for _ in range(READ_AT_ONCE):
        assert reads(house, house.come("10.244.0.2"))
    crowd = [house.come("10.244.0.2") for _ in range(BEGUN_AT_ONCE + 2)]
    assert [reads(house, each) for each in crowd] == [True] * BEGUN_AT_ONCE + [False] * 2
    assert reads(house, house.come("10.244.0.3"))
    assert reads(house, house.come("127.0.0.1", local=True))
    house.turn()
    assert begun(crowd) == [0] * BEGUN_AT_ONCE + [1] * 2


def test_who_comes_later_waits_behind_what_was_put_off() -> None:
    house = House()
    first = [house.come("10.244.0.2", pod="a") for _ in range(2 * BEGUN_AT_ONCE + 1)]
    for each in first:
        begins(house, each)
    house.turn()
    late = house.come("10.244.0.2", pod="a")
    assert not begins(house, late)
    house.turn()
    assert begun([first[-1], late]) == [1, 1]


def test_no_turn_is_asked_for_when_nothing_was_begun_in_the_last() -> None:
    house = House()
    one = house.come("10.244.0.2", pod="a")
    for _ in range(3):
        assert begins(house, one)
        house.turn()
        house.turn()
        assert not house.soon
