from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podidentity.kernel import nftables, rules
from podidentity.kernel.nftables import Nftables, NftablesError
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sysctl import RouteLocalnet, SysctlError


def listing(redirect: Redirect) -> dict[str, Any]:
    """What libnftables lists of what we want: with handles, counts and chains in another order."""
    listed = copy.deepcopy(rules.wanted(redirect))
    for handle, item in enumerate(listed):
        (body,) = item.values()
        body["handle"] = handle
        for each in body.get("expr", ()):
            if "counter" in each:
                each["counter"] = {"packets": 3, "bytes": 180}
    table, *rest = listed
    return {"nftables": [{"metainfo": {"version": "1.1.3"}}, table, *reversed(rest)]}


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
    "everything": lambda listed: listed["nftables"].clear(),
}


def test_a_listing_of_what_was_installed_is_as_wanted() -> None:
    assert rules.is_as_wanted(Redirect(), listing(Redirect()))


@pytest.mark.parametrize("what", CHANGES)
def test_a_listing_with_any_change_is_not_as_wanted(what: str) -> None:
    changed = listing(Redirect())
    CHANGES[what](changed)
    assert not rules.is_as_wanted(Redirect(), changed)


def test_the_order_of_rules_within_a_chain_matters() -> None:
    rule = {"family": "ip", "table": "podid", "chain": "intercept"}
    both = [{"rule": {**rule, "expr": [{"accept": None}]}}, {"rule": {**rule, "expr": []}}]
    listed = listing(Redirect())
    first, second = ({"nftables": [*listed["nftables"], *each]} for each in (both, both[::-1]))
    assert rules._normal(first["nftables"]) != rules._normal(second["nftables"])


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
    assert not rules.is_as_wanted(Redirect(), listing(other))


@pytest.mark.parametrize(
    ("listen", "target", "needs_localnet"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),  # noqa: S104 - an old setting
        ("127.0.0.2", "127.0.0.2", True),
        ("10.240.0.4", "10.240.0.4", False),
    ],
)
def test_a_loopback_target_needs_route_localnet(
    listen: str, target: str, *, needs_localnet: bool
) -> None:
    redirect = Redirect(listen_address=listen)
    assert (redirect.target, redirect.needs_localnet) == (target, needs_localnet)


@pytest.mark.parametrize(
    "settings",
    [
        {"metadata_ip": "imds"},
        {"listen_address": "::1"},
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


@pytest.fixture
def sysctl(tmp_path: Path) -> Path:
    path = tmp_path / "ipv4/conf/all/route_localnet"
    path.parent.mkdir(parents=True)
    path.write_text("0\n")
    return path


def test_the_sysctl_is_set_where_it_is_not_and_restored_by_whom_it_was_set(
    sysctl: Path, tmp_path: Path
) -> None:
    ours = RouteLocalnet(tmp_path)
    assert ours.enable()
    assert sysctl.read_text() == "1"
    assert not ours.enable()
    assert ours.restore()
    assert sysctl.read_text() == "0"


def test_the_sysctl_stays_where_it_was_set_before(sysctl: Path, tmp_path: Path) -> None:
    sysctl.write_text("1\n")
    ours = RouteLocalnet(tmp_path)
    assert not ours.enable()
    assert not ours.restore()
    assert sysctl.read_text() == "1\n"


def test_a_sysctl_that_cannot_be_read_is_named_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(SysctlError, match=r"cannot read .*route_localnet .*: mount the node's"):
        RouteLocalnet(tmp_path).enable()
