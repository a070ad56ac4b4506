"""One mutant: a process of its own that loads the changed module and runs the tests that reach it.

The process is forked from one that has loaded the libraries and nothing of ours: a mutant costs the
import of our modules and its tests. No file is changed: an import hook gives the changed code.

How long it may take is counted in fuel, not in seconds of a clock: CPU time, some times as much as
its tests took without the mutation. A process that only waits uses none; a mutant is given up when
it was asleep each time that it was looked at, for longer than its tests were without the mutation.
So the outcome is the same on a busy machine.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

FUEL_TIMES, FUEL_MORE = 5, 10
"""CPU seconds: so many times what the tests took, and so many more."""
LOOKS, LOOK_SECONDS = 400, 0.05
"""A mutant that slept each time that it was looked at waits for what never comes."""

ARGUMENTS: tuple[str, ...] = (
    *("-q", "-x", "--no-header", "-p", "no:xdist", "-p", "no:cacheprovider"),
    # The plugins among the libraries are loaded already, and no assertion of theirs matters.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
    *("-o", "addopts=--import-mode=importlib", "-o", "timeout=0"),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a process: its exit code, and what it said of itself."""

    code: int
    said: str
    seconds: float
    """CPU time."""

    @property
    def failure(self) -> str:
        """The end of what it said, or how it ended if it said nothing."""
        return self.said.strip()[-3000:] or f"ended with {self.code}, and without a word"


@dataclass
class Forked:
    """A process that does one thing, and is watched."""

    pid: int
    output: Path
    fuel: float
    may_sleep: float = 0.0
    """Seconds, beside those of LOOKS, before it is given up where it only waits; inf: never."""
    _asleep: int = field(default=0)

    @classmethod
    def of(
        cls, work: Callable[[], int], output: Path, fuel: float, *, may_sleep: float = 0.0
    ) -> Forked:
        """Fork a process that ends with what `work` returns, its output in a file."""
        pid = os.fork()
        if pid:
            return cls(pid, output, fuel, may_sleep)
        code = 70
        try:
            os.setsid()
            most = int(fuel) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (most, most + 5))
            to = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            os.dup2(to, 1)
            os.dup2(to, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            code = work()
        except SystemExit as ending:
            print(ending, file=sys.stderr)  # noqa: T201 - into its file
        except BaseException:  # noqa: BLE001 - the process ends with it
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(code)

    def look(self) -> Outcome | None:
        """Return how it ended, or None while it goes on."""
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        if not pid:
            self._watch()
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # programs that tests started
        code = os.waitstatus_to_exitcode(status)
        return Outcome(code, self.output.read_text(errors="replace"), used.ru_utime + used.ru_stime)

    def _watch(self) -> None:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        self._asleep = self._asleep + 1 if state == "S" else 0
        if self._asleep >= LOOKS + self.may_sleep / LOOK_SECONDS:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def side_by_side(
    waiting: Iterator[tuple[Any, Callable[[], Forked]]], workers: int
) -> Iterator[tuple[Any, Outcome]]:
    """Have so many processes at work at a time; yield each one's name and outcome at its end."""
    running = dict[int, tuple[Any, Forked]]()
    more = True
    while running or more:
        while more and len(running) < workers:
            try:
                name, start = next(waiting)
            except StopIteration:
                more = False
                break
            forked = start()
            running[forked.pid] = (name, forked)
        time.sleep(LOOK_SECONDS)
        for pid, (name, forked) in [*running.items()]:
            if (outcome := forked.look()) is not None:
                del running[pid]
                yield name, outcome


# ---- In the process of a mutant


class Changed(importlib.machinery.SourceFileLoader):
    """Loads a module from other code than its file's."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self._tree = tree

    def get_code(self, fullname: str) -> CodeType:
        del fullname  # its own
        return compile(self._tree, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the one module that is changed."""

    def __init__(self, loader: Changed) -> None:
        self._loader = loader

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._loader.name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self._loader.path, loader=self._loader
        )


class Chosen:
    """The plugin that leaves the tests that were chosen, and notes which one failed."""

    def __init__(self, files: Mapping[str, Sequence[str] | None]) -> None:
        self._files = files

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [each for each in items if self._has(each.nodeid.partition("[")[0])]

    def _has(self, nodeid: str) -> bool:
        chosen = self._files.get(nodeid.partition("::")[0])
        return chosen is None or nodeid in chosen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            print(f"\nKILLED BY {report.nodeid}")  # noqa: T201 - into the process's file


def run_tests(files: Mapping[str, Sequence[str] | None]) -> int:
    """Run files of tests, of each all or those with these node ids; return pytest's exit code."""
    return int(pytest.main([*ARGUMENTS, *files], plugins=[Chosen(files)]))


def run_mutant(
    module: str, path: Path, tree: ast.Module, files: Mapping[str, Sequence[str] | None]
) -> int:
    """Run the tests on a changed module."""
    if module in sys.modules:
        raise SystemExit(f"{module} is loaded already")
    sys.meta_path.insert(0, Finder(Changed(module, str(path), tree)))
    return run_tests(files)


def libraries(files: Sequence[str], not_these: tuple[str, ...]) -> int:
    """Print the modules of others that these tests load, as JSON."""
    before = {*sys.modules}
    pytest.main([*ARGUMENTS, "--collect-only", "-q", *files])
    loaded = [
        name
        for name, module in sys.modules.items()
        if name not in before
        and not name.startswith(not_these)
        and getattr(module, "__spec__", None) is not None
    ]
    print("\nLOADED", json.dumps(loaded))  # noqa: T201 - into the process's file
    return 0


def preload(names: Sequence[str]) -> None:
    """Load these modules, so that each process to come has them."""
    for name in names:
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
