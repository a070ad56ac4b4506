"""What happens in a world of `topology`; each function returns what was seen, for tests to judge.

Run as a program in a new world: `python -m tests.kernel.scenarios NAME SETTINGS`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from podidentity.kernel.fence import Fence, InterceptionError
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sysctl import PROC_SYS_NET
from tests.kernel import (
    drifting,
    local,
    podnets,
    proving,
    sources,
    spoofing,
    stale,
    unprovable,
)
from tests.kernel.topology import GATEWAY, Agent, Client, Imds, ask, build, command, inside

NODE = "/proc/self/ns/net"
_BRIDGE_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


async def interception(*, bridge_netfilter: int) -> dict[str, Any]:
    """The rules come, the agent goes in each way it can, they stay, and at last are removed."""
    await asyncio.to_thread(_set_bridge_netfilter, bridge_netfilter)
    imds = Imds()
    found: dict[str, Any] = {}
    async with imds.serving():
        found["before"] = await ask("p1", "/before")
        kept = Client("p2")
        found["kept before"] = await kept.get("/kept-before")
        async with Agent.running() as agent:
            found["kept after"] = await kept.get("/kept-after")
            found["pods"] = [await ask(pod, f"/{pod}") for pod in ("p1", "p2", "p3")]
            found["node"] = await ask(NODE, "/node")
            await agent.tell("deafen")
            found["deaf"] = await ask("p1", "/deaf")
        found["killed"] = await ask("p1", "/killed")
        found["nft"] = await command("nft", "-s", "list", "table", "ip", "podid")
        found["ip rule"] = await command("ip", "rule")
        await command("nft", "flush", "ruleset")
        found["flushed"] = await ask("p1", "/flushed", seconds=0.5)
        found["node, flushed"] = await ask(NODE, "/node-flushed")
        async with Agent.running(guard=False) as agent:
            found["again"] = await ask("p1", "/again")
            found["left"] = await agent.tell("remove")
            found["removed"] = await ask("p1", "/removed")
            found["remains"] = [await command("nft", "list", "tables"), await command("ip", "rule")]
    return found | {"reached imds": imds.seen}


def _set_bridge_netfilter(value: int) -> None:
    """Set whether bridged packets pass iptables' hooks too; kernels without that have no file."""
    if _BRIDGE_NETFILTER.exists():
        _BRIDGE_NETFILTER.write_text(str(value))


async def loopback() -> dict[str, Any]:
    """A pod with NET_ADMIN tries the node's loopback, with the guard and without."""
    await command("ip", "addr", "del", "127.0.0.1/8", "dev", "lo", netns="p1")
    setting = "/proc/sys/net/ipv4/conf/all/route_localnet"
    await command("sh", "-c", f"echo 1 >{setting}", netns="p1")
    await command("ip", "route", "add", "127.0.0.1", "via", GATEWAY, netns="p1")
    found: dict[str, Any] = {}
    with socket.create_server(("127.0.0.1", 9999)):
        async with Agent.running(guard=False) as agent:
            await command("nft", "flush", "chain", "ip", "podid", "guard_pre")
            found["unguarded"] = await _to_loopback()
            await agent.tell("install")
            found["guarded"] = await _to_loopback()
            found["agent"] = await ask("p2", "/agent")
    return found


async def _to_loopback() -> str:
    """Connect from p1 to what listens on the node's loopback."""
    client = inside("p1", socket.socket)
    client.setblocking(False)
    with client:
        client.bind(("10.244.0.11", 0))
        try:
            async with asyncio.timeout(1):
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", 9999))
        except TimeoutError:
            return "dropped"
    return "connected"


async def privileges(
    *, capabilities: list[str], cgroup: str = "", cgroup_root: str = "/sys/fs/cgroup"
) -> Any:
    """What the kernel package can do with just these capabilities, in this cgroup."""
    join = ("sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', cgroup) if cgroup else ()
    allowed = ",".join(["-all", *(f"+{each}" for each in capabilities)])
    program = (sys.executable, "-m", "tests.kernel.privileges", cgroup_root)
    return json.loads(await command(*join, "setpriv", f"--bounding-set={allowed}", *program))


async def read_only() -> str:
    """What install says where /proc/sys is read-only, as it is in containers."""
    await command("mount", "--bind", "/proc/sys", "/proc/sys")
    await command("mount", "-o", "remount,bind,ro", "/proc/sys")
    try:
        Fence(Redirect(), PROC_SYS_NET).install()
    except InterceptionError as error:
        return str(error)
    return ""


SCENARIOS: dict[str, Callable[..., Awaitable[Any]]] = {
    "interception": interception,
    "loopback": loopback,
    "privileges": privileges,
    "read_only": read_only,
    "drift": drifting.drift,
    "unguarded": drifting.unguarded,
    "replaces": drifting.replaces,
    "edits": drifting.edits,
    "unrepaired": drifting.unrepaired,
    "rivals": drifting.rivals,
    "storm": drifting.storm,
    "spoofing": spoofing.spoofing,
    "states": proving.states,
    "cost": proving.cost,
    "changes": proving.changes,
    "absent": proving.absent,
    "local": local.local,
    "stale": stale.stale,
    "unprovable": unprovable.unprovable,
    "propagation": unprovable.propagation,
    "vanishing": podnets.vanishing,
    "flapping": podnets.flapping,
    "crowded": podnets.crowded,
    "theft": sources.theft,
    "learning": sources.learning,
    "changing": sources.changing,
    "life": sources.life,
    "absence": sources.absence,
    "strangers": sources.strangers,
    "routed": sources.routed,
    "source_drift": sources.drift,
}


async def main(scenario: str, settings: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(await SCENARIOS[scenario](**settings)))


if __name__ == "__main__":
    build()
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
