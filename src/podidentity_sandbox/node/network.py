"""The node's pod network, in the shape of kubenet: a bridge, and a pair of interfaces a pod.

The bridge learns hardware addresses as any switch does, so that a pod which forges its neighbour's
address really gets its answers: what the product must withstand is possible here. No address is
translated anywhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from podidentity_sandbox.node.spec import PodSpec
from podidentity_sandbox.node.syscalls import BIND, RECURSIVE, SHARED, mount
from podidentity_sandbox.plan import NodePlan

BRIDGE = "cbr0"
NAMESPACES = Path("/run/netns")


class NetworkFailed(Exception):
    """`ip` refused; the text says what."""


class AddressPool:
    """The pod addresses of a node, given out in turn, so that one is not soon another pod's."""

    def __init__(self, cidr: str, gateway: str) -> None:
        network = ipaddress.ip_network(cidr)
        self._free = [str(host) for host in network.hosts() if str(host) != gateway]
        self.prefix = network.prefixlen

    def take(self) -> str:
        """Return an address that no pod has; raise NetworkFailed when there is none."""
        if not self._free:
            raise NetworkFailed("no pod address is free on this node")
        return self._free.pop(0)

    def give_back(self, address: str) -> None:
        """Let another pod have it, after all the others that are free."""
        self._free.append(address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A pod's place in the network."""

    address: str
    namespace: str
    """File of its network namespace, named as containerd names them; "" for the node's."""
    interface: str = ""
    """The node's end."""


class PodNetwork:
    """Attaches pods to the node."""

    def __init__(self, node: NodePlan) -> None:
        self._node = node
        self._pool = AddressPool(node.pod_cidr, node.gateway)
        # One after the other: the kernel has one lock for all of this anyway.
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Make the bridge; an earlier kubelet's goes, and its pods' interfaces with it."""
        await self._turn.acquire()
        try:
            _share_namespaces()
            if BRIDGE in (name for _, name in socket.if_nameindex()):
                await _ip(f"link del {BRIDGE}")
            await _ip(
                f"link add {BRIDGE} type bridge",
                f"addr add {self._node.gateway}/{self._pool.prefix} dev {BRIDGE}",
                f"link set {BRIDGE} up",
            )
        finally:
            self._turn.release()

    async def attach(self, pod: PodSpec) -> Attachment:
        """Make a network namespace for the pod, with an address; raise NetworkFailed.

        A pod of the node's own network is given the node's.
        """
        if pod.host_network:
            return Attachment(address=self._node.address, namespace="")
        address = self._pool.take()
        name = f"cni-{uuid.uuid4()}"
        made = Attachment(
            address=address,
            namespace=str(NAMESPACES / name),
            interface=f"veth{pod.uid.replace('-', '')[:8]}",
        )
        async with self._turn:
            try:
                await _ip(
                    f"netns add {name}",
                    f"link add {made.interface} up master {BRIDGE} type veth"
                    f" peer name eth0 netns {name}",
                )
                await _ip(
                    "link set lo up",
                    f"addr add {address}/{self._pool.prefix} dev eth0",
                    "link set eth0 up",
                    f"route add default via {self._node.gateway}",
                    namespace=name,
                )
            except NetworkFailed:
                with suppress(NetworkFailed):
                    await _ip(f"netns del {name}")
                self._pool.give_back(address)
                raise
        return made

    async def detach(self, attachment: Attachment) -> None:
        """Take it away again."""
        if not attachment.namespace:
            return
        async with self._turn:
            # The interface first: a namespace takes its own down only some time after its end.
            # A pod that may change its network may have taken it away itself.
            with suppress(NetworkFailed):
                await _ip(f"link del {attachment.interface}")
            await _ip(f"netns del {Path(attachment.namespace).name}")
        self._pool.give_back(attachment.address)


def _share_namespaces() -> None:
    """Make /run/netns a mount whose later mounts reach the containers that ask for it.

    `ip netns add` does so at the first namespace, which may be after NMI has started.
    """
    NAMESPACES.mkdir(parents=True, exist_ok=True)
    mount(str(NAMESPACES), str(NAMESPACES), flags=BIND | RECURSIVE)
    mount("none", str(NAMESPACES), flags=SHARED | RECURSIVE)


async def _ip(*commands: str, namespace: str = "") -> None:
    where = ("-n", namespace) if namespace else ()
    process = await asyncio.create_subprocess_exec(
        "ip",
        *where,
        "-batch",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate("\n".join(commands).encode() + b"\n")
    if process.returncode:
        raise NetworkFailed(f"ip: {said.decode(errors='replace').strip()} ({'; '.join(commands)})")
