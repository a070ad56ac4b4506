"""60 MB of the worst objects of one tenant: NMI and MIC read them all, and stay small and awake."""

from __future__ import annotations

import pytest

from tests.nmi.object_fuzzing import Generator, measured, shapes

MOST_MIB = {"nmi": 64, "mic": 160}
"""Growth; NMI's worker has 30 to 45 MiB before it reads, and MIC 512 MiB in all."""
LONGEST_MS = 500
"""Of the processor's time. A quiet machine needs 50 ms; CI is slow at times."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("reader", MOST_MIB)
def test_the_worst_objects_of_a_tenant_fill_no_memory_and_hold_no_event_loop(reader: str) -> None:
    found = measured(reader, 60, seed=1)
    assert not found["failed"]
    assert found["megabytes_sent"] > 60
    assert found["peak_mib"] < MOST_MIB[reader]
    assert found["longest_step_ms"] < LONGEST_MS
    assert found["lost_to_cycles"] < 100


def test_the_same_seed_makes_the_same_objects() -> None:
    assert shapes(7) == shapes(7)
    assert shapes(7) != shapes(8)
    assert Generator(60, 1).sent == 0
