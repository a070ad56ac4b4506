"""The last line of `./scripts/test`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT
from tests.kubernetes.judge import told

FILE = """
import pytest

def test_that_runs(): pass

@pytest.mark.skip("no real Kubernetes is here: a command brings it")
def test_that_wants_it(): pass

@pytest.mark.skip("another reason")
def test_that_wants_something_else(): pass
"""


def test_it_names_the_judge_its_version_and_what_every_run_came_to() -> None:
    assert told("100 0\n20 0\n", "1.37.2") == (
        "judged by Kubernetes 1.37.2: 120 tests run, 0 skipped for want of a real Kubernetes"
    )


def test_without_a_real_kubernetes_it_names_what_brings_one() -> None:
    assert told("100 7\n20 1\n", "") == (
        "judged by the sandbox's own API server (1.32.3): 120 tests run, 8 skipped for want of a "
        "real Kubernetes, which ./scripts/setup-kubernetes brings"
    )


def test_each_run_counts_itself_once_however_many_processes_it_has(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(FILE)
    (tmp_path / "pytest.ini").touch()
    counts = tmp_path / "counts"
    for processes in ("0", "2"):
        run = [sys.executable, "-m", "pytest", "-n", processes, "-p", "tests.kubernetes.judge"]
        given = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        subprocess.run(
            run, env={**given, "PODIDENTITY_COUNTS": str(counts)}, cwd=tmp_path, check=True
        )
    assert counts.read_text() == "1 1\n1 1\n"
