"""Which tests reach which lines of the mutated modules, and what they cost.

By coverage.py's contexts: a test function is a context. What was measured is kept in
`.cache/mutants`, until the file, the product or a helper of tests changes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest


@dataclass(frozen=True)
class Reach:
    """What one file of tests does."""

    seconds: float
    """CPU time of its tests, under measurement."""
    lines: Mapping[str, Mapping[str, Sequence[str]]]
    """File of the product → line → node ids, without parameters, that run it."""
    waits: float = 0.0
    """Seconds by the clock of the longest of its tests: so long a mutant may sleep in it, too."""
    failing: Sequence[str] = ()
    """Node ids that fail without any mutation: on a busy machine, a test of times. None counts."""


class Contexts:
    """The plugin that tells coverage which test runs, and takes its time."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured
        self.seconds = defaultdict[str, float](float)
        self.waits = defaultdict[str, float](float)
        self.failing = set[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failing.add(report.nodeid.partition("[")[0])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        file = item.nodeid.partition("::")[0]
        began, at = time.process_time(), time.monotonic()
        self._measured.switch_context(item.nodeid.partition("[")[0])
        try:
            return (yield)
        finally:
            self._measured.switch_context("")
            self.seconds[file] += time.process_time() - began
            self.waits[file] = max(self.waits[file], time.monotonic() - at)


def measure(
    files: Sequence[str], modules: Sequence[str], root: Path, arguments: Sequence[str]
) -> dict[str, Reach]:
    """Run files of tests in this process, which must have loaded none of the modules."""
    measured = coverage.Coverage(data_file=None, config_file=False, include=[*modules])
    contexts = Contexts(measured)
    measured.start()
    code = pytest.main([*arguments, "--maxfail=1000", *files], plugins=[contexts])
    measured.stop()
    if code > pytest.ExitCode.TESTS_FAILED and code != pytest.ExitCode.NO_TESTS_COLLECTED:
        raise SystemExit(f"the tests cannot be run: {code!r}")
    lines = {file: defaultdict[str, dict[str, list[str]]](dict) for file in files}
    data = measured.get_data()
    for module in data.measured_files():
        name = str(Path(module).relative_to(root))
        for line, ids in data.contexts_by_lineno(module).items():
            for nodeid in sorted({*ids} - {"", *contexts.failing}):
                of_file = lines[nodeid.partition("::")[0]][name]
                of_file.setdefault(str(line), []).append(nodeid)
    return {
        file: Reach(
            contexts.seconds[file],
            lines[file],
            contexts.waits[file],
            [each for each in sorted(contexts.failing) if each.startswith(f"{file}::")],
        )
        for file in files
    }


class Kept:
    """What was measured before, on disk."""

    def __init__(self, folder: Path, root: Path, product: Iterable[Path], helpers: Iterable[Path]):
        self._folder, self._root = folder, root
        self._all = _digest([*product, *helpers], root)

    def _path(self, tests: str) -> Path:
        its = _digest([self._root / tests], self._root)
        return self._folder / f"{hashlib.sha256((self._all + its).encode()).hexdigest()[:24]}.json"

    def get(self, tests: str) -> Reach | None:
        path = self._path(tests)
        return Reach(**json.loads(path.read_text())) if path.exists() else None

    def put(self, tests: str, reach: Reach) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._path(tests).with_suffix(".part")
        part.write_text(json.dumps(vars(reach)))
        part.rename(self._path(tests))


def _digest(paths: Iterable[Path], root: Path) -> str:
    of = hashlib.sha256()
    for path in sorted(paths):
        of.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return of.hexdigest()
