"""What kubectl says and does against the cluster is what it says and does against a real one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chapters import Case, CaseRunner, Chapter, chapters, matches
from tests.kubectls import VERSIONS
from tests.sandbox.kubectl.stages import running

CHAPTERS = chapters(Path(__file__).parent / "data")
JUDGES = [*(("light", version) for version in VERSIONS), ("real", VERSIONS[-1])]
CASES = [
    pytest.param(
        (chapter, version, judge),
        case,
        id=f"{case.id}-{version}-{judge}",
        marks=[pytest.mark.net] if chapter.stage == "world" else [],
    )
    for chapter in CHAPTERS
    for judge, version in JUDGES
    if judge == "light" or chapter.stage == "cluster"
    for case in chapter.cases
]
Place = tuple[Chapter, str, str]
"""A chapter, a version of kubectl, and whose API server it is: `light` or `real`."""


class Runners:
    """The runner of the present chapter: there is one at a time."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._present: tuple[Place, CaseRunner] | None = None

    def of(self, place: Place) -> CaseRunner:
        """Return the chapter's runner; that of another chapter is ended."""
        if self._present is None or self._present[0] != place:
            self._stack.close()
            self._present = place, self._stack.enter_context(running(*place))
        return self._present[1]


@pytest.fixture(scope="module")
def runners() -> Iterator[Runners]:
    with contextlib.ExitStack() as stack:
        yield Runners(stack)


@pytest.mark.parametrize(("place", "case"), CASES)
def test_a_command_does_and_says_what_it_does_on_a_real_cluster(
    runners: Runners, place: Place, case: Case
) -> None:
    found, expected = runners.of(place).outcome(case), case.outcome(place[1])
    if not expected.agrees(found):
        pytest.fail(f"$ {case.run}\n{found}=== expected\n{expected}", pytrace=False)


def test_every_expectation_has_a_name_of_its_own_and_a_source() -> None:
    cases = [case for chapter in CHAPTERS for case in chapter.cases]
    assert len({case.id for case in cases}) == len(cases) >= 60
    assert not [c.id for c in cases if "recorded" not in c.source and "https://" not in c.source]
    assert not [c.id for c in cases if set(c.but) - set(VERSIONS)]
    assert not [c.id for c in cases if not all(other.why for other in c.but.values())]


def test_only_what_varies_may_differ_from_an_expectation() -> None:
    assert matches("a   Pending   [[age]]\n", "a      Pending  12s\n")
    assert matches('pods "nope" not found (.*)', 'pods "nope" not found (.*)')
    assert not matches("a   Pending   [[age]]\n", "a      Pending  now\n")
    assert not matches("a b\n", "a  b\n")
    assert not matches("  a\n", "   a\n")
    assert not matches("a", "a\n")
