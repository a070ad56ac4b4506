"""The simulation by command: more seeds, all pairs of faults, the seeds that find the bugs."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from time import process_time

import pytest

from tests.mic.bugs import BUGS
from tests.mic.exhaustive import (
    BINDINGS_GO,
    IDENTITIES_GO,
    SMALL,
    THREE_PODS,
    Seen,
    explored,
    first_faults,
    singly,
)
from tests.mic.scenarios import SEEDS, fails, replayed, scenario
from tests.mic.simulator import Violation, World, few_collections
from tests.mic.stories import STORIES, told

_TWO_PODS = {"two pods": SMALL, "identities go": IDENTITIES_GO, "bindings go": BINDINGS_GO}


def seeds(first: int, count: int) -> int:
    """Play seeds; print how long they take, and the replay of the first that fails."""
    begun, effects = process_time(), 0
    with few_collections():
        for seed in range(first, first + count):
            found = scenario(seed)
            world = World(found)
            try:
                world.run()
            except Violation:
                print(f"seed {seed} fails:\n{replayed(found)}")
                return 1
            effects += world.effects
    spent = process_time() - begun
    print(
        f"{count} seeds, {effects} calls, {spent:.1f} s of CPU: {1000 * spent / count:.1f} ms each"
    )
    return 0


def exhaustive() -> int:
    """Play the small worlds of two pods with any two faults."""
    for name, world in _TWO_PODS.items():
        begun, seen = process_time(), Seen()
        firsts = list(first_faults(world))
        with few_collections():
            pairs = explored(firsts, world, seen)
        counts = f"{len(firsts)} first faults, {pairs} pairs; {seen}, {_since(begun)}"
        print(f"{name}: {counts}", flush=True)
    return 0


def single() -> int:
    """Play the small worlds, that of three pods too, with any one fault."""
    for name, world in {**_TWO_PODS, "three pods": THREE_PODS}.items():
        begun, seen = process_time(), Seen()
        print(f"{name}: {singly(world, seen=seen)} faults; {seen}, {_since(begun)}", flush=True)
    return 0


def _since(begun: float) -> str:
    return f"{process_time() - begun:.1f} s of CPU"


def bugs() -> int:
    """Print of each bug the first seed that finds it."""
    missed = 0
    for sentence, found in BUGS.items():
        with pytest.MonkeyPatch.context() as patch:
            found.patch(patch)
            first = next((seed for seed in range(SEEDS) if fails(scenario(seed))), None)
        missed += first is None
        print(f"{'none' if first is None else first:>5}  {sentence}", flush=True)
    return 1 if missed else 0


def main() -> int:
    """Play what the command line asks for."""
    parser = ArgumentParser(prog="./scripts/simulate", description=__doc__)
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many seeds ({SEEDS})")
    parser.add_argument("--exhaustive", action="store_true", help="any two faults in small worlds")
    parser.add_argument("--single", action="store_true", help="any one fault, with three pods too")
    parser.add_argument("--story", choices=STORIES, help="tell what becomes of such a leader")
    parser.add_argument("--bugs", action="store_true", help="which seed finds each bug")
    chosen = parser.parse_args()
    if chosen.story:
        print(*told(chosen.story), sep="\n")
        return 0
    if chosen.single:
        return single()
    if chosen.exhaustive:
        return exhaustive()
    return bugs() if chosen.bugs else seeds(chosen.first, chosen.seeds)


if __name__ == "__main__":
    sys.exit(main())
