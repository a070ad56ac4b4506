from __future__ import annotations

import pytest

from tests.kernel.drifting import EDITS
from tests.kernel.topology import run

pytestmark = pytest.mark.net


def test_a_leak_would_be_seen(*, rootless: bool) -> None:
    assert run("unguarded", rootless=rootless, connections=200) > 100


def test_rules_that_another_process_removes_come_back_each_time_and_nothing_leaks(
    *, rootless: bool
) -> None:
    seen = run("drift", rootless=rootless, removals=20, between=30)
    assert seen["repairs"] == 20
    assert seen["problems"] == []
    assert seen["leaked"] == 0
    assert seen["answered"]["agent"] > 0.98 * seen["connections"]


def test_nothing_leaks_while_the_agent_replaces_its_own_rules(*, rootless: bool) -> None:
    seen = run("replaces", rootless=rootless, times=100, between=10)
    assert seen["leaked"] == 0
    assert seen["repairs"] == 0
    assert seen["answered"].keys() == {"agent"}


def test_whatever_another_process_changes_of_ours_is_put_right_and_nothing_else_is_touched() -> (
    None
):
    seen = run("edits", rootless=True)
    for what in EDITS:
        assert seen[what] == {"repairs": 0, "problems": []}, what
    assert seen["problems before"] == ["net.ipv4.conf.all.route_localnet is 0"]
    assert seen["repairs"] == 1
    assert seen["problems after"] == []
    assert sorted(seen["tables"].split("\n")) == ["", "table ip other", "table ip podid"]


def test_what_is_wrong_is_told_until_it_is_put_right() -> None:
    seen = run("unrepaired", rootless=True)
    for what, (program, *_) in EDITS.items():
        said = {
            "nft": "table ip podid is not as it was installed",
            "ip": "the rules of routing that close the way to the real IMDS are gone",
        }
        assert seen[f"before {what}"] == [], what
        assert seen[what] == [said[program]], what


def test_two_agents_on_one_node_do_not_quarrel() -> None:
    seen = run("rivals", rootless=True)
    assert 1 <= seen["repairs"] <= 2
    assert seen["problems"] == []


def test_a_storm_of_flushes_neither_leaks_nor_holds_the_agent_up() -> None:
    seen = run("storm", rootless=True)
    assert seen["leaked"] == 0
    assert seen["problems"] == []
    assert seen["answers"] > 3, "it answers other questions while the storm goes on"
