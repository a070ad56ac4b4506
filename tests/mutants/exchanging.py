"""Many mutants of one module: the tests are collected once, and each gets the code of functions.

A mutant costs a fork and its tests then, not the import of all of ours. What ran already while the
modules were loaded has done its work without the mutation: mutants of such functions, and of what
stands outside of any, are left to a process of their own (`running.run_mutant`).
"""

from __future__ import annotations

import ast
import gc
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

from tests.mutants.mutations import mutated
from tests.mutants.running import ARGUMENTS, Chosen, Forked, Outcome, side_by_side

Key = tuple[str, int]
"""The name of a function in its module, and its first line."""


@dataclass(frozen=True)
class Task:
    """One mutant, and the tests to run in the order of these files; of each all, or these."""

    number: int
    files: Mapping[str, Sequence[str] | None]
    fuel: float
    may_sleep: float = 0.0


def exchanges(before: ast.Module, after: ast.Module) -> dict[Key, tuple[CodeType, bool]] | None:
    """Return the functions that a mutation changes: their code, and whether it is their own.

    A function is changed, too, where one inside of it is. None: it changes something else.
    """
    found = dict[Key, tuple[CodeType, bool]]()
    keys = list[Key]()
    for old, new in _pairs(_compiled(before), _compiled(after)):
        if new is None:
            return None
        keys.append(_key(old))
        own = _bare(old) != _bare(new)
        if old.co_flags & CO_OPTIMIZED:
            if old != new:
                found[_key(old)] = new, own
        elif own:
            return None
    return found if all(keys.count(each) == 1 for each in found) else None


def _compiled(tree: ast.Module) -> CodeType:
    return compile(tree, "", "exec", dont_inherit=True)


def _pairs(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType | None]]:
    yield old, new
    inner, its = _inner(old), _inner(new)
    if len(inner) != len(its) or old.co_freevars != new.co_freevars:
        yield old, None
        return
    for each, other in zip(inner, its, strict=True):
        yield from _pairs(each, other)


def _inner(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def _bare(code: CodeType) -> CodeType:
    return code.replace(
        co_consts=tuple(None if isinstance(each, CodeType) else each for each in code.co_consts)
    )


def _key(code: CodeType) -> Key:
    return code.co_qualname, code.co_firstlineno


@dataclass
class Exchanging:
    """The plugin that runs mutants in place of the tests, and says what became of each."""

    path: Path
    source: str
    tasks: Sequence[Task]
    folder: Path
    workers: int
    to: int
    """A file descriptor: a line of JSON for each mutant, its code None if it is left."""
    ran: set[Key] = field(default_factory=set)
    _session: pytest.Session | None = None

    def notice(self, frame: FrameType, event: str, arg: object) -> None:
        """Note a function that runs while modules are loaded; for sys.setprofile."""
        del arg
        if event == "call" and frame.f_code.co_filename == str(self.path):
            self.ran.add(_key(frame.f_code))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        sys.setprofile(None)
        self._session = session
        waiting = self._started()
        for task, outcome in side_by_side(waiting, self.workers):
            self._say(task, outcome)
        return True

    def _started(self) -> Iterator[tuple[Task, Any]]:
        living = dict[Key, list[FunctionType]]()
        gc.unfreeze()
        for each in gc.get_objects():
            if isinstance(each, FunctionType) and each.__code__.co_filename == str(self.path):
                living.setdefault(_key(each.__code__), []).append(each)
        before = ast.parse(self.source)
        for task in self.tasks:
            codes = exchanges(before, mutated(self.source, task.number))
            own = [key for key, (_, is_own) in (codes or {}).items() if is_own]
            if (
                not own
                or any(key in self.ran for key in own)
                or not any(key in living for key in codes or {})
            ):
                self._say(task, None)
                continue
            new = [
                (function, code)
                for key, (code, _) in (codes or {}).items()
                for function in living.get(key, ())
            ]
            yield task, lambda task=task, new=new: self._forked(task, new)

    def _forked(self, task: Task, new: Sequence[tuple[FunctionType, CodeType]]) -> Forked:
        def work() -> int:
            for function, code in new:
                function.__code__ = code
            assert self._session is not None
            return self._tested(self._session, task)

        output = self.folder / f"{task.number}"
        return Forked.of(work, output, task.fuel, may_sleep=task.may_sleep)

    def _tested(self, session: pytest.Session, task: Task) -> int:
        chosen = Chosen(task.files)
        session.config.pluginmanager.register(chosen)
        of_file = dict[str, list[pytest.Item]]()
        for each in session.items:
            of_file.setdefault(each.nodeid.partition("::")[0], []).append(each)
        items = [each for name in task.files for each in of_file.get(name, ())]
        chosen.pytest_collection_modifyitems(items)
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if session.testsfailed:
                return 1
        return 0

    def _say(self, task: Task, outcome: Outcome | None) -> None:
        said = None if outcome is None else [outcome.code, outcome.said, outcome.seconds]
        os.write(self.to, (json.dumps([task.number, said]) + "\n").encode())


def run_exchanging(plugin: Exchanging, files: Sequence[str]) -> int:
    """Run all mutants of a plugin, with the tests of these files."""
    sys.setprofile(plugin.notice)
    return int(pytest.main([*ARGUMENTS, "--capture=no", *files], plugins=[plugin]))
