"""What the chart is made of: its values, each with a sentence, and copies of the manifests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import values
from deploy.values import CHART
from podidentity import __version__

OLD = Path(__file__).parent / "old_values/defaults-4.1.18.yaml"


def test_what_is_made_of_other_files_is_up_to_date() -> None:
    for path, text in values.files().items():
        assert path.read_text() == text, f"{path} is old: run ./scripts/chart"


def test_nothing_else_is_among_the_copies() -> None:
    made = {path.name for path in values.files() if path.parent.name == "files"}
    assert {path.name for path in (CHART / "files").iterdir()} == made


def test_the_chart_has_the_version_of_the_program() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_a_value_without_a_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.c has no sentence"):
        values.read("a:\n  # Something.\n  b: 1\n  c: 2\n")


def test_every_value_of_the_archived_chart_is_there() -> None:
    def paths(tree: Any, above: str = "") -> Iterator[str]:
        for key, value in tree.items():
            yield f"{above}{key}"
            if isinstance(value, dict):
                yield from paths(value, f"{above}{key}.")

    archived = yaml.safe_load(OLD.read_text())
    ours = yaml.safe_load(values.VALUES.read_text())
    missing = set(paths(archived)) - set(paths(ours))
    inside = ("mic.affinity.podAntiAffinity.", "mic.resources.", "nmi.resources.")
    assert {each for each in missing if not each.startswith(inside)} == set()
