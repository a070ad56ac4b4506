"""Scenario: a mesh's proxy makes the connections of pods, in their own network namespaces.

The proxy's pod is p3, the victim p2, the attacker p1. The attacker may change its own network
(CAP_NET_ADMIN), and its connections go through the proxy, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.kernel.agent import uid
from tests.kernel.topology import PODS, Agent, Imds, command, remove_pod

_URL = "http://169.254.169.254/"


async def proxied(*, cgroups: str) -> dict[str, Any]:
    """Ask as a pod of the mesh does, and as those who would like to be taken for one."""
    imds = Imds()
    found: dict[str, Any] = {}

    def agent() -> contextlib.AbstractAsyncContextManager[Agent]:
        return Agent.running(cgroup_root=cgroups)

    async with imds.serving():
        async with agent():
            found["the pod itself"] = await _ask("p2", cgroups, of="p2")
            found["the proxy for itself"] = await _ask("p2", cgroups, of="p3")
        async with _ztunnel("p2", cgroups), _ztunnel("p1", cgroups):
            # Each is asked about by an agent that has seen no other client there.
            async with agent():
                found["a process of no pod"] = await _ask("p2", cgroups, of="")
            async with agent():
                found["another pod's process"] = await _ask("p2", cgroups, of="p1")
            async with agent(), _holding("p2", cgroups, of="p1"):
                found["beside another pod's client"] = await _ask("p2", cgroups, of="p2")
            async with agent():
                found["through the proxy"] = await _ask("p2", cgroups, of="p2")
                found["once more"] = await _ask("p2", cgroups, of="p2")
                found["another pod through the proxy"] = await _ask("p1", cgroups, of="p1")
                await _take_address()
                found["while another pod has its address"] = await _ask("p2", cgroups, of="p2")
        await command("ip", "neigh", "del", PODS["p2"], "dev", "cbr0")
        await remove_pod("p2")
        async with agent(), _ztunnel("p1", cgroups):
            claim = ("--interface", PODS["p2"])
            found["its address, taken after its end"] = await _ask("p1", cgroups, *claim, of="p1")
    return found | {"leaked": len(imds.seen)}


async def users(*, cgroups: str) -> dict[str, Any]:
    """As `hostUsers: false` makes it: a user namespace owns the network namespace of p2."""
    await remove_pod("p2")
    await command("sh", "-ec", _WITH_USERS.format(address=PODS["p2"]))
    imds = Imds()
    async with imds.serving(), Agent.running(cgroup_root=cgroups):
        found = {"itself": await _ask("p2", cgroups, of="p2")}
        async with _ztunnel("p2", cgroups):
            found["through the proxy"] = await _ask("p2", cgroups, of="p2")
        found["p2 deletes the link of p3"] = await _delete_link_of_p3("--target", _its_process())
        found["p3"] = (await _ask("p3", cgroups, of="p3"))["who"]
        found["p1 deletes the link of p3"] = await _delete_link_of_p3("--net=/run/netns/p1")
    owner = await command("sh", "-ec", _ITS_OWNER)
    return found | {"leaked": len(imds.seen), "its own users": owner.strip()}


def _its_process() -> str:
    """Return the number of the process that has the users of p2."""
    return Path("/run/p2").read_text().strip()


async def _delete_link_of_p3(*where: str) -> str:
    """Delete the node's end of p3's link from within a pod; return the kernel's answer.

    The pod has CAP_NET_ADMIN alone. It needs not know the node's network: its own link leads there,
    and so that has a number in the pod's (RTM_GETNSID in rtnetlink(7)).
    """
    enter = ("nsenter", *where, *(("--user", "--net") if where[0] == "--target" else ()))
    index = str(socket.if_nametoindex("v-p3"))
    may = ("setpriv", "--bounding-set=-all,+net_admin")
    return (await command(*enter, *may, sys.executable, "-c", _DELETE_LINK, index)).strip()


_DELETE_LINK = """
import errno, socket, struct, sys
from podidentity.kernel import netlink
RTM_DELLINK, IFLA_TARGET_NETNSID, THE_NODES = 17, 46, 0
link = struct.pack("=BxHiII", 0, 0, int(sys.argv[1]), 0, 0)
link += netlink.attribute(IFLA_TARGET_NETNSID, struct.pack("=i", THE_NODES))
route = netlink.connect(socket.NETLINK_ROUTE)
route.send(netlink.encode(RTM_DELLINK, netlink.NLM_F_REQUEST | netlink.NLM_F_ACK, 1, link))
answer, *_ = netlink.decode(route.recv(1 << 16))
print(errno.errorcode.get(answer.errno, "done"))
"""


_WITH_USERS = """
touch /run/netns/p2
unshare --user --map-root-user --net sh -c 'echo $$ >/run/p2; exec sleep infinity' >/dev/null 2>&1 &
while ! test -s /run/p2; do sleep 0.05; done
mount --bind /proc/$(cat /run/p2)/ns/net /run/netns/p2
ip link add v-p2 type veth peer name eth0 netns p2
ip link set v-p2 master cbr0 up
nsenter --net=/run/netns/p2 ip -batch - <<END
link set lo up
addr add {address}/24 dev eth0
link set eth0 up
route add default via 10.244.0.1
END
"""
_ITS_OWNER = """
ours=$(readlink /proc/self/ns/user)
its=$(readlink /proc/$(cat /run/p2)/ns/user)
test "$ours" = "$its" && echo no || echo yes
"""


async def _take_address() -> None:
    """Give p1 the address of p2, too; answers go on to p2, so that p2 can ask."""
    await command("ip", "address", "add", f"{PODS['p2']}/32", "dev", "eth0", netns="p1")
    links = json.loads(await command("ip", "-j", "link", "show", "eth0", netns="p2"))
    neighbour = (PODS["p2"], "lladdr", links[0]["address"], "dev", "cbr0", "nud", "permanent")
    await command("ip", "neigh", "replace", *neighbour)


async def _ask(netns: str, cgroups: str, *more: str, of: str) -> Any:
    """Ask in a network namespace as a process of the pod `of`; "" of none."""
    join = _join(cgroups, of)
    return json.loads(await command(*join, "curl", "-sm", "5", *more, _URL, netns=netns))


def _join(cgroups: str, pod: str) -> tuple[str, ...]:
    if not pod:
        return ()
    return ("sh", "-c", 'echo 0 > "$0" && exec "$@"', f"{_cgroup(cgroups, pod)}/cgroup.procs")


def _cgroup(cgroups: str, pod: str) -> str:
    return f"{cgroups}/kubepods/burstable/pod{uid(pod)}/main"


@contextlib.asynccontextmanager
async def _holding(netns: str, cgroups: str, *, of: str) -> AsyncIterator[None]:
    """Have a process of a pod hold a connection to IMDS."""
    hold = (
        "import socket; held = socket.create_connection(('169.254.169.254', 80));"
        "print('held', flush=True); held.recv(1)"
    )
    enter = ("nsenter", f"--net=/run/netns/{netns}", *_join(cgroups, of))
    process = await asyncio.create_subprocess_exec(
        *enter, sys.executable, "-c", hold, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _ztunnel(netns: str, cgroups: str) -> AsyncIterator[None]:
    """Have p3's process proxy the pod of a network namespace."""
    pipe = asyncio.subprocess.PIPE
    where = ("--netns", f"/run/netns/{netns}", "--cgroup", _cgroup(cgroups, "p3"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.kernel.ztunnel", *where), stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()
