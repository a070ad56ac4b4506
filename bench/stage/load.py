"""The load: wrk in eight pods at once, on the core that the agent does not have."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.stage.agent import Server
from bench.stage.ground import BenchPod, Cgroups, in_pod

PODS = 8
_SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The result of a load."""

    requests: int
    rate: float
    """Requests a second."""
    latencies: Counter[int]
    """How often each latency was seen, in microseconds."""
    cpu: float
    """Microseconds of the server's CPU time for each request."""

    def percentile(self, share: float) -> float:
        """Return a percentile of the latency, in milliseconds."""
        left = share / 100 * self.latencies.total()
        for latency, count in sorted(self.latencies.items()):
            left -= count
            if left <= 0:
                return latency / 1000
        return float("nan")

    def __str__(self) -> str:
        return (
            f"{self.rate:,.0f} req/s, p50 {self.percentile(50):.2f} ms, "
            f"p99 {self.percentile(99):.2f} ms, {self.cpu:.1f} µs of CPU each"
        )


def require_programs() -> None:
    """End with the next step where a program is missing."""
    missing = [name for name in ("wrk", "nginx") if shutil.which(name) is None]
    if missing:
        packages = " ".join(missing).replace("nginx", "nginx-light")
        sys.exit(f"this benchmark needs {' and '.join(missing)}: apt-get install {packages}")


def load(
    server: Server,
    cgroups: Cgroups,
    pods: Sequence[BenchPod],
    *,
    connections: int,
    seconds: int,
    keep: bool = True,
) -> Load:
    """Ask for warm tokens from the pods; end the program unless every answer is a token.

    `connections`: of all pods together. `keep` False: a new one for each request.
    """
    each, rest = divmod(connections, len(pods))
    if rest:
        raise ValueError(f"{connections} connections are not the same for {len(pods)} pods")
    command = ["wrk", "-t1", f"-c{each}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_SCRIPT)]
    words = [server.url, "--", "keep-alive" if keep else "close"]
    before = server.cpu()
    running = [
        subprocess.Popen(
            in_pod(cgroups, pod, [*command, *words, str(pod.number)]), stdout=subprocess.PIPE
        )
        for pod in pods
    ]
    found = [_result(process) for process in running]
    cpu = server.cpu() - before
    requests = sum(each["requests"] for each in found)
    latencies: Counter[int] = Counter()
    for result in found:
        for latency, count in result["latencies"]:
            latencies[latency] += count
    return Load(
        requests=requests,
        rate=sum(result["requests"] / result["seconds"] for result in found),
        latencies=latencies,
        cpu=cpu / requests * 1e6,
    )


def _result(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"wrk ended with {process.returncode}: {output.decode()}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    if found["refused"] or found["failed"] or not found["requests"]:
        sys.exit(f"not every answer was a token: {output.decode()[-1000:]}")
    return found
