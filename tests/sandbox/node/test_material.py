"""Contents of volumes, from what a pod and its config maps are: pure, so without a node."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.node.contents import Material, contents
from podidentity_sandbox.node.quantities import amount
from podidentity_sandbox.node.refusals import VolumeRefused


def content(item: dict[str, Any], resources: dict[str, Any] | None = None) -> str:
    """Return the text of a downwardAPI file of a pod with the one container `main`."""
    material = Material(
        objects={},
        fields={"metadata.labels": ""},
        containers={"main": {"name": "main", "resources": resources or {}}},
        token=lambda _audience, _seconds: b"",
    )
    volume = {"downwardAPI": {"items": [{"path": "file", **item}]}}
    return contents(volume, material)["file"].data.decode()


def memory(of: str, **more: str) -> dict[str, Any]:
    return {"resourceFieldRef": {"containerName": of, "resource": "limits.memory", **more}}


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [
        ("1k", 10**3),
        ("1E", 10**18),
        ("1P", 10**15),
        ("2Pi", 2 * 1024**5),
        ("1Ei", 1024**6),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1.5Gi", 3 * 1024**3 // 2),
        ("+7", 7),
        (".5k", 500),
    ],
)
def test_a_quantity_may_have_any_of_the_units(given: str, bytes_: int) -> None:
    assert content(memory("main"), {"limits": {"memory": given}}) == str(bytes_)
    assert amount(given) == bytes_


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (memory("other"), "container other not found"),
        (memory("main", divisor="1Q"), "quantities must match the regular expression"),
        (memory("main", divisor="i"), "quantities must match the regular expression"),
        (
            {"fieldRef": {"fieldPath": "metadata.labelsX"}},
            "unsupported fieldPath: metadata.labelsX",
        ),
        ({"fieldRef": {"fieldPath": "spec.colour"}}, "unsupported fieldPath: spec.colour"),
    ],
)
def test_what_a_pod_has_not_is_refused(item: dict[str, Any], why: str) -> None:
    with pytest.raises(VolumeRefused, match=why):
        content(item)


@pytest.mark.parametrize("path", ["metadata.labels", "metadata.labels['gone']"])
def test_a_label_that_is_not_there_is_empty(path: str) -> None:
    assert content({"fieldRef": {"fieldPath": path}}) == ""
