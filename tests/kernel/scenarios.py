"""What happens in a world of `topology`; each function returns what was seen, for tests to judge.

Run as a program in a new world: `python -m tests.kernel.scenarios NETWORK NAME SETTINGS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from podidentity.kernel.interception import Interception, InterceptionError
from podidentity.kernel.rules import LINK_LOCAL, Redirect
from tests.kernel import (
    answers,
    drifting,
    exposures,
    handing,
    impostor,
    local,
    meddling,
    moving,
    podnets,
    probing,
    proving,
    proxied,
    readers,
    shares,
    sources,
    spoofing,
    stale,
    unprovable,
    uplinks,
)
from tests.kernel.agent import WallClock
from tests.kernel.topology import (
    AZURE_NETNS,
    GATEWAY,
    Agent,
    Client,
    Imds,
    ask,
    build,
    command,
    connected,
    inside,
    serve,
)

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
            await command("nft", _IMDS_RESTRICTION)
            found["pods"] = [await ask(pod, f"/{pod}") for pod in ("p1", "p2", "p3")]
            found["node"] = await ask(NODE, "/node")
            await agent.tell("deafen")
            found["deaf"] = await ask("p1", "/deaf", patience=3)
        found["killed"] = await ask("p1", "/killed")
        found["nft"] = await command("nft", "-s", "-t", "list", "table", "ip", "podid")
        found["ip rule"] = await command("ip", "-d", "rule")
        await command("nft", "flush", "ruleset")
        found |= {
            "flushed": await ask("p1", "/flushed", seconds=0.5),
            "node, flushed": await ask(NODE, "/node-flushed"),
        }
        async with Agent.running(guard=False) as agent:
            found["again"] = await ask("p1", "/again")
            kept_to_the_end = Client("p3")
            await kept_to_the_end.get("/kept-to-the-end")
            # While others have such chains, as kube-proxy has, kept connections stay redirected.
            await command("nft", _OTHER_NAT)
            found["node, with a service"] = await ask(NODE, "/node-service")
            found["left"] = await agent.tell("remove")
            found["removed"] = await ask("p1", "/removed")
            found["remains"] = [await command("nft", "list", "tables"), await command("ip", "rule")]
            found["kept after the end"] = await kept_to_the_end.get("/kept-after-the-end")
    return found | {"reached imds": imds.seen}


_IMDS_RESTRICTION = """
table ip restriction {
  chain forward {
    type filter hook forward priority filter;
    ip daddr 169.254.169.254 tcp dport 80 drop
  }
}
"""
"""What AKS's --enable-imds-restriction does to pods' packets, from a node's start on."""
_OTHER_NAT = """
table ip other {
  chain before {
    type nat hook prerouting priority dstnat;
  }
  chain local {
    type nat hook output priority -100;
    ip daddr 169.254.169.254 tcp dport 80 dnat to 10.244.0.11:80
  }
  chain after {
    type nat hook postrouting priority srcnat;
    oifname "eth0" masquerade
  }
}
"""
"""As kube-proxy's, with a Service in whose status somebody wrote the address of IMDS."""


def _set_bridge_netfilter(value: int) -> None:
    """Set whether bridged packets pass iptables' hooks too; kernels without that have no file."""
    if _BRIDGE_NETFILTER.exists():
        _BRIDGE_NETFILTER.write_text(str(value))


async def loopback() -> dict[str, Any]:
    """A pod with NET_ADMIN tries the node's loopback, which is open only where others open it."""
    await command("ip", "addr", "del", "127.0.0.1/8", "dev", "lo", netns="p1")
    setting = "/proc/sys/net/ipv4/conf/all/route_localnet"
    await command("sh", "-c", f"echo 1 >{setting}", netns="p1")
    await command("ip", "route", "add", "127.0.0.1", "via", GATEWAY, netns="p1")
    found: dict[str, Any] = {}
    with socket.create_server(("127.0.0.1", 9999)):
        async with Agent.running(guard=False, copy=False) as agent:
            await command("nft", "flush", "ruleset")
            found["nobody opens it"] = await _connect("p1", ("127.0.0.1", 9999))
            await command("sh", "-c", f"echo 1 >{setting}")
            found["unguarded"] = await _connect("p1", ("127.0.0.1", 9999))
            await agent.tell("install")
            found["guarded"] = await _connect("p1", ("127.0.0.1", 9999))
            found["agent"] = await ask("p2", "/agent")
    return found


