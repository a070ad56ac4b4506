"""Cgroups are removed while what was in them ends, and others remove some of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from podidentity_sandbox.node.cgroups import end_processes, remove_tree


@pytest.mark.parametrize("act", [end_processes, remove_tree])
@pytest.mark.parametrize("going", ["pod", "container"])
def test_what_a_runtime_removes_meanwhile_is_passed_over(
    act: Callable[[Path], None], going: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to delete a container, runc does so until it is killed itself."""
    root = tmp_path / "node"
    (root / "pod" / "container").mkdir(parents=True)
    (root / "other").mkdir()
    was_there = Path.is_dir

    def seen_last(folder: Path) -> bool:
        """Remove a folder, and all in it, as soon as somebody has seen it."""
        there = was_there(folder)
        if there and folder.name == going:
            remaining = [folder / "container"] if going == "pod" else []
            for each in (*remaining, folder):
                each.rmdir()
        return there

    monkeypatch.setattr(Path, "is_dir", seen_last)
    act(root)
    assert was_there(root) is (act is end_processes)
    assert not was_there(root / "pod" / "container")


def test_what_is_no_more_there_is_removed_already(tmp_path: Path) -> None:
    remove_tree(tmp_path / "node")
    end_processes(tmp_path / "node")
