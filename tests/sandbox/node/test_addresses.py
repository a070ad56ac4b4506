from __future__ import annotations

import pytest

from podidentity_sandbox.node.network import AddressPool, NetworkFailed
from podidentity_sandbox.plan import mac_of_bridge
from podidentity_sandbox.world.network import azure_script


def test_addresses_are_given_out_in_turn_but_the_gateways_and_the_networks_own() -> None:
    pool = AddressPool("10.244.0.0/29", "10.244.0.1")
    given = [pool.take() for _ in range(5)]
    assert given == [f"10.244.0.{number}" for number in range(2, 7)]
    with pytest.raises(NetworkFailed, match="no pod address is free"):
        pool.take()
    for address in (given[3], given[0]):
        pool.give_back(address)
    assert [pool.take(), pool.take()] == [given[3], given[0]]


def test_a_bridge_has_a_mac_address_for_good_whichever_links_come_and_go() -> None:
    """Else it had its lowest link's: with that link gone, those who knew it sent to nobody."""
    assert mac_of_bridge("10.244.1.1") == "0a:58:0a:f4:01:01"
    (made,) = [each for each in azure_script().splitlines() if each.endswith("type bridge")]
    assert made == "link add fabric address 0a:58:0a:f0:00:01 type bridge"
