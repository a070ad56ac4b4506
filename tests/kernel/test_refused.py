"""Rules that a node refuses, as AKS's program does beside eBPF host routing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.planes import refused_rules
from tests.kernel.conftest import OWNED_TABLES

pytestmark = [
    pytest.mark.net,
    pytest.mark.skipif(os.geteuid() != 0, reason="a filter that another process answers: root"),
]

NODE = "10.240.0.4"
NETWORK = f"""
ip link set lo up
ip link add eth0 type veth peer name other
ip link set other up
ip address add {NODE}/24 dev eth0
ip link set eth0 up
ip route add default via 10.240.0.1
echo made
exec sleep 600
"""


@pytest.fixture
def network() -> Iterator[int]:
    """Return a process with a network of its own, which has an uplink."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-ec", NETWORK], stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"made\n"
        yield running.pid
        running.kill()


def installed(process: int, folder: Path, *arguments: str, refused: bool) -> Any:
    """Set the rules in a process's network; return the error, what is wrong, what is missing."""
    out = folder / "found"
    inside = f"{sys.executable} -m tests.kernel.refusing {' '.join(arguments)} > {out}"
    command = ["nsenter", f"--net=/proc/{process}/ns/net", "sh", "-ec", inside]
    inode = Path(f"/proc/{process}/ns/net").stat().st_ino
    refused_rules.start(command, inode, looked_at=1000 if refused else 0)
    return json.loads(out.read_text())


def test_where_requests_come_by_cilium_routing_rules_are_enough_and_the_rest_is_a_warning(
    network: int, tmp_path: Path
) -> None:
    said, problems, warnings = installed(network, tmp_path, NODE, refused=True)
    assert (said, problems) == ("", [])
    (warning,) = warnings
    assert warning.startswith("the node refuses NMI's rules, and takes requests by Cilium's")
    enter = ["nsenter", f"--net=/proc/{network}/ns/net"]
    listed = subprocess.check_output([*enter, "ip", "-d", "rule"], text=True)
    assert "to 169.254.169.254 blackhole" in listed
    assert subprocess.check_output([*enter, "nft", "list", "tables"], text=True) == ""


def test_where_they_come_by_the_rules_it_is_not_ready(network: int, tmp_path: Path) -> None:
    said, problems, _ = installed(network, tmp_path, refused=True)
    assert "something of the node refuses its rules all the same" in said
    assert problems


def test_where_no_rule_is_refused_the_uplink_is_closed_to_the_nodes_own_address(
    network: int, tmp_path: Path
) -> None:
    said, problems, warnings = installed(network, tmp_path, NODE, refused=False)
    assert (said, problems) == ("", [])
    assert ["take Linux 5.12" in each for each in warnings] == [True] * (not OWNED_TABLES)
    enter = ["nsenter", f"--net=/proc/{network}/ns/net"]
    table = subprocess.check_output([*enter, "nft", "list", "table", "ip", "podid"], text=True)
    assert f"ip daddr {NODE} tcp dport 2579 jump outside" in table
    assert 'iifname "eth0" counter packets 0 bytes 0 drop' in table


def test_who_answers_for_the_filter_ends_with_the_last_process_behind_it() -> None:
    answering = refused_rules.start(["true"]).answering
    answering.join(60)
    assert not answering.is_alive()
