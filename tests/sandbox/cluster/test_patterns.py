"""Regular expressions of definitions, which are Go's."""

from __future__ import annotations

import re

import pytest

from podidentity_sandbox.cluster.schema import compiled


@pytest.mark.parametrize(
    ("pattern", "takes", "refuses"),
    [
        ("^(?i)(abort|warn)?$", ["", "abort", "WARN"], ["abort\n", "no"]),
        ("a(?i)b|c", ["aB", "C"], ["AB"]),
        ("(a(?i)b)c", ["aBc"], ["aBC"]),
        ("(?i)a(?-i)b", ["Ab"], ["AB"]),
        ("^[$)(?i)]x", ["$x", "ix"], ["bx"]),
        (r"^\$$", ["$"], ["$\n"]),
        ("^[]|]$", ["]", "|"], ["a"]),
        ("^(0|(([0-9]+)y)?(([0-9]+)w)?)$", ["0", "3y2w"], ["3d"]),
        ("(?m)^a$", ["a\nb"], ["ab"]),
    ],
)
def test_a_pattern_means_what_it_means_to_the_real_server(
    pattern: str, takes: list[str], refuses: list[str]
) -> None:
    assert [text for text in takes if not compiled(pattern).search(text)] == []
    assert [text for text in refuses if compiled(pattern).search(text)] == []


@pytest.mark.parametrize("pattern", ["(", ")", "(?i", "a(?i))", "*"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(re.error):
        compiled(pattern)
