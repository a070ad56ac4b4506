from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from podidentity.kernel import nftables, routing
from podidentity.kernel.nftables import Nftables, NftablesError
from podidentity.kernel.rules import Redirect, RedirectTable


def listing(redirect: Redirect) -> dict[str, Any]:
    """What libnftables lists of what we want: with handles, counts and chains in another order."""
    listed = copy.deepcopy(RedirectTable(redirect).wanted())
    for handle, item in enumerate(listed):
        (body,) = item.values()
        body["handle"] = handle
        for each in body.get("expr", ()):
            if "counter" in each:
                each["counter"] = {"packets": 3, "bytes": 180}
        if "set" in item:
            body["flags"] = [*body.get("flags", ()), "dynamic"]
            body["elem"] = [{"elem": {"val": "10.244.0.11", "ct count": {"val": 320}}}]
    table, *rest = listed
    chains = [each for each in rest if "chain" in each]
    rules = [each for each in rest if "chain" not in each]
    return {"nftables": [{"metainfo": {"version": "1.1.3"}}, table, *reversed(chains), *rules]}


def bodies(listed: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [item[kind] for item in listed["nftables"] if kind in item]


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a rule is gone": lambda listed: listed["nftables"].pop(),
    "a rule more": lambda listed: listed["nftables"].append({"rule": {"chain": "intercept"}}),
    "a chain more": lambda listed: listed["nftables"].append({"chain": {"name": "more"}}),
    "a set more": lambda listed: listed["nftables"].append({"set": {"name": "more"}}),
    "the table asleep": lambda listed: bodies(listed, "table")[0].update(flags="dormant"),
    "another policy": lambda listed: bodies(listed, "chain")[0].update(policy="drop"),
    "another priority": lambda listed: bodies(listed, "chain")[0].update(prio=0),
    "a decision gone": lambda listed: bodies(listed, "rule")[0]["expr"].pop(),
    "another size": lambda listed: bodies(listed, "set")[0].update(size=1),
    "a set gone": lambda listed: listed["nftables"].remove({"set": bodies(listed, "set")[0]}),
    "everything": lambda listed: listed["nftables"].clear(),
}


def test_a_listing_of_what_was_installed_is_as_wanted() -> None:
    assert RedirectTable(Redirect()).differences(listing(Redirect())) == []


@pytest.mark.parametrize("what", CHANGES)
def test_a_listing_with_any_change_is_not_as_wanted(what: str) -> None:
    changed = listing(Redirect())
    CHANGES[what](changed)
    assert RedirectTable(Redirect()).differences(changed)


def test_the_order_of_rules_within_a_chain_matters() -> None:
    rule = {"family": "ip", "table": "podid", "chain": "guard_imds"}
    both = [{"rule": {**rule, "expr": [{"accept": None}]}}, {"rule": {**rule, "expr": []}}]
    listed = listing(Redirect())
    first, second = ({"nftables": [*listed["nftables"], *each]} for each in (both, both[::-1]))
    assert RedirectTable(Redirect()).differences(first) != RedirectTable(Redirect()).differences(
        second
    )


def test_what_others_put_into_our_table_is_cut_to_a_bounded_length() -> None:
    listed = listing(Redirect())
    listed["nftables"] += [{"rule": {"chain": "intercept", "expr": [{"accept": None}]}}] * 9999
    assert all(len(said) < 500 for said in RedirectTable(Redirect()).differences(listed))


@pytest.mark.parametrize(
    "other",
    [
        Redirect(metadata_ip="169.254.169.253"),
        Redirect(metadata_port=81),
        Redirect(listen_address="10.240.0.4"),
        Redirect(listen_port=2580),
    ],
)
def test_a_listing_for_other_settings_is_not_as_wanted(other: Redirect) -> None:
    assert RedirectTable(Redirect()).differences(listing(other))


@pytest.mark.parametrize(
    ("listen", "target", "host", "listens"),
    [
        ("127.0.0.1", "169.254.25.79", "127.0.0.1", ["169.254.25.79", "127.0.0.1"]),
        ("127.0.0.2", "169.254.25.79", "127.0.0.2", ["169.254.25.79", "127.0.0.2"]),
        ("0.0.0.0", "169.254.25.79", "127.0.0.1", ["0.0.0.0"]),  # noqa: S104 - an old setting
        ("169.254.25.80", "169.254.25.80", "127.0.0.1", ["169.254.25.80", "127.0.0.1"]),
        ("10.240.0.4", "10.240.0.4", "127.0.0.1", ["10.240.0.4", "127.0.0.1"]),
    ],
)
def test_pods_are_redirected_to_the_given_address_or_to_a_link_local_one_and_never_to_loopback(
    listen: str, target: str, host: str, listens: list[str]
) -> None:
    redirect = Redirect(listen_address=listen)
    assert (redirect.target, redirect.host_address) == (target, host)
    assert list(redirect.listen_addresses) == listens


def test_an_address_of_the_node_is_neither_guarded_nor_made() -> None:
    redirect = Redirect(listen_address="10.240.0.4")
    assert not redirect.owns_target
    guards = [each for each in RedirectTable(redirect).wanted() if "guard_local" in str(each)]
    assert "10.240.0.4" not in str(guards)
    assert "10.240.0.4" not in str(routing.wanted(redirect))


@pytest.mark.parametrize(
    "settings",
    [
        {"metadata_ip": "imds"},
        {"listen_address": "::1"},
        {"listen_address": "169.254.169.254"},
        {"metadata_port": 0},
        {"listen_port": 65536},
    ],
)
def test_settings_that_are_no_address_or_port_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Redirect(**settings)


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "_NAME", "libnftables.so.none")
    with pytest.raises(NftablesError, match=r"install the package nftables \(libnftables1\)"):
        Nftables()
