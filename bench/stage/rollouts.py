"""The controller on a fake clock: how soon identities are there and how often Azure is asked.

It is the product's controller, with its queues and gates; Azure and the API server are what
`tests.mic.timed_world` says. What is waited for are minutes of Azure's, so nothing here depends on
the machine: the same figures each time, at once.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from podidentity.mic.calls import (
    CreateRecord,
    DeleteRecord,
    ListHosts,
    PatchHost,
    ReadHost,
    UpdateRecord,
    WriteLedger,
)
from tests.mic.timed_world import TimedWorld, of_machine, of_set

_ARM, _SLOW = 40.0, 600.0
_BEGINS = 10.0
"""When nodes are known and their machines are read."""


def beside_a_slow_set() -> tuple[float, float]:
    """Return the seconds of a pod alone, and of one while another node's set takes 40 s."""
    took = []
    for busy in (False, True):
        world = TimedWorld(2, takes=lambda _: _ARM)
        for number in (0, 1):
            world.node(f"n{number}", of_set(number))
        world.run(until=_BEGINS)
        if busy:
            world.pod("first", "n0", 0)
        world.run(until=_BEGINS + 10)
        world.pod("second", "n1", 1)
        world.run(until=_BEGINS + 300)
        took.append(world.when("second") - _BEGINS - 10)
    return took[0], took[1]


@dataclass(frozen=True)
class Crowd:
    """What two thousand pods got, in seconds from the first one."""

    others: float
    own: float
    """The last on the set that takes ten minutes."""
    patches: int


def crowd(seed: int, pods: int = 2000, sets: int = 30, identities: int = 20) -> Crowd:
    """Have pods come within two seconds, each on any set and with any identity."""
    world = TimedWorld(identities, takes=lambda host: _SLOW if host.name == "set0" else _ARM)
    for number in range(sets):
        world.node(f"n{number}", of_set(number))
    drawn = random.Random(seed)  # noqa: S311 - to be drawn again
    where = [drawn.randrange(sets) for _ in range(pods)]
    for number, each in enumerate(where):
        identity = drawn.randrange(identities)
        world.at(_BEGINS + 2 * number / pods, world.pod, f"p{number}", f"n{each}", identity)
    world.run(until=_BEGINS + 3 * _SLOW)
    took = [(each, world.when(f"p{number}") - _BEGINS) for number, each in enumerate(where)]
    return Crowd(
        others=max(seconds for each, seconds in took if each),
        own=max(seconds for each, seconds in took if not each),
        patches=world.calls[PatchHost],
    )


@dataclass(frozen=True)
class Machines:
    """What five hundred new machines got."""

    last: float
    """Seconds from the first machine to the last pod that is Assigned."""
    early: int
    """Changes that were sent before a Retry-After had ended."""
    refused: int
    reads: int


def machines(number: int = 500, *, together: int) -> Machines:
    """Have virtual machines come within a minute, so many at a time; Azure takes ten a second."""
    world = TimedWorld(1, takes=lambda _: 15.0, writes=10.0)

    def come(each: int) -> None:
        world.node(f"n{each}", of_machine(each))
        world.pod(f"p{each}", f"n{each}")

    for each in range(number):
        world.at(_BEGINS + each // together * together * 60 / number, come, each)
    world.run(until=_BEGINS + 600)
    last = max(world.when(f"p{each}") for each in range(number)) - _BEGINS
    reads = world.calls[ReadHost] + world.calls[ListHosts]
    return Machines(last=last, early=world.early, refused=world.refused, reads=reads)


def churn(pods: int = 1000, sets: int = 10, identities: int = 10) -> float:
    """Return the changes of machines an edge while its pods are replaced for twenty minutes.

    An edge is an identity on a scale set. All its pods go at about the same time, five times, and
    come again within the grace.
    """
    world = TimedWorld(identities, takes=lambda _: _ARM)
    for number in range(sets):
        world.node(f"n{number}", of_set(number))
    drawn = random.Random(1)  # noqa: S311 - to be drawn again
    begins = [_BEGINS + 200 * drawn.random() for _ in range(sets * identities)]
    for number in range(pods):
        edge = number % len(begins)
        when, name = begins[edge] + drawn.random(), f"p{number}"
        for _ in range(5):
            world.at(when, world.pod, name, f"n{edge % sets}", edge // sets)
            world.at(when + 60, world.gone, name)
            when += 260 + 10 * drawn.random()
    world.run(until=_BEGINS + 4 * 260 + 60 + 290)
    changes: Counter[str] = world.attached + world.detached
    return changes.total() / len(begins)


@dataclass(frozen=True)
class Writes:
    """Writes to the API server, for each pod from when it comes until its identity is detached."""

    records: float
    ledgers: float
    """Of its machine's ledger: pods whose identities one change brings share them."""


def lives(pods: int, identities: int) -> Writes:
    """Have pods come to one scale set within two seconds that has none of their identities, and go.

    Conditions and events are those of identities and bindings, and not counted.
    """
    world = TimedWorld(identities, takes=lambda _: _ARM)
    world.node("n", of_set(0))
    for number in range(pods):
        name = f"p{number}"
        world.at(_BEGINS + 2 * number / pods, world.pod, name, "n", number % identities)
        world.at(_BEGINS + 200 + number / pods, world.gone, name)
    world.run(until=_BEGINS + 1000)
    records = sum(world.calls[kind] for kind in (CreateRecord, UpdateRecord, DeleteRecord))
    return Writes(records / pods, world.calls[WriteLedger] / pods)


def reconciled() -> int:
    """Return the reads of Azure with which a hundred scale sets of a group are reconciled."""
    world = TimedWorld(1)
    for number in range(100):
        world.node(f"n{number}", of_set(number))
        world.pod(f"p{number}", f"n{number}")
    world.run(until=120)
    before = world.calls.copy()
    world.run(until=120 + 180)
    made = world.calls - before
    return made[ReadHost] + made[ListHosts]
