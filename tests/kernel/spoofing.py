"""Scenarios: one pod speaks in the name of another; each way of it that we know.

The stand-in for NMI tells the address that it sees beside the verdict. An attacker that is answered
at all has held a conversation under the victim's address: without attestation it would have had the
victim's token.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from tests.kernel.agent import uid
from tests.kernel.sources import BRIDGE_NETFILTER
from tests.kernel.topology import PODS, Agent, Imds, command, inside
from tests.kernel.welcomed import welcomed

_LISTENING = 5000
_URL = "http://169.254.169.254/"


async def spoofing(*, cgroups: str = "") -> dict[str, Any]:
    """Pod p1 attacks p2, with CAP_NET_RAW and then with CAP_NET_ADMIN."""
    imds = Imds()
    async with imds.serving(), Agent.running(cgroup_root=cgroups):
        found = {
            "ordinary": await _in_pod("p2", "curl", "-s", _URL, cgroups=cgroups),
            "no cgroup": await _in_pod("p2", "curl", "-s", _URL),
            "arp": await _attack("arp", cgroups=cgroups),
            "mac": await _attack("mac", cgroups=cgroups),
        }
        with inside("p2", lambda: socket.create_server(("0.0.0.0", _LISTENING))):  # noqa: S104
            found["arp, listening"] = await _attack(
                "arp", "--port", str(_LISTENING), cgroups=cgroups
            )
        if BRIDGE_NETFILTER.exists():
            # Else our own rules would find a packet in the name of IMDS that is forwarded.
            await command("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
        found["welcomed by a server"] = await welcomed(cgroups=cgroups)
        found["address"] = await _attack("address", cgroups=cgroups, capability="net_admin")
        # The owner's neighbour entry is put right: what is asked here is what the proof does.
        mac = await _mac("p2")
        neighbour = (PODS["p2"], "lladdr", mac, "dev", "cbr0", "nud", "permanent")
        await command("ip", "neigh", "replace", *neighbour)
        found["owner"] = await _in_pod("p2", "curl", "-s", _URL, cgroups=cgroups)
    return found | {"leaked": len(imds.seen)}


async def _attack(trick: str, *more: str, cgroups: str, capability: str = "net_raw") -> Any:
    allowed = "-all,+net_raw" if capability == "net_raw" else "-all,+net_raw,+net_admin"
    forger = (sys.executable, "-m", "podidentity_sandbox.demo.forger")
    how = ("--trick", trick, "--claim", PODS["p2"], "--path", f"/{trick}", *more)
    program = ("setpriv", f"--bounding-set={allowed}", *forger, *how)
    return json.loads((await _in_pod("p1", *program, cgroups=cgroups))["body"])


async def _in_pod(pod: str, *program: str, cgroups: str = "") -> Any:
    """Run a program in a pod, and in its cgroup, if there are any; return its JSON output."""
    procs = f"{cgroups}/kubepods/burstable/pod{uid(pod)}/main/cgroup.procs"
    join = ("sh", "-c", 'echo 0 > "$0" && exec "$@"', procs) if cgroups else ()
    return json.loads(await command(*join, *program, netns=pod))


async def _mac(pod: str) -> str:
    links = json.loads(await command("ip", "-j", "link", "show", "eth0", netns=pod))
    return str(links[0]["address"])
