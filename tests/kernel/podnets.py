"""Scenarios: `PodNetworks` and pods that vanish, flap and hold too many addresses."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

from podidentity.kernel.netlink import FIRST_OF_OURS
from podidentity.kernel.podnets import PodNetworks
from tests.kernel.topology import PODS, command

NETNS = Path("/run/netns")


class Seconds:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def vanishing() -> dict[str, Any]:
    """A file of the folder is listed and cannot be found a moment later, as at the end of a pod."""
    networks = PodNetworks(NETNS)
    networks.refresh()
    (NETNS / "short").symlink_to("/run/gone")
    await command("ip", "netns", "add", "late")
    found = [networks.refresh(), networks.failure, len(networks)]
    networks.close()
    return {"seen": found}


async def folders() -> dict[str, Any]:
    """Two runtimes have a folder each; p2 moves to the other, p1 is in both, p4 comes there."""
    other = Path("/run/others")
    await command("mkdir", str(other))
    for name in ("p1", "p2"):
        await command("sh", "-e", "-c", _MOUNTED.format(name=name))
    await command("ip", "netns", "del", "p2")
    networks = PodNetworks(NETNS, other)
    networks.refresh()

    def held() -> list[int]:
        return [len(networks.holders(address)) for address in PODS.values()]

    found: dict[str, Any] = {"both": [held(), len(networks)]}
    await command("ip", "netns", "add", "p4")
    await command("sh", "-e", "-c", _MOUNTED.format(name="p4"))
    await command("ip", "netns", "del", "p4")
    networks.refresh()
    found["one more"] = len(networks)
    await command("sh", "-e", "-c", "umount /run/others/p2; rm /run/others/p2")
    networks.refresh()
    found["one less"] = [held(), len(networks)]
    networks.close()
    missing = PodNetworks(NETNS, Path("/run/nowhere"))
    missing.refresh()
    found["missing"] = missing.failure
    missing.close()
    return found


async def descriptors() -> dict[str, Any]:
    """Return the descriptors that three pods take: those that libnftables could use, and all."""

    def low() -> tuple[int, int]:
        numbers = [int(each) for each in os.listdir("/proc/self/fd")]  # noqa: PTH208
        return sum(each < FIRST_OF_OURS for each in numbers), len(numbers)

    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * FIRST_OF_OURS, 2 * FIRST_OF_OURS))
    networks = PodNetworks(NETNS)
    before = low()
    networks.refresh()
    after = low()
    networks.close()
    return {"low": after[0] - before[0], "all": after[1] - before[1]}


_MOUNTED = "touch /run/others/{name}; mount --bind /run/netns/{name} /run/others/{name}"


async def flapping() -> dict[str, Any]:
    """Pod p1 changes its addresses all the time, and stops."""
    clock = Seconds()
    networks = PodNetworks(NETNS, monotonic=clock)
    networks.refresh()
    flaps = "".join("addr add 10.9.0.1/32 dev lo\naddr del 10.9.0.1/32 dev lo\n" for _ in range(20))
    held = []
    for _ in range(30):
        await command("sh", "-c", f"ip -n p1 -batch - <<END\n{flaps}END")
        networks.refresh()
        held.append(len(networks.holders(PODS["p1"])))
    began = time.perf_counter()
    quiet = [networks.refresh() for _ in range(100)]
    took = time.perf_counter() - began
    others = [len(networks.holders(PODS[name])) for name in ("p2", "p3")]
    clock.now += 1
    networks.refresh()
    found = {
        "held": held,
        "others": others,
        "quiet": any(quiet),
        "us": took * 1e4,
        "after": len(networks.holders(PODS["p1"])),
        "failure": networks.failure,
    }
    networks.close()
    return found


def _file(text: str) -> str:
    path = Path("/run/batch")
    path.write_text(text)
    return str(path)


async def crowded(*, addresses: int) -> dict[str, Any]:
    """Pod p1 takes hundreds or thousands of addresses, and gives them back."""
    clock = Seconds()
    networks = PodNetworks(NETNS, monotonic=clock)
    networks.refresh()
    found: dict[str, Any] = {}

    def note(what: str) -> None:
        networks.refresh()
        held = {name: len(networks.holders(PODS[name])) for name in ("p1", "p2")}
        found[what] = [held, networks.failure]

    note("before")
    many = "\n".join(
        f"addr add 10.{20 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}/32 dev lo"
        for n in range(addresses)
    )
    await command("ip", "-n", "p1", "-batch", _file(many))
    note("crowded")
    clock.now += 60
    note("still crowded")
    await command("ip", "addr", "flush", "dev", "lo", netns="p1")
    note("at once")
    clock.now += 60
    note("after")
    networks.close()
    return found
