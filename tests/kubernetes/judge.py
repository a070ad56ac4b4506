"""What judged the tests: the last line of `./scripts/test`.

Each run of pytest adds a line to the file that PODIDENTITY_COUNTS names: how many tests ran, and
how many were skipped because no real Kubernetes is here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from podidentity_sandbox.plan import OWN_VERSION as OWN
from podidentity_sandbox.world.requirements import version
from tests.kubernetes.programs import place

WANTING = "no real Kubernetes is here"
BROUGHT_BY = "./scripts/setup-kubernetes"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    worker = hasattr(terminalreporter.config, "workerinput")
    if (into := os.environ.get("PODIDENTITY_COUNTS")) and not worker:
        stats = terminalreporter.stats
        ran = sum(len(stats.get(each, ())) for each in ("passed", "failed", "xfailed", "xpassed"))
        wanting = sum(WANTING in str(each.longrepr) for each in stats.get("skipped", ()))
        with Path(into).open("a") as file:
            file.write(f"{ran} {wanting}\n")


def told(counts: str, kubernetes: str) -> str:
    """Return the line for these counts, and the version of Kubernetes' programs; "" without."""
    runs = [[int(each) for each in line.split()] for line in counts.splitlines()]
    ran, wanting = (sum(column) for column in zip(*runs, strict=True))
    judge = f"Kubernetes {kubernetes}" if kubernetes else f"the sandbox's own API server ({OWN})"
    line = f"judged by {judge}: {ran} tests run, {wanting} skipped for want of a real Kubernetes"
    return line if kubernetes else f"{line}, which {BROUGHT_BY} brings"


if __name__ == "__main__":
    programs = place() / "kubernetes"
    found = version(programs) if programs.is_dir() else ""
    print(told(Path(sys.argv[1]).read_text(), found))  # noqa: T201 - it is for the shell
