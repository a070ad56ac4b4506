"""Programs with an older or a newer nft read our rules, and release 0.2 takes them over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kernel.old_nft import old_nft as old_nft
from tests.kernel.topology import run

pytestmark = pytest.mark.net


@pytest.fixture(scope="module", params=["old", "newest"])
def read(old_nft: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Rules of every kind, written by one of two libraries and read by both nft programs."""
    seen: dict[str, Any] = run("readers", rootless=True, old=str(old_nft), writer=request.param)
    return seen


@pytest.mark.parametrize("nft", ["old nft", "newest nft"])
def test_nft_1_0_6_and_the_newest_read_our_rules_and_write_tables_beside_them(
    read: dict[str, Any], nft: str
) -> None:
    assert {what: status for what, status in read[nft].items() if status} == {}


def test_an_agent_with_either_library_guards_its_pods(read: dict[str, Any]) -> None:
    assert read["agent"] == [[3, 0, []], []]
    assert read["pods"] == ["proven"] * 3


def test_either_library_reads_back_what_the_other_wrote_without_a_difference(
    read: dict[str, Any],
) -> None:
    assert read["differences for the old library"] == []
    assert read["differences for the newest library"] == []


def test_the_next_agent_keeps_source_rules_that_the_other_library_wrote(
    read: dict[str, Any],
) -> None:
    assert read["next agent"] == [[3, 0, []], []]
    assert read["kept tables"] == ["bridge podid_source", "ip podid_source"]


@pytest.mark.parametrize("routed", [False, True])
def test_no_request_reaches_imds_while_agents_of_release_0_2_and_of_this_one_replace_each_other(
    *, routed: bool
) -> None:
    seen = run("release_0_2", routed=routed, times=20)
    assert seen["maps"] == [1, 0] * 20
    assert seen["answers"].keys() == {"agent"}
    assert seen["answers"]["agent"] > 60
    assert (seen["problems"], seen["leaked"]) == ([], 0)
