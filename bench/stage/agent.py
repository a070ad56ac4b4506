"""The agent under test: the real program, on a core of its own, in a pod's cgroup as on a node."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.stage.ground import Cgroups

CORE, OTHER_CORE = "0", "1"
UID = "00000000-0000-4000-8000-0000000000aa"
_READY = "requests can be decided"
_PATIENCE = 20.0
PROBE_PORT = 8085


class Agent:
    """A running NMI."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log
        self.start_seconds = 0.0
        """From its start to the moment at which requests can be decided, imports included."""

    @classmethod
    @contextlib.contextmanager
    def running(
        cls, folder: Path, cgroups: Cgroups, *, node: str, kubeconfig: Path, flags: Sequence[str]
    ) -> Iterator[Agent]:
        """Start it, and yield it when it can decide requests."""
        log = folder / "nmi.log"
        command = [
            *("taskset", "-c", CORE, sys.executable, "-m", "podidentity", "nmi"),
            *(f"--node={node}", f"--kubeconfig={kubeconfig}", f"--http-probe-port={PROBE_PORT}"),
            *flags,
        ]
        authority = {"SSL_CERT_FILE": str(folder / "ca.crt")}
        began = time.perf_counter()
        log.unlink(missing_ok=True)
        with log.open("ab") as stderr:
            process = subprocess.Popen(
                cgroups.within(UID, command), stderr=stderr, env={**os.environ, **authority}
            )
        agent = cls(process, log)
        try:
            agent._await_ready(began)
            yield agent
        finally:
            process.terminate()
            process.wait()

    def _await_ready(self, began: float) -> None:
        while _READY not in self.log.read_text():
            if self._process.poll() is not None or time.perf_counter() - began > _PATIENCE:
                sys.exit(f"NMI did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.002)
        self.start_seconds = time.perf_counter() - began

    def pss(self) -> float:
        """Return its proportional set size in MB."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE)
        return int(found[1]) / 1024 if found else float("nan")

    def cpu(self) -> float:
        """Return the seconds of CPU time that it has used."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def on_other_core() -> None:
    """Put this process, and all that it starts but the agent, on the load's core."""
    os.sched_setaffinity(0, {int(OTHER_CORE)})
