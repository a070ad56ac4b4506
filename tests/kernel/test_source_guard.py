from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.conftest import OWNED_TABLES, needs_owned_tables
from tests.kernel.sources import BRIDGE_NETFILTER
from tests.kernel.topology import PODS, run
from tests.kernel.uplinks import MANY
from tests.root import WAYS

pytestmark = pytest.mark.net

STOLEN = {
    "ARP": "agent, to 10.244.0.12",
    "its MAC address, too": "agent, to 10.244.0.12",
    "an unused address": "agent, to 10.244.0.99",
    "by a ring of packets": "agent, to 10.244.0.12",
    "by AF_XDP": "agent, to 10.244.0.12",
    "in VLAN 0 of 802.1Q": "agent, to 10.244.0.12",
    "in VLAN 0 of 802.1ad": "agent, to 10.244.0.12",
    "an open connection": "agent, to 10.244.0.12",
    "a second address": "agent, to 10.244.0.12",
}
MOVED = ["p2's MAC address is at v-p1"]
BELIEVED = {
    "IPv4 of its own address, from p2's MAC address": MOVED,
    "IPv6, from p2's MAC address": MOVED,
    "LLDP, from p2's MAC address": MOVED,
    "a pause, from p2's MAC address": MOVED,
    "another type, from p2's MAC address": MOVED,
    "ARP request as p2": ["p2 is at p1"],
    "ARP of itself at p2's MAC address": ["p1 is at p2"],
    "ARP as the gateway": ["the gateway is p1"],
    "ARP as an unused address": ["nobody is at p1"],
}
AS_NFT_SAYS = """\
	chain bound {
		ether type 8021q counter drop
		ether type 8021ad counter drop
		ether type 0x8864 counter drop
		iif . ether saddr != @macs counter drop
		ether type arp goto bound_arp
		iif . ip saddr != @addresses counter drop
	}

	chain bound_arp {
		iif . arp saddr ether != @macs counter drop
		iif . arp saddr ip @addresses accept
		arp operation request arp saddr ip 0.0.0.0 accept
		counter drop
	}

	chain outside {
		meta protocol 8021q counter drop
		meta protocol 8021ad counter drop
		meta protocol 0x8864 counter drop
		iif . ether saddr @inside_macs counter drop
		iif . arp saddr ether @inside_macs counter drop
		iif . arp saddr ip @inside_addresses counter drop
		iif . ip saddr @inside_addresses counter drop
		ip daddr 169.254.169.254 counter drop
		ip daddr 169.254.25.79 counter drop
	}

	chain unknown {
		ether type 8021q counter drop
		ether type 8021ad counter drop
		ether type 0x8864 counter drop
		ether saddr @taken_macs counter drop
		arp saddr ether @taken_macs counter drop
		arp saddr ip @taken_addresses counter drop
		ip saddr @taken_addresses counter drop
		ip daddr 169.254.169.254 counter drop
		ip daddr 169.254.25.79 counter drop
	}

	chain arriving {
		type filter hook prerouting priority dstnat - 10; policy accept;
		iif @pods goto bound
		iif @uplinks goto outside
		goto unknown
	}
}
"""
OF_ROUTES = """\
table ip podid_source {
	chain reverse_path {
		type filter hook prerouting priority raw; policy accept;
		ip daddr 169.254.169.254 fib saddr . iif oif missing counter drop
		ip daddr 169.254.25.79 fib saddr . iif oif missing counter drop
		ip saddr 169.254.169.254 fib saddr . iif oif missing counter drop
		icmp type redirect fib saddr . iif oif missing counter drop
	}
}
"""


