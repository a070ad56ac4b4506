from __future__ import annotations

from typing import Any

import pytest

from tests.docs.blocks import ROOT, blocks_of
from tests.kernel.topology import run
from tests.root import needs_root

pytestmark = pytest.mark.net

KINDS: dict[str, dict[str, Any]] = {
    "rootless-bridge": {"rootless": True, "bridge_netfilter": 1},
    "rootless-bridge-unfiltered": {"rootless": True, "bridge_netfilter": 0},
    "rootless-routed": {"rootless": True, "bridge_netfilter": 1, "routed": True},
    "root-bridge": {"rootless": False, "bridge_netfilter": 1},
}

AS_NFT_SAYS = """\
table ip podid {
	set source_rates {
		type ipv4_addr
		size 4096
		flags dynamic,timeout
		timeout 10s
	}

	set source_shares {
		type ipv4_addr
		size 4096
		flags dynamic
	}

	set port_rates {
		type ether_addr
		size 4096
		flags dynamic,timeout
		timeout 10s
	}

	set port_shares {
		type ether_addr
		size 4096
		flags dynamic
	}

	set source_ends {
		type ipv4_addr
		size 4096
		flags dynamic,timeout
		timeout 10s
	}

	set port_ends {
		type ether_addr
		size 4096
		flags dynamic,timeout
		timeout 10s
	}

	chain guard_local {
		type filter hook prerouting priority raw; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 counter drop
		iifname != "lo" ip daddr 169.254.25.79 counter drop
	}

	chain intercept {
		type nat hook prerouting priority dstnat - 10; policy accept;
		ip daddr 169.254.169.254 tcp dport 80 jump share
		ip daddr 169.254.169.254 tcp dport 80 counter dnat to 169.254.25.79:2579
	}

	chain guard_imds {
		type filter hook prerouting priority dstnat + 10; policy accept;
		ip daddr 169.254.169.254 tcp dport 80 counter reject with tcp reset
	}

	chain from_imds {
		type filter hook forward priority filter; policy accept;
		ip saddr 169.254.169.254 counter drop
	}

	chain from_node {
		type nat hook output priority dstnat - 10; policy accept;
		ip daddr 169.254.169.254 tcp dport 80 counter dnat to 169.254.169.254:80
	}

	chain arriving {
		type filter hook prerouting priority raw; policy accept;
		ip daddr 169.254.169.254 tcp dport 80 jump outside
	}

	chain outside {
		iifname "lo" return
		meta iifkind "bridge" return
		iifname "eth0" counter drop
		meta iifkind "veth" return
		meta iifkind "netkit" return
		meta iifkind "tun" return
		meta iifkind "openvswitch" return
		meta iifkind "vrf" return
		counter drop
	}

	chain ending {
		type filter hook prerouting priority raw + 1; policy accept;
		ip daddr 169.254.169.254 tcp dport 80 tcp flags rst jump ends
	}

	chain share {
		meta iifkind "bridge" goto share_of_port
		update @source_rates { ip saddr {RATE} } counter drop
		ip saddr != @source_rates counter drop
		meta l4proto tcp add @source_shares { ip saddr ct count over 320 } {REFUSED}
		meta l4proto tcp ip saddr != @source_shares {REFUSED}
	}

	chain share_of_port {
		update @port_rates { ether saddr {RATE} } counter drop
		ether saddr != @port_rates counter drop
		meta l4proto tcp add @port_shares { ether saddr ct count over 320 } {REFUSED}
		meta l4proto tcp ether saddr != @port_shares {REFUSED}
	}

	chain ends {
		meta iifkind "bridge" goto ends_of_port
		update @source_ends { ip saddr {ENDS} } counter drop
		ip saddr != @source_ends counter drop
	}

	chain ends_of_port {
		update @port_ends { ether saddr {ENDS} } counter drop
		ether saddr != @port_ends counter drop
	}
}
""".replace("{ENDS}", "limit rate over 20/second burst 100 packets")
AS_NFT_SAYS = AS_NFT_SAYS.replace("{REFUSED}", "counter reject with tcp reset").replace(
    "{RATE}", "limit rate over 1000/second burst 1000 packets"
)
AS_IP_RULE_SAYS = [
    "0: from all lookup local proto kernel",
    "1: from all to 169.254.169.254 iif lo oif eth0 lookup 2579 proto kernel",
    "2: from all iif lo goto 6 proto kernel",
    "3: from all to 169.254.169.254 blackhole proto kernel",
    "4: from all to 169.254.25.79 lookup local proto kernel",
    "5: from all to 169.254.25.79 blackhole proto kernel",
    "6: from all nop proto kernel",
    "32766: from all lookup main proto kernel",
    "32767: from all lookup default proto kernel",
]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if kind["rootless"] else needs_root)
        for name, kind in KINDS.items()
    ],
)
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One life of the rules: before, with the agent, without it, removed."""
    found: dict[str, Any] = run("interception", **KINDS[request.param])
    return found


def test_without_the_rules_a_pod_reaches_the_real_imds(seen: dict[str, Any]) -> None:
    assert seen["before"]["who"] == seen["kept before"]["who"] == seen["removed"]["who"] == "imds"


def test_with_the_rules_every_pod_reaches_the_agent_and_is_known_by_its_address(
    seen: dict[str, Any],
) -> None:
    answers = [(each["who"], each["peer"], each["verdict"]) for each in seen["pods"]]
    addresses = ["10.244.0.11", "10.244.0.12", "10.244.0.13"]
    assert answers == [("agent", address, "proven") for address in addresses]


def test_a_connection_older_than_the_rules_is_reset(seen: dict[str, Any]) -> None:
    assert seen["kept after"] == {"who": "nobody", "why": "ConnectionResetError"}


@pytest.mark.parametrize("how", ["deaf", "killed"])
def test_pods_are_refused_while_nobody_listens(seen: dict[str, Any], how: str) -> None:
    assert seen[how] == {"who": "nobody", "why": "ConnectionRefusedError"}


def test_a_successor_takes_over_rules_that_it_finds(seen: dict[str, Any]) -> None:
    assert seen["again"]["who"] == "agent"


def test_with_all_rules_flushed_and_nobody_to_repair_them_nothing_gets_through(
    seen: dict[str, Any],
) -> None:
    assert seen["flushed"] == {"who": "nobody", "why": "TimeoutError"}


@pytest.mark.parametrize("when", ["node", "node, flushed", "node, with a service"])
def test_the_node_itself_reaches_the_real_imds_at_all_times(
    seen: dict[str, Any], when: str
) -> None:
    assert seen[when]["who"] == "imds"


def test_nothing_reached_the_real_imds_but_what_was_to(seen: dict[str, Any]) -> None:
    expected = ["/before", "/kept-before", "/node", "/node-flushed", "/node-service", "/removed"]
    assert seen["reached imds"] == expected


def _with_names(printed: str) -> str:
    """Return rules with each type by its name, as a library before 1.1.2 has them written."""
    by_name = printed.replace("typeof ip saddr", "type ipv4_addr")
    return by_name.replace("typeof ether saddr", "type ether_addr")


def test_the_rules_are_these(seen: dict[str, Any]) -> None:
    assert _with_names(seen["nft"]) == AS_NFT_SAYS
    listed = [" ".join(line.split()) for line in seen["ip rule"].splitlines()]
    assert listed == AS_IP_RULE_SAYS


def test_removal_leaves_only_the_address_where_kept_connections_end(seen: dict[str, Any]) -> None:
    tables, routing = seen["remains"]
    assert tables == "table ip other\n"
    assert len(routing.splitlines()) == 3
    assert seen["left"] == [
        "when the last connections have ended: ip address delete 169.254.25.79/32 dev lo"
    ]
    assert seen["kept after the end"]["who"] == "agent"


def test_a_pod_reaches_the_nodes_loopback_only_where_others_open_it_and_nobody_guards(
    *, rootless: bool
) -> None:
    seen = run("loopback", rootless=rootless)
    assert seen["nobody opens it"] == "dropped"
    assert seen["unguarded"] == "connected"
    assert seen["guarded"] == "dropped"
    assert seen["agent"]["who"] == "agent"


def test_only_what_was_redirected_reaches_the_address_and_it_leads_nowhere_else(
    *, rootless: bool
) -> None:
    seen = run("target", rootless=rootless)
    assert seen["unguarded"] == ["connected", "connected"]
    assert seen["guarded"] == ["dropped", "dropped"]
    assert seen["redirected"]["verdict"] == "proven"
    assert seen["taken away"] == {"who": "nobody", "why": "TimeoutError"}
    assert seen["with nothing behind it"] == {"who": "elsewhere"}


def test_before_anybody_listens_imds_is_closed_and_another_redirection_serves_on(
    *, rootless: bool
) -> None:
    """And so it is when ours go that lead pods here, if that was chosen; open connections go on."""
    seen = run("unserved", rootless=rootless)
    assert seen["left"] == [seen["closed"]] * 2
    assert seen["kept"] == {"who": "ours"}
    assert seen["closed"] == {"who": "nobody", "why": "TimeoutError"}, "sent again, not refused"
    assert seen["other"] == seen["given back"] == {"who": "other"}
    assert seen["listens"] == [None, 0]
    assert seen["ours"] == {"who": "ours"}
    assert seen["reached imds"] == []


def test_an_address_that_another_interface_has_is_named_until_it_is_free() -> None:
    seen = run("elsewhere", rootless=True)
    said = (
        "169.254.25.79 is an address of cbr0: give NMI another link-local one by "
        "--nmi-listen-address"
    )
    assert seen["problems"] == [said]
    assert seen["agent"]["who"] == "agent"
    assert seen["at the start"] == f"cannot intercept pods' IMDS traffic: {said}"


def test_what_release_0_1_left_behind_is_replaced_and_its_sysctl_is_told_of(
    *, rootless: bool
) -> None:
    seen = run("upgrade", rootless=rootless)
    assert _with_names(seen["nft"]) == AS_NFT_SAYS
    listed = [" ".join(line.split()) for line in seen["ip rule"].splitlines()]
    assert [each for each in listed if "lookup" not in each or "169.254" in each] == [
        each for each in AS_IP_RULE_SAYS if "lookup" not in each or "169.254" in each
    ]
    assert seen["node"]["who"] == "imds"
    assert seen["pod"] == {"who": "nobody", "why": "ConnectionRefusedError"}
    assert seen["localnet"] == "1\n", "another may need it"
    assert seen["said"].count("podidentity 0.1 needed net.ipv4.conf.all.route_localnet=1") == 1


def test_the_documents_commands_show_what_is_on_the_node_and_take_all_of_it_away(
    *, rootless: bool
) -> None:
    (block,) = (b for b in blocks_of(ROOT / "docs/reference/nmi.md") if b.mark == "run=node")
    seen = run("by_hand", rootless=rootless, commands=block.text)
    assert seen["closed"] == "ConnectionRefusedError"
    for shown in ("table ip podid {", "blackhole", "table bridge podid_source {"):
        assert shown in seen["shown"]
    assert seen["left"] == []
    assert seen["opened"] == "imds"


@pytest.mark.parametrize(
    ("capabilities", "install", "networks"),
    [
        (["net_admin", "sys_admin"], "", ""),
        (["net_admin"], "", "give the process CAP_SYS_ADMIN"),
        (["sys_admin"], "give the process CAP_NET_ADMIN", ""),
    ],
    ids=["both", "no SYS_ADMIN", "no NET_ADMIN"],
)
def test_two_capabilities_are_enough_and_a_missing_one_is_named(
    capabilities: list[str], install: str, networks: str
) -> None:
    seen = run("privileges", rootless=True, capabilities=capabilities)
    assert install in seen["install"]
    assert bool(install) == bool(seen["install"])
    assert networks in "".join(seen["networks"])
    assert bool(networks) == bool(seen["networks"])


def test_who_was_reset_at_the_port_before_is_led_there_again_who_was_answered_is_not() -> None:
    """So an agent whose port the next one has not answers all who were led to it."""
    assert run("moving") == {"answered": "the next", "reset": "ConnectionRefusedError"}


def test_an_agent_that_yields_the_rules_leads_nobody_when_the_next_has_released_them() -> None:
    """Its process lives on for connections that are open, behind a port that is closed."""
    assert run("yielding") == {"both": "the next", "released": "TimeoutError", "back": "the next"}
