"""Files of volumes, without a node: their contents, and the folders that they are written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.atomic_writer import VolumeFile, write
from podidentity_sandbox.node.contents import ContentSources, contents
from podidentity_sandbox.node.spec import VolumeRefused, amount

OBJECTS: dict[tuple[str, str], dict[str, Any] | None] = {
    ("configmaps", "settings"): {"data": {"colour": "red"}},
    ("secrets", "login"): {"data": {}},
    ("secrets", "none"): None,
}
NO_KEY = [{"key": "no", "path": "no"}]


def content(volume: dict[str, Any]) -> list[str]:
    """Return the texts of a volume's files."""
    material = ContentSources(
        objects=OBJECTS, fields={"metadata.labels": ""}, token=lambda _audience, _seconds: b""
    )
    return [file.data.decode() for file in contents(volume, material).values()]


def of_pod(**item: Any) -> dict[str, Any]:
    return {"downwardAPI": {"items": [{"path": "file", **item}]}}


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("1k", 10**3),
        ("1E", 10**18),
        ("2Pi", 2 * 1024**5),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1.5Gi", 3 * 1024**3 // 2),
        ("+7", 7),
        (".5k", 500),
    ],
)
def test_a_quantity_may_have_any_of_the_units(given: str, number: int) -> None:
    assert amount(given) == number


@pytest.mark.parametrize(
    ("volume", "why"),
    [
        (
            of_pod(fieldRef={"fieldPath": "metadata.labelsX"}),
            "unsupported fieldPath: metadata.labelsX",
        ),
        (
            of_pod(resourceFieldRef={"resource": "limits.memory"}),
            "does not serve resourceFieldRef",
        ),
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        (
            {"configMap": {"name": "settings", "items": NO_KEY}},
            "^configmap references non-existent config key: no",
        ),
        (
            {"secret": {"secretName": "login", "items": NO_KEY}},
            "^references non-existent secret key: no",
        ),
    ],
)
def test_what_is_not_there_is_refused(volume: dict[str, Any], why: str) -> None:
    with pytest.raises((VolumeRefused, ValueError), match=why):
        content(volume)


@pytest.mark.parametrize("path", ["metadata.labels", "metadata.labels['gone']"])
def test_a_label_that_is_not_there_is_empty(path: str) -> None:
    assert content(of_pod(fieldRef={"fieldPath": path})) == [""]


# ---- Folders of volumes: nothing is written outside them, whoever asks.


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
    files = {"good": VolumeFile(b"x", 0o644), path.format(outside=outside): VolumeFile(b"x", 0o644)}
    with pytest.raises(ValueError, match=f"^invalid path: {why}"):
        write(folder, files)
    assert list(tmp_path.iterdir()) == []


def test_files_are_below_the_folder_and_seen_through_one_link(tmp_path: Path) -> None:
    write(tmp_path, {"a..b/c": VolumeFile(b"x", 0o400)})
    assert (tmp_path / "a..b" / "c").read_bytes() == b"x"
    assert (tmp_path / "a..b").readlink() == Path("..data/a..b")
