"""The runner of `./scripts/mutants`, on a module of its own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.mutants.__main__ import all_mutants, equivalents, sample_of
from tests.mutants.mutations import mutated, mutations
from tests.mutants.running import Outcome


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("x = a < b", {"a < b → a <= b"}),
        ("x = a == 1", {"a == 1 → a != 1", "1 → 2"}),
        ("x = a and b", {"a and b → a or b", "a and b → b", "a and b → a"}),
        ("x = not a", {"not a → a"}),
        ("x = a + 'text'", {"'text' → 'textX'"}),
        ("x = True", {"True → False"}),
        ("x = f(a, b)", {"f(a, b) → f(b, a)"}),
        ("x = min(a, b)", {"min(a, b) → max(a, b)"}),
        ("x = a.lower()", {"a.lower() → a"}),
        ("x = {A, B}", {"{A, B} → {B}", "{A, B} → {A}"}),
        ("x = {A: B, C: D}", {"{A: B, C: D} → {C: D}", "{A: B, C: D} → {A: B}"}),
        ("x = [e for e in a if e]", {"e a e → e a"}),
        ("x = a if b else c", {"a if b else c → a if not b else c"}),
        ("if a: pass", {"if a: pass → if not a: pass"}),
        (
            "def f(a):\n  if a:\n    return b\n  g()\n  a.b = c\n  return d",
            {
                "if a: return b → if not a: return b",
                "return b → (nothing)",
                "g() → (nothing)",
                "a.b = c → (nothing)",
            },
        ),
        # For people, or with a name of its own.
        ('"""A docstring."""', set()),
        ("x = 'words for people'", set()),
        ("x = f'to {a == b}'", set()),
        ("def f(): _log.info(a == b)", set()),
        ("SECONDS = 3.0", set()),
        ("x: 'A' | None", set()),
        ("import a", set()),
    ],
)
def test_what_is_changed(code: str, changes: set[str]) -> None:
    found = mutations(code)
    assert {each.change for each in found} == changes
    for each in found:
        assert ast.unparse(mutated(code, each.number)) != ast.unparse(ast.parse(code))


def test_a_second_change_of_the_same_words_has_a_name_of_its_own() -> None:
    assert [each.change for each in mutations("x = True; y = True")] == [
        "True → False",
        "True → False #2",
    ]


def test_the_same_seed_draws_the_same_and_a_larger_sample_has_the_smaller() -> None:
    mutants = all_mutants()
    assert len({each.name for each in mutants}) == len(mutants)
    assert sample_of(mutants, 5, 1) == sample_of(mutants, 9, 1)[:5]
    assert sample_of(mutants, 9, 1) != sample_of(mutants, 9, 2)


def test_each_equivalent_is_a_mutant_and_has_its_reason() -> None:
    assert equivalents().keys() <= {each.name for each in all_mutants()}
    assert all(reason.strip() for reason in equivalents().values())


TOY = """
def largest(values):
    found = 0
    while values:
        found = max(found, values.pop())
    return found
def waits(event, known):
    return known or event.wait()
def unread(a):
    return a > 0
def doubled(a):
    return a + a
TWICE = [doubled(1)]
"""
TESTS = """
import threading, toy
def test_largest():
    assert toy.largest([1, 3, 2]) == 3
def test_waits():
    assert toy.waits(threading.Event(), True)
def test_unread():
    toy.unread(1)
def test_doubled():
    assert toy.doubled(3) == 6
"""
RUN = """
import functools, json, os, sys
from pathlib import Path
from tests.mutants import running
from tests.mutants.__main__ import Mutant, judge
from tests.mutants.exchanging import Exchanging, Task, run_exchanging
from tests.mutants.mutations import mutated, mutations
running.LOOKS = 20
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
path, tests, fuel = folder / "toy.py", {"test_toy.py": None}, 2
source = path.read_text()
found = {each.number: each for each in mutations(source)}
def said(number, outcome):
    verdict = judge(Mutant("src/podidentity/toy.py", found[number]), outcome)
    return verdict.by or verdict.outcome
alone = {}
for number in found:
    work = functools.partial(
        running.run_mutant, "toy", path, mutated(source, number), tests
    )
    start = functools.partial(running.Forked.of, work, folder / "said", fuel)
    ((_, outcome),) = running.side_by_side(iter([(number, start)]), 1)
    alone[found[number].change] = said(number, outcome)
lines, to = os.pipe()
tasks = [Task(number, tests, fuel) for number in found]
plugin = Exchanging(path, source, tasks, folder, 1, to)
running.Forked.of(functools.partial(run_exchanging, plugin, [*tests]), folder / "all", 60)
os.close(to)
together = {}
for number, outcome in map(json.loads, os.fdopen(lines)):
    together[found[number].change] = outcome and said(number, running.Outcome(*outcome))
print(json.dumps([alone, together]))
"""


def test_a_mutant_is_killed_by_a_test_or_its_fuel_or_it_survives(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(TESTS)
    (tmp_path / "pytest.ini").touch()
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    alone, together = json.loads(ran.stdout)
    assert alone == {
        "max(found, values.pop()) → min(found, values.pop())": "test_toy.py::test_largest",
        "while values: found = max(found, values.pop()) → while not values: found = max(found, "
        "values.pop())": "test_toy.py::test_largest",
        "known or event.wait() → known and event.wait()": "fuel",  # it waits for ever
        "known or event.wait() → event.wait()": "fuel",
        "known or event.wait() → known": "survived",
        "a > 0 → a >= 0": "survived",
        "0 → 1": "survived",
        "a + a → a - a": "test_toy.py::test_doubled",
        "1 → 2": "survived",
    }
    # What runs while its module is loaded is left to a process of its own.
    assert together == alone | {"a + a → a - a": None, "1 → 2": None}


SLEEPERS = """
import math, os, sys
from pathlib import Path
from tests.mutants import running
running.LOOKS, running.LOOK_SECONDS = 20, 1
wake, to = os.pipe()
def start(name, may_sleep):
    def sleeps():
        os.close(to)  # nobody's who is not there any more
        return 0 if os.read(wake, 1) else 1
    return running.Forked.of(sleeps, Path(sys.argv[1], name), 60, may_sleep=may_sleep)
def ended(forked):
    asleep = 0
    while (outcome := forked.look()) is None:
        asleep = max(asleep, forked._asleep)
    return outcome, asleep
for may_sleep in (0, 1000):
    outcome, asleep = ended(start(f"{may_sleep}", may_sleep))
    print(outcome.failure, asleep >= 20 + may_sleep)
measuring = start("measuring", math.inf)
for _ in range(2000):
    assert measuring.look() is None
os.write(to, b".")
print(ended(measuring)[0].code)
"""


def test_a_mutant_that_sleeps_for_longer_than_its_tests_is_given_up_and_what_measures_is_not(
    tmp_path: Path,
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SLEEPERS, str(tmp_path)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    given_up = "ended with -9, and without a word True"
    assert ran.stdout.splitlines() == [given_up, given_up, "0"]


def test_what_a_process_said_is_told_where_it_failed() -> None:
    assert Outcome(1, "no such file\n", 0.0).failure == "no such file"
    assert Outcome(1, "." * 4000, 0.0).failure == "." * 3000
    assert Outcome(-9, "\n", 0.0).failure == "ended with -9, and without a word"
