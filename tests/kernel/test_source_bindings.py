"""Who may have which address: the decision, and the rules as data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.kernel.namespaces import NamespaceKey
from podidentity.kernel.rules import Redirect
from podidentity.kernel.source_bindings import (
    MOST_ADDRESSES,
    Binding,
    Since,
    disputed,
    elements,
    namespaces,
    usable,
)
from podidentity.kernel.source_rules import (
    Elements,
    Table,
    bound_ports,
    bridge_table,
    closed,
    reverse_path_table,
)

EARLY, LATE = Since(1, 100), Since(1, 200)
PORTS = {"veth1": 11, "veth2": 12, "eth0": 2, "eth1": 3}


def mac_of(port: int) -> str:
    return f"02:00:00:00:00:{port:02x}"


def binding(port: int, *addresses: str, since: Since = EARLY, bridge: int = 5) -> Binding:
    return Binding(
        port=port,
        bridge=bridge,
        mac=mac_of(port),
        addresses=dict.fromkeys(addresses, since),
        namespace=NamespaceKey(4, port),
    )


def granted(*bindings: Binding, **more: Any) -> Elements:
    known = {"uplinks": {}, "own": {5: {"10.244.0.1"}}, "closed": {"169.254.169.254"}} | more
    return elements(bindings, **known)


def test_an_address_belongs_to_the_port_that_was_first_seen_with_it() -> None:
    first = binding(12, "10.244.0.12")
    second = binding(11, "10.244.0.11", "10.244.0.12", since=Since(2, 50))
    assert granted(second, first).addresses == {(11, "10.244.0.11"), (12, "10.244.0.12")}
    assert disputed([second, first], granted(second, first)) == {11: {"10.244.0.12"}}


def test_an_address_leads_to_the_namespace_that_alone_can_send_with_it() -> None:
    owner = binding(12, "10.244.0.12", "10.244.0.13")
    thief = binding(11, "10.244.0.12", since=LATE)
    found = namespaces([thief, owner], granted(thief, owner))
    assert found == dict.fromkeys(("10.244.0.12", "10.244.0.13"), owner.namespace)


def test_an_address_on_two_bridges_and_one_of_an_earlier_run_lead_to_none() -> None:
    pods = [
        binding(11, "10.244.0.11", bridge=5),
        binding(12, "10.244.0.11", bridge=6),
        replace(binding(13, "10.244.0.13"), namespace=None),
    ]
    assert len(granted(*pods).addresses) == 3
    assert namespaces(pods, granted(*pods)) == {}


def test_of_two_that_are_seen_at_once_it_belongs_to_the_one_that_the_kernel_gave_it_first() -> None:
    owner = binding(12, "10.244.0.12", since=EARLY)
    thief = binding(11, "10.244.0.12", since=LATE)
    assert granted(thief, owner).addresses == {(12, "10.244.0.12")}


def test_an_earlier_runs_holder_stays_the_first() -> None:
    kept, new = binding(12, "10.244.0.12", since=Since(0, 0)), binding(11, "10.244.0.12")
    assert granted(new, kept).addresses == {(12, "10.244.0.12")}


def test_when_the_first_holder_has_gone_the_next_has_it() -> None:
    assert granted(binding(11, "10.244.0.12", since=LATE)).addresses == {(11, "10.244.0.12")}


@pytest.mark.parametrize("address", ["10.244.0.1", "169.254.169.254"])
def test_no_port_gets_what_is_the_nodes_or_nobodys(address: str) -> None:
    found = granted(binding(11, address))
    assert found.addresses == frozenset()
    assert address in found.by_set()["taken_addresses"]


def test_bridges_that_do_not_meet_may_use_the_same_addresses() -> None:
    one, other = binding(11, "192.168.0.2"), binding(12, "192.168.0.2", bridge=6)
    assert granted(one, other).addresses == {(11, "192.168.0.2"), (12, "192.168.0.2")}


def test_an_uplink_brings_nothing_in_the_name_of_its_own_bridge_and_all_of_another() -> None:
    found = granted(
        binding(11, "10.244.0.11"),
        binding(12, "10.244.0.12", "10.244.0.11", since=LATE),
        binding(13, "10.244.0.13", bridge=6),
        uplinks={2: 5, 3: 6, 4: 7},
        own={5: {"10.244.0.1"}, 6: set()},
    )
    assert found.inside_macs == {(2, mac_of(11)), (2, mac_of(12)), (3, mac_of(13))}
    assert found.inside_addresses == {
        *((2, each) for each in ("10.244.0.1", "10.244.0.11", "10.244.0.12")),
        (3, "10.244.0.13"),
    }


def test_a_loopback_address_is_no_claim_and_neither_are_more_than_any_pod_has() -> None:
    none = {"127.0.0.1": EARLY, "0.0.0.0": EARLY}  # noqa: S104 - an address of a pod
    assert usable({**none, "10.244.0.2": EARLY}) == {"10.244.0.2": EARLY}
    many = {f"10.244.0.{n}": EARLY for n in range(MOST_ADDRESSES + 1)}
    assert usable(many) == {}
    del many["10.244.0.0"]
    assert usable(many) == many


@given(
    st.lists(
        st.builds(
            binding,
            st.integers(10, 15),
            st.sampled_from(["10.244.0.1", "10.244.0.2", "10.244.0.3"]),
            since=st.sampled_from([Since(0, 0), EARLY, LATE]),
        ),
        unique_by=lambda each: each.port,
    )
)
def test_no_address_is_ever_of_two_ports_and_the_order_of_bindings_does_not_matter(
    bindings: list[Binding],
) -> None:
    found = granted(*bindings)
    holders = [address for _, address in found.addresses]
    assert len(holders) == len(set(holders))
    assert found == granted(*reversed(bindings))
    claimed = {each for binding in bindings for each in binding.addresses} - {"10.244.0.1"}
    assert set(holders) == claimed, "and whoever is left alone with one has it"


SOME = granted(binding(11, "10.244.0.11"), binding(12, "10.244.0.12"), uplinks={2: 5})


def listed(elements: Elements) -> dict[str, Any]:
    """Return what libnftables lists after the replacement, names for indexes."""
    names = {index: name for name, index in PORTS.items()}
    commands = json.loads(bridge_table(Redirect()).replacement(elements))["nftables"]
    items = [each["add"] for each in commands if "add" in each][1:]
    sets = {item["set"]["name"]: item["set"] for item in items if "set" in item}
    for item in items:
        if "element" in item:
            sets[item["element"]["name"]]["elem"] = item["element"]["elem"]
    for name in ("pods", "uplinks"):
        sets[name]["elem"] = [names[index] for index in sets[name]["elem"]]
    text = json.dumps([each for each in items if "element" not in each])
    for index, name in names.items():
        text = text.replace(f'"concat": [{index},', f'"concat": ["{name}",')
    return {"nftables": [{"metainfo": {}}, *json.loads(text)]}


def test_what_was_written_is_recognised_in_a_listing() -> None:
    table = bridge_table(Redirect())
    assert table.difference(SOME, listed(SOME), PORTS) == ""
    assert bound_ports(listed(SOME), PORTS) == Elements(macs=SOME.macs, addresses=SOME.addresses)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"addresses": frozenset()}, "set addresses holds other elements"),
        ({"macs": frozenset({(11, "02:00:00:00:00:99")})}, "set macs holds other elements"),
        ({"pods": frozenset({11})}, "set pods holds other elements"),
        ({"uplinks": frozenset({11, 3})}, "set uplinks holds other elements"),
        ({"reserved": frozenset()}, "set taken_addresses holds other elements"),
        ({"inside_macs": frozenset()}, "set inside_macs holds other elements"),
        ({"inside_addresses": frozenset()}, "set inside_addresses holds other elements"),
    ],
)
def test_other_elements_are_a_difference(change: dict[str, Any], said: str) -> None:
    seen = bridge_table(Redirect()).difference(SOME, listed(replace(SOME, **change)), PORTS)
    assert seen == said


def test_a_missing_table_and_other_rules_are_a_difference() -> None:
    table = bridge_table(Redirect())
    assert table.difference(SOME, {}, PORTS) == "chain arriving is gone"
    found = listed(SOME)
    found["nftables"] = [each for each in found["nftables"] if "rule" not in each]
    assert table.difference(SOME, found, PORTS) == "chain arriving is changed"
    more = listed(SOME)
    more["nftables"].append({"set": {"family": "bridge", "name": "more", "type": "mark"}})
    assert table.difference(SOME, more, PORTS) == "set more is changed"


@pytest.mark.parametrize("name", ["pods", "macs", "taken_macs"])
@pytest.mark.parametrize(
    "element",
    [7, None, {"range": [1, 2]}, ["veth1", {"drop": None}], {"concat": ["veth1"]}, {"elem": {}}],
)
def test_an_element_of_no_kind_of_ours_is_a_difference_and_no_error(
    element: object, name: str
) -> None:
    found = listed(SOME)
    for item in found["nftables"]:
        if item.get("set", {}).get("name") == name:
            item["set"]["elem"].append(element)
    said = bridge_table(Redirect()).difference(SOME, found, PORTS)
    assert said == f"set {name} holds other elements"


def test_a_port_that_turns_from_an_uplink_into_a_pods_port_changes_its_set_in_one_transaction() -> (
    None
):
    before, after = Elements(uplinks=frozenset({11})), Elements(pods=frozenset({11}))
    (gone, come) = json.loads(bridge_table(Redirect()).change(before, after))["nftables"]
    assert gone["delete"]["element"]["name"] == "uplinks"
    assert come["add"]["element"]["name"] == "pods"


def test_a_change_holds_the_difference_only() -> None:
    more = granted(
        binding(11, "10.244.0.11"),
        binding(12, "10.244.0.12"),
        binding(13, "10.244.0.13"),
        uplinks={2: 5},
    )
    come = json.loads(bridge_table(Redirect()).change(SOME, more))["nftables"]
    gone = json.loads(bridge_table(Redirect()).change(more, SOME))["nftables"]
    named = ["pods", "macs", "addresses", "taken_macs", "taken_addresses"]
    named += ["inside_macs", "inside_addresses"]
    for commands, verb in ((come, "add"), (gone, "delete")):
        assert [each[verb]["element"]["name"] for each in commands] == named
        assert [len(each[verb]["element"]["elem"]) for each in commands] == [1] * 7
    assert json.loads(bridge_table(Redirect()).change(SOME, SOME)) == {"nftables": []}


PORT = {"payload": {"protocol": "tcp", "field": "dport"}}


_CLOSING_CHAINS: dict[Callable[[Redirect], Table], list[str]] = {
    bridge_table: ["outside", "unknown"],
    reverse_path_table: ["reverse_path"],
}


def _drops(table: Table, chain: str) -> Iterator[Any]:
    rules = (item for item in table.items if item.get("rule", {}).get("chain") == chain)
    return (item for item in rules if {"drop": None} in item["rule"]["expr"])


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1", ("169.254.169.254", "169.254.25.79")),
        ("169.254.100.1", ("169.254.169.254", "169.254.100.1")),
        ("10.240.0.4", ("169.254.169.254",)),
    ],
)
def test_a_link_local_address_of_the_redirection_is_closed_like_imds(
    listen: str, expected: tuple[str, ...]
) -> None:
    redirect = Redirect(listen_address=listen)
    assert closed(redirect) == expected
    for table, chains in _CLOSING_CHAINS.items():
        for chain in chains:
            dropped = json.dumps(list(_drops(table(redirect), chain)))
            assert all(dropped.count(f'"daddr"}}}}, "right": "{each}"') == 1 for each in expected)


def test_for_cilium_the_port_at_the_nodes_address_is_closed_like_imds_and_no_other() -> None:
    redirect = Redirect(node_address="10.240.0.4")
    for table, chains in _CLOSING_CHAINS.items():
        for chain in chains:
            drops = _drops(table(redirect), chain)
            (rule,) = (each for each in drops if "10.240.0.4" in json.dumps(each))
            assert {"match": {"op": "==", "left": PORT, "right": 2579}} in rule["rule"]["expr"]
