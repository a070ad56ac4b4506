"""What kubectl says and does against the cluster is what it says and does against a real one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.sandbox.kubectl.chapters import Case, Chapter, chapters, matches
from tests.sandbox.kubectl.stages import VERSIONS, Performance, performance

CHAPTERS = chapters()
CASES = [
    pytest.param(
        chapter,
        version,
        case,
        id=f"{case.id}-{version}",
        marks=[pytest.mark.net] if chapter.stage == "world" else [],
    )
    for chapter in CHAPTERS
    for version in VERSIONS
    for case in chapter.cases
]


class Theatre:
    """Holds one performance at a time."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._playing: tuple[str, str] | None = None
        self._now: Performance | None = None

    def play(self, chapter: Chapter, version: str) -> Performance:
        """Return the performance of a chapter, the running one if it is that."""
        if self._playing != (chapter.name, version) or self._now is None:
            self._stack.close()
            self._playing = chapter.name, version
            self._now = self._stack.enter_context(performance(chapter, version))
        return self._now


@pytest.fixture(scope="module")
def theatre() -> Iterator[Theatre]:
    with contextlib.ExitStack() as stack:
        yield Theatre(stack)


@pytest.mark.parametrize(("chapter", "version", "case"), CASES)
def test_a_command_does_and_says_what_it_does_on_a_real_cluster(
    theatre: Theatre, chapter: Chapter, version: str, case: Case
) -> None:
    found = theatre.play(chapter, version).outcome(case)
    expected = case.outcome(version)
    if not expected.agrees(found):
        pytest.fail(f"$ {case.run}\n{found}=== expected\n{expected}", pytrace=False)


def test_every_expectation_has_a_name_of_its_own_and_a_source() -> None:
    cases = [case for chapter in CHAPTERS for case in chapter.cases]
    assert len({case.id for case in cases}) == len(cases) >= 60
    assert not [c.id for c in cases if "recorded" not in c.source and "https://" not in c.source]
    assert not [c.id for c in cases if set(c.but) - set(VERSIONS)]
    assert not [c.id for c in cases if not all(c.reasons.values())]


def test_only_what_varies_may_differ_from_an_expectation() -> None:
    assert matches("a   Pending   [[age]]\n", "a      Pending  12s\n")
    assert matches('pods "nope" not found (.*)', 'pods "nope" not found (.*)')
    assert not matches("a   Pending   [[age]]\n", "a      Pending  now\n")
    assert not matches("a b\n", "a  b\n")
    assert not matches("  a\n", "   a\n")
    assert not matches("a", "a\n")
