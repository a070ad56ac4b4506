"""A stand-in for a pod with a kernel of its own: a network namespace behind that of the pod.

Kata gives a virtual machine the pod's link by a tap in the pod's network namespace: traffic control
sends each frame that arrives at one of the two out of the other, so that the namespace has the
address, and no socket of the guest's. Here the tap is a veth, and the guest's kernel is a network
namespace that no runtime has mounted anywhere.

Source: kata-containers/kata-containers, src/runtime/virtcontainers/network_linux.go
(setupTCFiltering, addRedirectTCFilter); the tap's name: utils of the same.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

TAP = "tap0_kata"
_REDIRECT = """
for pair in "eth0 {tap}" "{tap} eth0"; do
    set -- $pair
    tc qdisc add dev $1 ingress
    tc filter add dev $1 parent ffff: protocol all u32 match u32 0 0 \\
        action mirred egress redirect dev $2
done
"""


class Guest:
    """The inside of the machine of one pod."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def run(self, *command: str) -> str:
        """Run a program in the guest's network; return what it printed."""
        return inside(self._pid, *command)


@contextmanager
def machine(pod: int) -> Iterator[Guest]:
    """Give the pod of the process `pod` a guest with its addresses and routes, and its link."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo up; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        guest = Guest(running.pid)
        (link,) = json.loads(inside(pod, "ip", "-j", "address", "show", "eth0"))
        routes = json.loads(inside(pod, "ip", "-j", "route"))
        mac = link["address"]
        add = ("ip", "link", "add", TAP, "up", "type", "veth")
        inside(pod, *add, "peer", "name", "eth0", "address", mac, "netns", str(running.pid))
        guest.run("ip", "link", "set", "lo", "up")
        guest.run("ip", "link", "set", "eth0", "up")
        for each in link["addr_info"]:
            if each["family"] == "inet":
                address = f"{each['local']}/{each['prefixlen']}"
                guest.run("ip", "address", "add", address, "dev", "eth0")
        for each in sorted(routes, key=lambda route: "gateway" in route):
            via = ("via", each["gateway"], "onlink") if "gateway" in each else ()
            guest.run("ip", "route", "replace", each["dst"], *via, "dev", "eth0")
        inside(pod, "sh", "-ec", _REDIRECT.format(tap=TAP))
        try:
            yield guest
        finally:
            inside(pod, "sh", "-c", f"tc qdisc del dev eth0 ingress; ip link del {TAP}")
            running.kill()


def inside(pid: int, *command: str) -> str:
    """Run a program in the network of a process; return what it printed."""
    enter = ("nsenter", "--target", str(pid), "--net", "--")
    ran = subprocess.run([*enter, *command], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
    return ran.stdout