async def target() -> dict[str, Any]:
    """Others than the redirected try the address that we redirect to; then it is taken away."""
    found: dict[str, Any] = {}
    azure = ("nsenter", f"--net={AZURE_NETNS}")
    await command(*azure, "ip", "route", "add", LINK_LOCAL, "via", "10.240.0.4")
    agents = (LINK_LOCAL, 2579)
    async with Agent.running(guard=False, copy=False) as agent:
        await command("nft", "flush", "chain", "ip", "podid", "guard_local")
        found["unguarded"] = [await _connect(each, agents) for each in ("p1", AZURE_NETNS)]
        await agent.tell("install")
        found["guarded"] = [await _connect(each, agents) for each in ("p1", AZURE_NETNS)]
        found["redirected"] = await ask("p1", "/redirected")

        # Another machine has that address.
        await command(*azure, "ip", "route", "del", LINK_LOCAL)
        await command(*azure, "ip", "addr", "add", LINK_LOCAL, "dev", "lo")
        elsewhere = inside(AZURE_NETNS, lambda: socket.create_server(agents))
        server = await serve(elsewhere, lambda _peer, _path: {"who": "elsewhere"})
        await command("ip", "addr", "del", f"{LINK_LOCAL}/32", "dev", "lo")
        found["taken away"] = await ask("p1", "/taken-away", seconds=0.5)
        await command("ip", "rule", "del", "pref", "5")
        found["with nothing behind it"] = await ask("p1", "/nothing-behind")
        server.close()
    return found


async def _connect(netns: str, to: tuple[str, int]) -> str:
    """Connect from a pod, or from the namespace at a path."""
    with inside(netns, socket.socket) as client:
        try:
            await connected(client, to, 1)
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


async def unserved() -> dict[str, Any]:
    """Rules come to a node on which another NMI redirects pods, and before anybody listens."""
    found: dict[str, Any] = {}
    imds = Imds()
    interception = Interception(Redirect(), WallClock())
    async with imds.serving():
        interception.close_imds()
        found["listens"] = [interception.listener_user()]
        found["closed"] = await ask("p1", "/closed", seconds=0.5)
        await command("nft", _OTHER_REDIRECTION)
        other = await serve(
            socket.create_server((GATEWAY, 2579)), lambda _peer, _path: {"who": "other"}
        )
        found["other"] = await ask("p1", "/other")
        ours = await serve(
            socket.create_server((LINK_LOCAL, 2579)), lambda _peer, _path: {"who": "ours"}
        )
        found["listens"].append(interception.listener_user())
        interception.install()
        found["ours"] = await ask("p1", "/ours")
        kept = Client("p2")
        await kept.get("/kept")
        interception.release(closed=True)
        found["given back"] = await ask("p1", "/given-back")
        # Now no rule of anybody but ours needs the kernel to follow connections.
        await command("nft", "delete table ip other")
        found["kept"] = await kept.get("/kept-after")
        found["left"] = [await ask("p1", "/left", seconds=0.5)]
        interception.remove(closed=True)
        found["left"].append(await ask("p1", "/removed", seconds=0.5))
        other.close()
        ours.close()
    return found | {"reached imds": imds.seen}


_OTHER_REDIRECTION = f"""
table ip other {{
  chain leading {{
    type nat hook prerouting priority dstnat;
    ip daddr 169.254.169.254 tcp dport 80 dnat to {GATEWAY}:2579
  }}
}}
"""


async def elsewhere() -> dict[str, Any]:
    """The address that we redirect to is another's; then it is not."""
    found: dict[str, Any] = {}
    async with Agent.running() as agent:
        await command("ip", "addr", "add", f"{LINK_LOCAL}/32", "dev", "cbr0")
        await command("ip", "addr", "del", f"{LINK_LOCAL}/32", "dev", "lo")
        while not (problems := await agent.tell("problems")):
            await agent.tell("checked")
        found["problems"] = problems
        await command("ip", "addr", "del", f"{LINK_LOCAL}/32", "dev", "cbr0")
        await agent.tell("healthy")
        found["agent"] = await ask("p1", "/agent")
    await command("ip", "addr", "add", f"{LINK_LOCAL}/32", "dev", "cbr0")
    await command("ip", "addr", "del", f"{LINK_LOCAL}/32", "dev", "lo")
    try:
        Interception(Redirect(), WallClock()).install()
    except InterceptionError as error:
        found["at the start"] = str(error)
    return found


async def upgrade() -> dict[str, Any]:
    """What podidentity 0.1 left behind is replaced, with nothing cut off or let through."""
    imds = Imds()
    await command("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet")
    await command("nft", _TABLE_OF_0_1)
    for rule in _ROUTING_RULES_OF_0_1:
        await command("ip", "rule", "add", *rule.split())
    found: dict[str, Any] = {}
    with contextlib.redirect_stderr(io.StringIO()) as said:
        logging.basicConfig(stream=said, force=True)
        interception = Interception(Redirect(), WallClock())
        interception.install()
        interception.install()
        found["said"] = said.getvalue()
    found["nft"] = await command("nft", "-s", "-t", "list", "table", "ip", "podid")
    found["ip rule"] = await command("ip", "-d", "rule")
    async with imds.serving():
        found["node"] = await ask(NODE, "/node")
        found["pod"] = await ask("p1", "/pod")
    found["localnet"] = await command("cat", "/proc/sys/net/ipv4/conf/all/route_localnet")
    return found


