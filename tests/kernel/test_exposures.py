"""What was open while the rules were away, at ba97e96: each of these was seen to succeed there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.conftest import WITH_AND_WITHOUT_COPY
from tests.kernel.exposures import SERVED
from tests.kernel.topology import run

pytestmark = pytest.mark.net

SIZES = (0, 8, 16, 24)


@pytest.fixture(scope="module")
def killed() -> dict[str, Any]:
    """The agent is dead, the rules are flushed, a network manager starts."""
    found: dict[str, Any] = run("killed", rootless=True)
    return found


@pytest.mark.parametrize("size", SIZES)
def test_fragments_are_intercepted_as_whole_packets_are(killed: dict[str, Any], size: int) -> None:
    assert killed[f"with the rules, {size}"] == {"agent": 1}
    assert killed["leaked with the rules"] == [0, 0]


@pytest.mark.parametrize("size", SIZES)
def test_with_the_agent_dead_and_all_tables_flushed_no_fragment_gets_through(
    killed: dict[str, Any], size: int
) -> None:
    assert killed[f"flushed, {size}"] == {}


def test_a_network_manager_that_removes_foreign_routing_rules_leaves_ours(
    killed: dict[str, Any],
) -> None:
    assert killed["restarted"] == killed["restarted, 8"] == {}
    priorities = [each["priority"] for each in killed["ip rule"]]
    assert priorities == [0, 1, 2, 3, 4, 5, 6, 32766, 32767]


def test_no_packet_of_a_pod_reaches_azure_whatever_is_flushed(killed: dict[str, Any]) -> None:
    assert killed["leaked"] == [0, 0]


def test_the_nodes_loopback_stays_closed_when_the_rules_are_flushed(killed: dict[str, Any]) -> None:
    assert killed["loopback"] == {}


def test_the_node_reaches_imds_all_the_time(killed: dict[str, Any]) -> None:
    assert killed["node"] == {"who": "imds"}


@pytest.fixture(scope="module")
def shapes() -> dict[str, Any]:
    """Packets of each shape, without rules, with them, and with all tables flushed."""
    found: dict[str, Any] = run("shapes", rootless=True)
    return found


def test_packets_of_each_shape_would_reach_azure(shapes: dict[str, Any]) -> None:
    assert shapes["unhindered"] == dict.fromkeys(shapes["unhindered"], 1)


@pytest.mark.parametrize("when", ["with the rules", "flushed"])
def test_nothing_of_any_protocol_port_or_shape_reaches_azure(
    shapes: dict[str, Any], when: str
) -> None:
    assert shapes[when] == dict.fromkeys(shapes["unhindered"], 0)


@pytest.mark.parametrize("copy", WITH_AND_WITHOUT_COPY)
@pytest.mark.parametrize("kind", ["flush", "reload"])
def test_no_fragment_reaches_azure_or_the_loopback_while_others_flush_or_reload_the_rules(
    *, rootless: bool, kind: str, copy: bool
) -> None:
    seen = run("storms", rootless=rootless, kind=kind, lasts=4, copy=copy)
    *to_imds, to_loopback = seen["answered"]
    assert seen["leaked"] == [0, 0]
    assert to_loopback == {}
    assert seen["repairs"] > 1
    assert not any(each.keys() - {"agent", "sent"} for each in to_imds)
    if copy:
        assert all(each["agent"] >= SERVED for each in to_imds[1:]), "they are served meanwhile"
