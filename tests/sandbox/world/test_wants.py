"""What `up` says where there is no space, or no port, for a sandbox; nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sandbox.world.places import COMMAND, Place

pytestmark = pytest.mark.net

SPACE = """
mount -t tmpfs -o size=64k,mode=700 tmpfs "$0"
"$@"; echo "exit $?"; ls -A "$0" 2>/dev/null || true
"""
PORTS = """
ip link set lo up
echo 40000 40001 >/proc/sys/net/ipv4/ip_local_port_range
"$@"; echo "exit $?"; ls -A "$0" 2>/dev/null || true
"""


def up(place: Place, namespace: str, script: str, held: str = "") -> list[str]:
    """Run `up` in a namespace of its own; return the lines that are said."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    program = [sys.executable, "-c", COMMAND, str(place.base), held, "up", "--rootless", "--json"]
    done = subprocess.run(
        ["unshare", *user, namespace, "sh", "-c", script, str(place.base), *program],
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_disk_without_space_is_said_and_where(place: Place) -> None:
    said, ended, *left = up(place, "--mount", SPACE)
    assert said.startswith(f"Error: no space left for {place.base}/default: a sandbox needs")
    assert f"`df -h {place.base.parent}`" in said
    assert (ended, left) == ("exit 1", [])


def test_a_loopback_without_a_free_port_is_said(place: Place) -> None:
    said, ended, *left = up(place, "--net", PORTS, held="40000 40001")
    assert said.startswith("Error: no port of 127.0.0.1 is free for the API server")
    assert (ended, left) == ("exit 1", [])