_TABLE_OF_0_1 = """
table ip podid {
  chain guard_pre {
    type filter hook prerouting priority raw; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 counter drop
  }
  chain intercept {
    type nat hook prerouting priority dstnat - 10; policy accept;
    ip daddr 169.254.169.254 tcp dport 80 counter dnat to 127.0.0.1:2579
  }
  chain guard_imds {
    type filter hook prerouting priority dstnat + 10; policy accept;
    ip daddr 169.254.169.254 tcp dport 80 counter reject with tcp reset
  }
}
"""
_ROUTING_RULES_OF_0_1 = (
    "pref 5 nop",
    "pref 3 iif lo goto 5",
    "pref 4 to 169.254.169.254 ipproto tcp dport 80 blackhole",
)


async def by_hand(*, commands: str) -> dict[str, Any]:
    """A person takes away what an agent left on the node, with these commands of a shell."""
    imds = Imds()
    found: dict[str, Any] = {}
    state = ("sh", "-c", "nft list tables; ip rule; ip -brief address show lo")
    before = await command(*state)
    async with imds.serving():
        async with Agent.running(source_guard=True) as agent:
            await agent.tell("sources")
        found["closed"] = (await ask("p1", "/closed", seconds=1))["why"]
        found["shown"] = await command("sh", "-ec", commands)
        found["left"] = sorted({*(await command(*state)).splitlines()} - {*before.splitlines()})
        found["opened"] = (await ask("p1", "/opened"))["who"]
    return found


SCENARIOS: dict[str, Callable[..., Awaitable[Any]]] = {
    "interception": interception,
    "loopback": loopback,
    "privileges": privileges,
    "target": target,
    "unserved": unserved,
    "elsewhere": elsewhere,
    "upgrade": upgrade,
    "by_hand": by_hand,
    "drift": drifting.drift,
    "unguarded": drifting.unguarded,
    "replaces": drifting.replaces,
    "edits": drifting.edits,
    "unrepaired": drifting.unrepaired,
    "rivals": drifting.rivals,
    "storm": drifting.storm,
    "misread": drifting.misread,
    "nameless": drifting.nameless,
    "undone": drifting.undone,
    "disputed": drifting.disputed,
    "undone_each_time": drifting.undone_each_time,
    "killed": exposures.killed,
    "shapes": exposures.shapes,
    "storms": exposures.storms,
    "spoofing": spoofing.spoofing,
    "redirected_ways": meddling.redirected_ways,
    "icmp_errors": meddling.errors,
    "expected": meddling.expected,
    "proxied": proxied.proxied,
    "users": proxied.users,
    "probing": probing.probing,
    "states": proving.states,
    "cost": proving.cost,
    "changes": proving.changes,
    "absent": proving.absent,
    "unwatched": proving.unwatched,
    "handing": handing.handing,
    "impostor": impostor.impostor,
    "local": local.local,
    "moving": moving.moving,
    "yielding": moving.yielding,
    "stale": stale.stale,
    "unprovable": unprovable.unprovable,
    "propagation": unprovable.propagation,
    "unseen": unprovable.unseen,
    "vanishing": podnets.vanishing,
    "descriptors": podnets.descriptors,
    "folders": podnets.folders,
    "flapping": podnets.flapping,
    "crowded": podnets.crowded,
    "answers": answers.answers,
    "theft": sources.theft,
    "learning": sources.learning,
    "changing": sources.changing,
    "life": sources.life,
    "absence": sources.absence,
    "swollen": sources.swollen,
    "twins": sources.twins,
    "unable": sources.unable,
    "source_flush": sources.flushed,
    "source_rivals": sources.rivals,
    "strangers": sources.strangers,
    "routed": sources.routed,
    "spanning": sources.spanning,
    "switched_off": sources.switched_off,
    "readers": readers.readers,
    "release_0_2": readers.release_0_2,
    "uplinks": uplinks.uplinks,
    "tunnelled": uplinks.tunnelled,
    "crowds": uplinks.crowds,
    "full": uplinks.full,
    "link_local": sources.link_local,
    "source_drift": sources.drift,
    "unwritten": sources.unwritten,
    "backlog": shares.backlog,
    "forgotten": shares.forgotten,
    "honest": shares.honest,
    "listening_on_the_node": shares.listening_on_the_node,
    "resets": shares.resets,
    "unshared": shares.unshared,
}


async def main(scenario: str, settings: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(await SCENARIOS[scenario](**settings)))


if __name__ == "__main__":
    build(sys.argv[1])
    asyncio.run(main(sys.argv[2], json.loads(sys.argv[3])))
