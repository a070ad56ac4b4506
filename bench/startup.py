"""What starting a command costs before it asks a server, beside Python's own start.

The figures are ratios to `python -c pass`, started in turn with them: how fast a processor is
differs between machines, what is loaded does not. The least of many runs, because whatever else the
machine does only adds. `./scripts/bench startup`; needs no root and no network.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.bars import Bar, show, wants_json

_RUNS = 20
_PROGRAM = str(Path(sys.executable).with_name("podidentity"))
_COMPLETING = {
    "_PODIDENTITY_COMPLETE": "bash_complete",
    "COMP_WORDS": "podidentity e",
    "COMP_CWORD": "1",
}
_COMPLETING_OPTIONS = {**_COMPLETING, "COMP_WORDS": "podidentity enable --no", "COMP_CWORD": "2"}
_NO_CLUSTER = ("--kubeconfig", "/nowhere/kubeconfig")
# What is started, its environment, and its bar: 100 ms where Python itself takes 11 ms, or twice
# that for a command of a cluster.
_STARTS: Sequence[tuple[str, Sequence[str], dict[str, str], float]] = (
    ("--version", ["--version"], {}, 9),
    ("--help", ["--help"], {}, 9),
    ("completion of commands", [], _COMPLETING, 9),
    ("explain --help", ["explain", "--help"], {}, 9),
    ("enable --help", ["enable", "--help"], {}, 9),
    ("add --help", ["add", "--help"], {}, 9),
    ("nodes --help", ["nodes", "--help"], {}, 9),
    ("rights --help", ["rights", "--help"], {}, 9),
    ("nmi --help", ["nmi", "--help"], {}, 12),
    ("completion of options", [], _COMPLETING_OPTIONS, 9),
    (
        "sandbox exec, no such sandbox",
        ["sandbox", "exec", "--name", "nowhere", "p", "true"],
        {},
        12,
    ),
    ("list, no such kubeconfig", ["list", *_NO_CLUSTER], {}, 25),
)


def measure() -> Iterator[Bar]:
    """Start everything by turns; yield the least processor time of each, in starts of Python."""
    least: dict[str, float] = {}
    started = {name: ([_PROGRAM, *words], more) for name, words, more, _ in _STARTS}
    started["python"] = ([sys.executable, "-c", "pass"], {})
    for _ in range(_RUNS):
        for name, (command, more) in started.items():
            least[name] = min(least.get(name, 60), _took(command, more))
    print(f"python -c pass: {least['python'] * 1000:.1f} ms", file=sys.stderr)
    for name, _, _, bar in _STARTS:
        print(f"{name}: {least[name] * 1000:.0f} ms", file=sys.stderr)
        yield Bar(f"podidentity {name}, in starts of Python", least[name] / least["python"], bar)


def _took(command: Sequence[str], more: dict[str, str]) -> float:
    """Return the processor seconds of one run, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=False, capture_output=True, env={**os.environ, **more})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    raise SystemExit(show(measure(), as_json=wants_json()))
