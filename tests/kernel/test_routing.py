from __future__ import annotations

import subprocess
import sys

import pytest

from podidentity.kernel import netlink
from podidentity.kernel.routing import of_release_0_1, past_netfilter, wanted
from podidentity.kernel.rules import Redirect

# FRA_SUPPRESS_PREFIXLEN, which the kernel adds to each rule that it lists, and one to come.
ADDED = netlink.attribute(14, b"\xff\xff\xff\xff") + netlink.attribute(30, b"\0\0\0\0")
CLOSED = wanted(Redirect())[2]


ALL = [past_netfilter(Redirect(), "eth0"), *wanted(Redirect())]


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: str(rule.priority))
def test_a_rule_is_recognised_in_a_listing_whatever_the_kernel_adds(rule: object) -> None:
    found = [each for each in ALL if each.is_listed(rule.encode() + ADDED)]  # type: ignore[attr-defined]
    assert found == [rule]


@pytest.mark.parametrize(
    "other",
    [
        wanted(Redirect(metadata_ip="169.254.169.253"))[2].encode(),
        of_release_0_1(Redirect())[0].encode(),
        CLOSED.encode() + netlink.attribute(22, b"\6"),  # TCP alone
        CLOSED.encode() + netlink.attribute(10, b"\1\0\0\0"),  # a mark alone
        CLOSED.encode() + netlink.attribute(2, b"\x0a\0\0\1"),  # a source alone
        CLOSED.encode()[:8] + b"\2\0\0\0" + CLOSED.encode()[12:],  # whatever is not this
        b"\x0a" * 2 + CLOSED.encode()[2:],
    ],
    ids=["address", "port", "protocol", "mark", "source", "not", "prefix"],
)
def test_a_rule_that_closes_less_is_another_rule(other: bytes) -> None:
    assert not CLOSED.is_listed(other)


def test_rules_of_release_0_1_are_none_of_ours() -> None:
    for old in of_release_0_1(Redirect()):
        assert not any(each.is_listed(old.encode()) for each in wanted(Redirect()))


@pytest.mark.parametrize(
    ("command", "touched"),
    [
        ("ip route add 10.244.0.9/32 dev eth0", False),
        ("ip route add default via 10.240.0.1", True),
        ("ip route add 169.254.169.254/32 dev eth0", True),
        ("ip rule add pref 9 nop", True),
        ("ip address add 10.250.0.1/32 dev eth0", True),
    ],
)
def test_of_changed_routes_those_of_pods_wake_nobody(command: str, touched: bool) -> None:
    enter = ["unshare", "--user", "--map-root-user", "--net"]
    program = [sys.executable, "-m", "tests.kernel.touching", command]
    ran = subprocess.run([*enter, *program], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{touched}\n"
