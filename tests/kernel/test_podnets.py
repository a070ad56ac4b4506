from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kernel.topology import run

pytestmark = pytest.mark.net


def test_a_namespace_that_vanishes_while_its_folder_is_read_hides_no_other(
    *, rootless: bool
) -> None:
    refreshed, failure, opened = run("vanishing", rootless=rootless)["seen"]
    assert refreshed
    assert failure == ""
    assert opened == 4, "the three of the start, and the new one"


def test_namespaces_may_be_in_several_folders(*, rootless: bool) -> None:
    seen = run("folders", rootless=rootless)
    assert seen["both"] == [[1, 1, 1], 3]
    assert seen["one more"] == 4
    assert seen["one less"] == [[1, 0, 1], 3]
    assert seen["missing"].startswith("cannot read /run/nowhere (No such file or directory): mount")


def test_a_pod_takes_no_descriptor_that_libnftables_could_use(*, rootless: bool) -> None:
    """Of 500 pods with two each, the last would take the 1,024th; see `netlink.FIRST_OF_OURS`."""
    assert run("descriptors", rootless=rootless) == {"low": 0, "all": 6}


_MANY_FILES = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))
held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
from podidentity.kernel.nftables import Nftables
Nftables().run('{"nftables": [{"add": {"table": {"family": "ip", "name": "some"}}}]}')
"""


def test_where_no_low_descriptor_is_left_libnftables_is_not_asked_and_ends_no_process() -> None:
    ended = subprocess.run(
        ["unshare", "--map-root-user", "--net", sys.executable, "-c", _MANY_FILES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "NftablesError: this process has more than 1024 open files" in ended.stderr


def test_a_pod_that_changes_its_addresses_all_the_time_is_refused_alone_until_it_stops(
    *, rootless: bool
) -> None:
    seen = run("flapping", rootless=rootless)
    assert seen["held"][:9] == [1] * 9, "a few changes are an ordinary life"
    assert seen["held"][-10:] == [0] * 10
    assert seen["others"] == [1, 1]
    assert not seen["quiet"], "meanwhile nobody reads its addresses at its command"
    assert seen["after"] == 1
    assert seen["failure"] == "", "and the node is as ready as before"


@pytest.mark.parametrize("addresses", [300, 5000])
def test_a_pod_with_too_many_addresses_is_refused_alone_until_it_holds_fewer(
    addresses: int, *, rootless: bool
) -> None:
    seen = run("crowded", rootless=rootless, addresses=addresses)
    assert seen == {
        "before": [{"p1": 1, "p2": 1}, ""],
        "crowded": [{"p1": 0, "p2": 1}, ""],
        "still crowded": [{"p1": 0, "p2": 1}, ""],
        "at once": [{"p1": 0, "p2": 1}, ""],
        "after": [{"p1": 1, "p2": 1}, ""],
    }
