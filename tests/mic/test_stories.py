"""The two logs in docs/reference/mic.md are those of today's controller, with lines left out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.mic.stories import STORIES, told

PAGE = Path(__file__).parents[2] / "docs/reference/mic.md"
_OMITTED = "…"


def printed(name: str) -> list[str]:
    """Return the lines of a story as the page has them."""
    begin = f"```text story={name}\n"
    (_, after) = PAGE.read_text().split(begin)
    return after.partition("```")[0].splitlines()


@pytest.mark.parametrize("name", STORIES)
def test_the_page_tells_what_happens_and_marks_what_it_leaves_out(name: str) -> None:
    lines, shown = list(told(name)), printed(name)
    places = [lines.index(line) if line != _OMITTED else None for line in shown]
    known = [place for place in places if place is not None]
    assert len(known) >= 8
    assert known == sorted(known)
    for before, after in pairwise(places):
        if before is not None and after is not None:
            assert after == before + 1, f"lines are missing after {lines[before]!r}"
    assert places[-1] is None or places[-1] == len(lines) - 1


def test_a_change_of_which_the_leader_died_is_made_once_and_kept_as_mics_own() -> None:
    story = "\n".join(told("killed"))
    assert story.count("PATCH") == 1
    assert "attached=[0] attaching=[] detaching=[]" in story
    assert "Assigned" in story


def test_a_change_that_is_sent_after_the_lease_is_refused_by_the_version_of_the_host() -> None:
    late = [line for line in told("woke") if "mic0" in line and "412" in line]
    assert len(late) == 1
