"""Scenario: from which network namespace a probe is sent, while others claim the pod's address."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys
from pathlib import Path
from typing import Any

from podidentity.kernel.attestation import MARK, ConnectionInspector
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.sock_diag import Endpoint
from tests.kernel.agent import uid
from tests.kernel.topology import PODS, command

NETNS = Path("/run/netns")
_SIOCGSKNS = 0x894C
"""linux/sockios.h: the network namespace of a socket."""
_HOLD = (
    f"import socket, sys; held = socket.create_server({tuple(MARK)});"
    " print('held', flush=True); sys.stdin.read()"
)


async def probing(*, cgroups: str = "") -> dict[str, Any]:
    """Pod p1 is the probe pod; p2 takes its address, and listens where it does."""
    looked_up = PodCgroups(Path(cgroups)) if cgroups else None
    inspector = ConnectionInspector(
        netns_dirs=[NETNS], cgroups=looked_up, listener=Endpoint("169.254.25.79", 2579)
    )

    def where(address: str, pod: str = "") -> str:
        made = inspector.bound_socket(address, pod)
        if isinstance(made, str):
            return made
        with made:
            assert made.getsockname()[0] == address
            return f"in {_name(made)}"

    p1 = PODS["p1"]
    found = {"not yet": where(p1, uid("p1")), "a tenant's pod": where(PODS["p2"])}
    first = await _hold("p1", cgroups)
    found["it runs"] = where(p1, uid("p1"))
    await command("ip", "addr", "add", f"{p1}/32", "dev", "lo", netns="p2")
    thief = await _hold("p2", cgroups)
    found["another has its address"] = where(p1, uid("p1"))
    found["and nothing tells them apart"] = where(p1)
    networks = {each.name: each.key for each in inspector.networks.holders(p1)}
    inspector.bound_to = lambda _: networks["p1"]
    found["the filter ties it to its port"] = where(p1)
    inspector.bound_to = lambda _: networks["p2"]
    found["the thief was first at the port"] = where(p1, uid("p1"))
    inspector.bound_to = lambda _: None
    await _end(first)
    found["it has ended"] = where(p1, uid("p1"))
    await _end(thief)
    found["no pod"] = where("10.244.0.99")
    found["IPv6"] = where("fd00::1")
    inspector.close()
    return found


def _name(made: socket.socket) -> str:
    """Return the name of a socket's namespace."""
    namespace = fcntl.ioctl(made.fileno(), _SIOCGSKNS)
    try:
        inode = os.fstat(namespace).st_ino
    finally:
        os.close(namespace)
    (name,) = [each.name for each in NETNS.iterdir() if each.stat().st_ino == inode]
    return name


async def _hold(pod: str, cgroups: str) -> asyncio.subprocess.Process:
    """Have a process of a pod listen where the probe pod does."""
    procs = f"{cgroups}/kubepods/burstable/pod{uid(pod)}/main/cgroup.procs"
    join = ("sh", "-c", 'echo 0 > "$0" && exec "$@"', procs) if cgroups else ()
    pipe = asyncio.subprocess.PIPE
    held = await asyncio.create_subprocess_exec(
        *("nsenter", f"--net={NETNS / pod}", *join, sys.executable, "-c", _HOLD),
        stdin=pipe,
        stdout=pipe,
    )
    assert held.stdout is not None
    assert await held.stdout.readline() == b"held\n"
    return held


async def _end(held: asyncio.subprocess.Process) -> None:
    assert held.stdin is not None
    held.stdin.close()
    await held.wait()
