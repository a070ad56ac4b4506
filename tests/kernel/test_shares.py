from __future__ import annotations

import pytest

from podidentity.kernel.rules import (
    MOST_CONNECTIONS,
    MOST_ENDS_A_SECOND,
    MOST_ENDS_AT_ONCE,
)
from podidentity.nmi.server.messages import Limits
from podidentity.supervisor.listeners import BACKLOG
from tests.kernel import shares
from tests.kernel.conftest import needs_owned_tables
from tests.kernel.topology import run

pytestmark = pytest.mark.net

WAYS = ("one address", "many", "routed")


def test_without_shares_one_pod_fills_the_backlog_and_its_neighbours_cannot_connect() -> None:
    seen = run("backlog", rootless=True, connections=5000, shared=False)
    for way in WAYS:
        outcomes, *neighbours = seen[way]
        assert outcomes["connected"] > shares.BACKLOG, way
        assert neighbours == ["TimeoutError"] * 2, way


def test_while_nobody_accepts_one_port_has_a_share_of_the_backlog_however_many_addresses_it_has(
    *, rootless: bool
) -> None:
    seen = run("backlog", rootless=rootless, connections=3000, shared=True)
    for way in WAYS:
        outcomes, *neighbours = seen[way]
        assert outcomes["connected"] == MOST_CONNECTIONS, way
        assert outcomes["refused"] >= 1000 - MOST_CONNECTIONS, "a little too many: told at once"
        answered = outcomes["connected"] + outcomes["refused"]
        assert answered <= 1000 * (1 + outcomes["seconds"]), "a flood: not even refused"
        assert neighbours == ["connected"] * 2, way


def test_a_pod_that_seems_to_reset_its_connections_and_holds_them_gains_a_few() -> None:
    seen = run("forgotten", rootless=True, connections=1000)
    gained = MOST_ENDS_AT_ONCE + MOST_ENDS_A_SECOND * (1 + seen["seconds"])
    assert MOST_CONNECTIONS <= seen["held"] <= MOST_CONNECTIONS + gained
    assert seen["neighbour"] == seen["neighbour of half-open ones"] == "connected"


def test_a_pod_that_finds_no_place_in_a_full_set_is_refused() -> None:
    """Senders are forged without a guard alone. A pod without a place would have no limit."""
    seen = run("full", rootless=True, routed=True)
    assert seen == {
        "open connection": "agent",
        "pod with a place": "agent",
        "pod without a place": "nobody",
    }


def test_resets_of_a_pod_that_are_too_many_are_counted_across_repairs_of_the_rules() -> None:
    seen = run("resets", rootless=True, count=500)
    first, both = seen["at first, looked"], seen["repaired, looked"]
    assert seen["at first, looked again"] == seen["at first, then taken away"] == first
    assert seen["repaired, looked again"] == seen["repaired, then taken away"] == both
    for dropped, sent, sets, seconds in (
        (first, 500, 1, seen["at first: seconds"]),
        (both, 1000, 2, seen["repaired: seconds"]),
    ):
        passed = sets * MOST_ENDS_AT_ONCE + MOST_ENDS_A_SECOND * (sets + seconds)
        assert sent - passed <= dropped <= sent - MOST_ENDS_AT_ONCE


def test_a_pod_that_does_not_take_the_way_through_imds_has_no_more() -> None:
    seen = run("listening_on_the_node", rootless=True, connections=2000)
    assert seen == {"0.0.0.0": "connected", "10.240.0.4": "connected"}  # noqa: S104


def test_what_a_pod_may_use_it_gets_and_connections_that_ended_are_not_counted(
    *, rootless: bool
) -> None:
    seen = run("honest", rootless=rootless)
    assert seen["kept"] == 2 * 256
    assert seen["one after the other"].keys() == {"agent"}


def test_the_share_is_more_than_the_agent_keeps_of_a_pod_and_twelve_fill_no_backlog() -> None:
    assert Limits().per_pod < MOST_CONNECTIONS < BACKLOG / 12
    assert shares.BACKLOG == BACKLOG


@needs_owned_tables
def test_where_there_are_no_shares_the_pods_are_served_and_that_is_said() -> None:
    seen = run("unshared", rootless=True)
    assert seen["nothing"]["warnings"] == []
    (said,) = seen["owners"]["warnings"]
    assert said.startswith("a flush of all rules by another program interrupts requests: table ip ")
    assert "; take Linux 5.12 and a libnftables after 1.0.6" in said
    assert (seen["owners"]["problems"], seen["owners"]["sets"]) == ([], 6)
    assert seen["nothing"]["sets"] == 2 * 6, "of the table and of our own copy"
    for what, why in {
        "connlimit": "No such file or directory; load nf_tables' expressions connlimit and limit",
        "words": "table ip podid, rules of share: changed to ",
    }.items():
        (said,) = seen[what]["warnings"]
        assert said.startswith("one pod can hold up the connections of others: ")
        assert why in said
        assert seen[what]["problems"] == []
        assert not seen[what]["repaired"]
        assert seen[what]["sets"] == 0
    assert seen["agent"]["who"] == "agent"
