"""Folders of a kubelet's files: nothing is written outside them, whoever asks."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from podidentity_sandbox.node.contents import File
from podidentity_sandbox.node.folders import write_all
from podidentity_sandbox.node.refusals import VolumeRefused

NOW = datetime(2026, 11, 25, 9, 10, 17, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("{outside}", "must be relative path"),
        ("../../outside", "must not contain '..'"),
        ("deep/../../../outside", "must not contain '..'"),
        ("..data", "must not start with '..'"),
        ("", "must not be empty"),
    ],
)
def test_a_path_that_leads_out_of_the_folder_is_refused_before_anything_is_written(
    tmp_path: Path, path: str, why: str
) -> None:
    folder, outside = tmp_path / "volume", tmp_path / "outside"
    files = {"good": File(b"x", 0o644), path.format(outside=outside): File(b"x", 0o644)}
    with pytest.raises(VolumeRefused, match=f"^invalid path: {why}"):
        write_all(folder, files, NOW, None)
    assert list(tmp_path.iterdir()) == []


def test_files_are_below_the_folder_and_seen_through_one_link(tmp_path: Path) -> None:
    write_all(tmp_path, {"a..b/c": File(b"x", 0o400)}, NOW, None)
    assert (tmp_path / "a..b" / "c").read_bytes() == b"x"
    assert (tmp_path / "a..b").readlink() == Path("..data/a..b")
