"""What else closes IMDS to pods: read from the kernel, where the real programs wrote it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

import pytest

from podidentity.manifests import boot_unit

READ = (
    "from podidentity.kernel.closing_rules import closing\n"
    "from podidentity.kernel.nftables import Nftables\n"
    "print(*closing(Nftables(), '169.254.169.254', 80), sep='\\n')"
)
(UNIT,) = [
    line.partition("=")[2] for line in boot_unit().splitlines() if line.startswith("ExecStart=")
]
IPTABLES = "iptables-nft -w -t {table} -I FORWARD 1 {rule} -j DROP"
AKS = "! -s 10.240.0.4 -d 169.254.169.254/32 -p tcp --dport 80"
"""Source: Azure/AgentBaker, parts/linux/cloud-init/artifacts/ensure_imds_restriction.sh."""


def restriction(rule: str = AKS, table: str = "filter") -> str:
    return IPTABLES.format(table=table, rule=rule)


def closed_by(*commands: str) -> Sequence[str]:
    """Run commands in a network namespace of their own; return what closes IMDS there."""
    script = "\n".join((*commands, f"exec {shlex.join([sys.executable, '-c', READ])}"))
    own = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    ran = subprocess.run(
        [*own, "sh", "-ec", script], capture_output=True, text=True, check=False, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split("\n")[:-1] if ran.stdout.strip() else []


UNIT_NAME, AKS_NAME = "the node unit", "AKS's IMDS restriction"


def test_where_nothing_closes_it_nothing_is_said() -> None:
    assert closed_by() == []


def test_the_unit_is_seen_once_however_often_it_was_loaded() -> None:
    assert closed_by(UNIT, UNIT) == [UNIT_NAME]


@pytest.mark.parametrize("table", ["filter", "mangle"])
def test_akss_restriction_is_seen_in_either_table(table: str) -> None:
    assert closed_by(restriction(table=table)) == [AKS_NAME]


def test_both_are_seen() -> None:
    assert closed_by(UNIT, restriction()) == [UNIT_NAME, AKS_NAME]


def test_kube_proxys_jumps_may_stand_before_it() -> None:
    jump = "iptables-nft -w -N KUBE-FORWARD; iptables-nft -w -I FORWARD 1 -j KUBE-FORWARD"
    assert closed_by(restriction(), jump) == [AKS_NAME]


@pytest.mark.parametrize(
    "rule",
    [
        "-d 169.254.169.254/32 -p tcp --dport 81",
        "-d 169.254.169.253/32 -p tcp --dport 80",
        "-d 169.254.169.254/32 -s 10.244.0.7",
        "-d 169.254.169.254/32 -i cbr0",
        "-d 169.254.169.254/32 -p udp --dport 80",
        "-p tcp --dport 80",
        "! -d 169.254.169.254/32",
    ],
)
def test_a_rule_that_closes_less_counts_as_none(rule: str) -> None:
    assert closed_by(restriction(rule)) == []


@pytest.mark.parametrize(
    "before",
    [
        "iptables-nft -w -I FORWARD 1 -j ACCEPT",
        "iptables-nft -w -I FORWARD 1 -i cbr0 -j ACCEPT",
        "iptables-nft -w -N cali-FORWARD; iptables-nft -w -I FORWARD 1 -j cali-FORWARD",
    ],
)
def test_a_rule_behind_one_that_may_let_pods_pass_counts_as_none(before: str) -> None:
    assert closed_by(restriction(), before) == []


@pytest.mark.parametrize(
    "other",
    [
        "nft add table ip podid_boot",
        "nft 'add table ip podid_boot; add chain ip podid_boot closed'",
        UNIT.replace("hook forward", "hook output"),
        UNIT.replace("drop", "accept"),
        f"{UNIT}; nft flush chain ip podid_boot closed",
        f"{UNIT}; nft add table ip podid_boot '{{ flags dormant; }}'",
    ],
    ids=["no chain", "no hook", "another hook", "accepts", "no rule", "asleep"],
)
def test_a_table_of_the_units_name_that_does_not_close_counts_as_none(other: str) -> None:
    assert closed_by(other) == []
