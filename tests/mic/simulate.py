"""The simulation by command: more seeds, all pairs of faults, the seeds that find the bugs."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from time import process_time

import pytest

from tests.mic.bugs import BUGS
from tests.mic.exhaustive import explored, first_faults
from tests.mic.scenarios import SEEDS, fails, replayed, scenario
from tests.mic.simulator import Violation, World


def seeds(first: int, count: int) -> int:
    """Play seeds; print how long they take, and the replay of the first that fails."""
    begun, effects = process_time(), 0
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
    """Play the small world with any two faults."""
    begun = process_time()
    firsts = list(first_faults())
    pairs = explored(firsts)
    print(f"{len(firsts)} first faults, {pairs} pairs, {process_time() - begun:.1f} s of CPU")
    return 0


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
    parser.add_argument("--seeds", type=int, default=3000, help="how many seeds (3000)")
    parser.add_argument("--exhaustive", action="store_true", help="any two faults in a small world")
    parser.add_argument("--bugs", action="store_true", help="which seed finds each bug")
    chosen = parser.parse_args()
    if chosen.exhaustive:
        return exhaustive()
    return bugs() if chosen.bugs else seeds(chosen.first, chosen.seeds)


if __name__ == "__main__":
    sys.exit(main())