@pytest.fixture(scope="module", params=WAYS)
def theft(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Conversations of p1 in the name of others, with the guard."""
    found: dict[str, Any] = run("theft", rootless=request.param == "rootless", guarded=True)
    return found


def test_without_the_guard_each_theft_succeeds() -> None:
    seen = run("theft", rootless=True, guarded=False)
    found = {what: seen[what] for what in STOLEN if what in seen}
    assert {"by AF_XDP": STOLEN["by AF_XDP"]} | found == STOLEN


@pytest.mark.parametrize("way", STOLEN)
def test_no_pod_has_a_conversation_in_the_name_of_another_or_of_nobody(
    theft: dict[str, Any], way: str
) -> None:
    if way == "by AF_XDP" and way not in theft:
        pytest.skip("the kernel has no AF_XDP")
    assert theft[way] == "nobody"


def test_neither_victim_nor_attacker_loses_its_own(theft: dict[str, Any]) -> None:
    assert theft["victim"] == theft["attacker"] == "proven"
    assert theft["leaked"] == 0


def test_without_the_guard_the_bridge_and_the_node_believe_what_a_pod_says_of_others() -> None:
    assert run("learning", rootless=True, guarded=False) == BELIEVED


def test_no_frame_of_a_pod_teaches_anybody_what_is_not_so(*, rootless: bool) -> None:
    seen = run("learning", rootless=rootless, guarded=True)
    assert seen == {what: [] for what in BELIEVED}


def test_what_a_pod_hides_from_the_filter_of_a_bridge_teaches_and_reaches_nobody(
    *, rootless: bool
) -> None:
    """Frames to 01:80:c2:00:00:0x pass no filter of the bridge, but for the first address.

    In others br_netfilter looks for IPv4 behind what is no IPv4 to a filter.
    """
    bare = run("link_local", rootless=rootless, guarded=False)
    assert bare["taught"].keys() >= {"0", "2", "14"}, "but for a pause, which is dropped (1)"
    assert bare["taught"]["14"] == MOVED
    assert bare["reached"] == [0]
    found = {"PPPoE", "PPPoE in VLAN 0"} if BRIDGE_NETFILTER.exists() else set()
    assert {what for what, number in bare["hidden"].items() if number} == found
    guarded = run("link_local", rootless=rootless, guarded=True)
    assert guarded == {
        "taught": {},
        "reached": [],
        "redirected": 0,
        "hidden": dict.fromkeys(bare["hidden"], 0),
        "leaked": 0,
    }


def test_a_bridge_that_a_pod_can_have_forget_where_its_neighbours_are_is_a_problem() -> None:
    """By one frame a second (BPDU), which no filter sees, a pod becomes the root of the tree."""
    before, on, after = run("spanning", rootless=True)
    assert before == after == [True]
    guarded, problem = on
    assert not guarded
    assert "ip link set cbr0 type bridge stp_state 0" in problem


def test_a_pod_that_changes_its_own_end_loses_itself_at_most(*, rootless: bool) -> None:
    seen = run("changing", rootless=rootless)
    alone, both = ["nobody", "agent"], ["agent", "agent"]
    assert seen == {
        "ordinary": both,
        "another MAC address": alone,
        "p2's MAC address": alone,
        "its own again": both,
        "renamed": both,
        "another link with p2's address": both,
        "nested, with p1's address": f"agent, to {PODS['p1']}",
        "nested, with p2's address": "nobody",
        "nested, with p3's address": "nobody",
        "p2 at last": "agent",
        "sources": [3, 0, []],
        "leaked": 0,
    }


def test_pods_live_as_before(*, rootless: bool) -> None:
    seen = run("life", rootless=rootless)
    assert seen == {
        "pods": ["proven"] * 3,
        "to a pod": True,
        "to the node": True,
        "from the node": True,
        "to the world": True,
        "IPv6": True,
        "address conflict detection": "conflict",
        "a pod's first packet": True,
        "the same address in a new namespace": "proven",
        "a new pod with the address of one that ended": "agent",
        "a twin": "nobody",
        "its first holder": "agent",
        "the twin, when the first has gone": "agent",
        "the gateway's MAC address": True,
        "sources": [3, 0, []],
        "leaked": 0,
    }


@pytest.mark.parametrize(
    ("own_links", "attacker", "victim"), [(False, "p1", "p2"), (True, "r1", "r2")]
)
def test_only_the_pod_that_may_send_with_an_address_is_asked_for_its_socket(
    *, rootless: bool, own_links: bool, attacker: str, victim: str
) -> None:
    """Else the other's twin socket would have the owner refused, or taken for the other pod."""
    assert run("twins", rootless=rootless, guarded=False, own_links=own_links) == [
        [attacker, "open", ""],
        [victim, "open", ""],
    ]
    assert run("twins", rootless=rootless, guarded=True, own_links=own_links) == [
        [victim, "open", ""]
    ]


def test_of_a_pod_with_thousands_of_addresses_a_few_are_read(*, rootless: bool) -> None:
    seen = run("swollen", rootless=rootless, addresses=5000)
    assert seen["read"] < 100, "more than any pod has; each read costs the time of others"
    assert seen["other"] == ["10.244.0.12"], "and the next question has its own answer"
    assert (seen["bound"], seen["problems"]) == (3, [])


def test_the_rules_stand_while_the_agent_is_away_and_the_next_one_keeps_the_first_holders(
    *, rootless: bool
) -> None:
    seen = run("absence", rootless=rootless)
    assert seen == {
        "first": [3, 0, []],
        "new to a pod": True,
        "new to the world": True,
        "new to IMDS": "TimeoutError",
        "old to IMDS": "ConnectionRefusedError",
        "again": [4, 0, []],
        "new, known": "agent",
        "old, from what it took": "nobody",
        "removed": "",
        "leaked": 0,
    }


def test_a_port_whose_namespace_nobody_knows_is_cut_off_from_imds_and_from_others_addresses_alone(
    *, rootless: bool
) -> None:
    seen = run("strangers", rootless=rootless)
    assert seen == {
        "sources": [3, 0, []],
        "to a pod": True,
        "to the world": True,
        "IMDS": "nobody",
        "ARP as p2": [],
        "ARP as the gateway": [],
        "ARP of itself at p2's MAC address": [],
        "p2's MAC address": [],
        "p2's address": "nobody",
        "p2's address in VLAN 0": "nobody",
        "leaked": 0,
    }


BY_AN_UPLINK = {
    "p2's address": "agent, to 10.244.0.12",
    "p2's MAC address, too": "agent, to 10.244.0.12",
    "in VLAN 0 of 802.1Q": "agent, to 10.244.0.12",
    "in VLAN 0 of 802.1ad": "agent, to 10.244.0.12",
    "in VLAN 0 twice": "agent, to 10.244.0.12",
    "the gateway by ARP": ["the gateway is a stranger"],
    "p2 by ARP": ["p2 is at a stranger"],
    "nobody at p2's MAC address by ARP": ["nobody is at p2", "p2's MAC address is at vx"],
}


def test_what_comes_out_of_a_tunnel_of_the_node_would_have_each_theft_succeed() -> None:
    seen = run("uplinks", rootless=True, guarded=False)
    assert {what: seen[what] for what in BY_AN_UPLINK} == BY_AN_UPLINK
    assert seen["redirected of many"] == MANY


@pytest.fixture(scope="module")
def by_an_uplink() -> dict[str, Any]:
    """What a pod without any capability, and a machine out there, sends a tunnel of the node."""
    found: dict[str, Any] = run("uplinks", rootless=True, guarded=True)
    return found


def test_a_bridge_drops_what_asks_for_imds_by_an_uplink(by_an_uplink: dict[str, Any]) -> None:
    assert by_an_uplink["redirected of many"] == 0
    assert by_an_uplink["an address that is no pod's"] == "nobody"
    assert by_an_uplink["an address that is no pod's, in VLAN 0"] == "nobody"


def test_no_uplink_of_a_bridge_brings_anything_in_the_name_of_what_is_inside(
    by_an_uplink: dict[str, Any],
) -> None:
    stolen = {what: [] if "ARP" in what else "nobody" for what in BY_AN_UPLINK}
    seen = {what: came for what, came in by_an_uplink.items() if what != "redirected of many"}
    assert seen == stolen | {
        "sources": [3, 0, []],
        "an address that is no pod's": "nobody",
        "an address that is no pod's, in VLAN 0": "nobody",
        "victim": "proven",
        "leaked": 0,
    }


def test_on_routed_links_no_tunnel_asks_for_imds_in_any_name() -> None:
    bare, guarded = (
        run("tunnelled", rootless=True, routed=True, guarded=on) for on in (False, True)
    )
    names = ["p2's address", "the node's", "IMDS's", "one of another node's pod"]
    assert bare == dict.fromkeys(names, 1) | {"leaked": 0}
    assert guarded == dict.fromkeys(bare, 0)


def test_no_machine_beside_the_node_and_no_tunnel_takes_a_pods_place_in_a_full_set(
    *, rootless: bool
) -> None:
    seen = run("crowds", rootless=rootless, routed=True)
    assert seen.pop("a machine beside the node") == "nobody"
    served = {"served pod": ["agent", "agent"], "new pod": "agent", "redirected": 2}
    assert seen == {"beside the node": served, "through the tunnel": served}


@pytest.fixture(scope="module", params=WAYS)
def routed(request: pytest.FixtureRequest) -> dict[bool, dict[str, Any]]:
    """One pod on a routed link against another, by whether sources are guarded."""
    rootless = request.param == "rootless"
    return {each: run("routed", rootless=rootless, guarded=each) for each in (False, True)}


def test_on_routed_links_a_foreign_address_does_not_come_as_far_as_the_redirection(
    routed: dict[bool, dict[str, Any]],
) -> None:
    bare, guarded = routed[False], routed[True]
    assert bare["own address"] == guarded["own address"] == "agent, to 10.245.0.1"
    assert bare["arrived"] > 0, "each try with the other's address"
    assert guarded["arrived"] == 0
    assert guarded["leaked"] == 0


@pytest.mark.parametrize("guarded", [True, False])
def test_on_routed_links_who_speaks_in_the_name_of_imds_keeps_nobody_from_it(
    routed: dict[bool, dict[str, Any]], *, guarded: bool
) -> None:
    seen = routed[guarded]
    assert seen["the other's"] == "agent, to 10.245.0.2"
    assert seen["from a port to which IMDS is said to have spoken"] == seen["the other's"]


def test_on_routed_links_nobody_speaks_to_the_node_in_the_name_of_imds(
    routed: dict[bool, dict[str, Any]],
) -> None:
    """The node's own connections to IMDS, NMI's among them, are where the tokens come from."""
    assert routed[False]["the node hears"] == ["IMDS", "who speaks as IMDS"]
    assert routed[True]["the node hears"] == ["IMDS"]


FORGED = ("a port without a connection", "an open connection", "an unused address")
"""What A1, A2 and A6 begin with."""


def test_on_routed_links_no_answer_to_a_forged_address_comes_to_the_forger_whatever_guards() -> (
    None
):
    """Each of these attacks lives on an answer, which on a bridge comes to who announced himself.

    On routed links it takes the route of the address: to the owner, or out of the node.
    """
    bridge = run("answers", rootless=True, guarded=False)
    assert {what: bridge[what]["arrived"] > 0 for what in FORGED} == dict.fromkeys(FORGED, True)
    first, opened, unused = (set(bridge[what]["at p1"]) for what in FORGED)
    assert first == unused == {"SYN-ACK", "ACK"}
    assert opened == {"ACK"}
    assert bridge["a conversation"] == {"at p1": ["data"]}
    routed = run("answers", rootless=True, routed=True, guarded=False)
    assert {what: routed[what]["arrived"] > 0 for what in FORGED} == dict.fromkeys(FORGED, True)
    assert {what: routed[what]["at p1"] for what in FORGED} == {what: [] for what in FORGED}
    assert [routed[what]["at p2"] for what in FORGED] == [["SYN-ACK"], ["ACK"], []]
    assert routed["a conversation"] == {"at p1": []}


def test_on_routed_links_no_forged_packet_arrives_with_the_guard(*, rootless: bool) -> None:
    """Without it SYNs of addresses that nobody has would still fill the backlog."""
    seen = run("answers", rootless=rootless, routed=True, guarded=True)
    assert seen["leaked"] == 0
    for what in FORGED:
        assert seen[what] == {"arrived": 0, "at p1": [], "at p2": []}


def test_the_rules_are_these_and_what_others_change_of_them_is_put_right(*, rootless: bool) -> None:
    seen = run("source_drift", rootless=rootless)
    assert seen["before"] == [3, 0, []]
    bridge, routes = seen["nft"]
    assert bridge[bridge.index("\tchain bound {") :] == AS_NFT_SAYS
    assert routes == OF_ROUTES
    assert {what: now for what, now in seen["edits"].items() if now != [1, [], True]} == {}
    assert seen["after"] == [4, len(seen["edits"]), []]


def test_rules_that_could_not_be_written_are_written_again_at_once() -> None:
    """A second's pause kept a pod that had just started from everything."""
    seen = run("unwritten", rootless=True, times=5)
    assert seen["tried"] == 6
    assert (seen["paused"], seen["guarded"], seen["bound"]) == (0, True, 3)


def test_rules_that_cannot_be_written_are_tried_each_second_and_for_each_new_pod() -> None:
    seen = run("unwritten", rootless=True, times=1000)
    assert seen["tried"] == 10
    assert (seen["paused"], seen["guarded"], seen["bound"]) == (1, False, 4)


def test_without_a_copy_of_our_own_a_flush_of_all_rules_lets_a_theft_pass(
    *, rootless: bool
) -> None:
    assert run("source_flush", rootless=rootless, copy=False) == ["p2 is at p1"]


@needs_owned_tables
def test_while_others_flush_all_rules_our_own_copy_goes_on_filtering(*, rootless: bool) -> None:
    assert run("source_flush", rootless=rootless, copy=True) == []


def test_two_agents_of_one_node_do_not_undo_each_others_rules() -> None:
    told = run("source_rivals", rootless=True, pods=10)
    one, other = told[-1]
    assert (one[0], one[2]) == (other[0], other[2]) == (3, [])
    repairs = [mine[1] + others[1] for mine, others in told]
    assert repairs[25] == repairs[-1], "a quarrel would go on"
    assert repairs[-1] <= 2 * (10 + 1), "for pods that came and went, and for the table"


def test_switched_off_for_bridges_pods_may_have_virtual_addresses_and_that_is_said(
    *, rootless: bool
) -> None:
    seen = run("switched_off", rootless=rootless)
    both = [*["bridge podid_source"] * (1 + OWNED_TABLES), "ip podid_source"]
    assert seen.pop("on") == [False, [], "agent", both]
    reaches, (problem,), served, tables = seen.pop("off")
    assert (reaches, served, tables) == (True, "agent", ["ip podid_source"])
    assert problem.startswith("a pod on a bridge can speak with its neighbour's address: ")
    assert "--source-guard=off" in problem
    assert seen.pop("on again") == [False, [], "agent", both]
    assert seen == {"leaked": 0}


def test_where_a_kernel_cannot_guard_sources_that_is_said_with_the_next_step(
    *, rootless: bool
) -> None:
    seen = run("unable", rootless=rootless)
    assert seen.pop("all") == [False, True, []], "guarded, once the rules have been read back"
    assert seen.pop("bridge family, no bridge of pods") == [False, True, []], "nothing to guard"
    problems, (warning,) = seen.pop("owners")
    assert problems == []
    assert warning.startswith("a flush of all rules by another program interrupts the guard of")
    said = {
        "bridge family": "load nf_tables' bridge family (CONFIG_NF_TABLES_BRIDGE), or use",
        "fib": "load nf_tables' fib expression",
        "elements": "the kernel does not hold the rules that were set: set taken_macs holds other",
        "namespaces elsewhere": "name that folder with --netns-dir",
    }
    for what, text in said.items():
        before, guarded, (problem,) = seen[what]
        assert (before, guarded) == (False, False), what
        assert text in problem
