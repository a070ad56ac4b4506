"""The agent is killed, stopped, updated and robbed of its rules at random, for half a minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = "7"


@pytest.mark.skipif(os.geteuid() != 0, reason="it lays out a node in network namespaces")
def test_a_storm_costs_what_it_strikes_and_nothing_else() -> None:
    """No token of another identity, no leak, no failure but of what was killed; all settles."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.nmi_storm", "--seed", SEED, "--minutes", "0.3", "--json"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    bars = [json.loads(line) for line in done.stdout.splitlines()]
    assert bars, done.stderr
    assert [bar["name"] for bar in bars if not bar["met"]] == [], done.stderr
