"""The node's pod network: a pair of interfaces for each pod, on a bridge or with a route.

As Azure CNI, its overlay and Calico make it (`Network.ROUTED`): the pod knows no neighbour, all it
sends goes to 169.254.1.1, for which the node's end of the link answers ARP; the node has a route of
/32 to each pod. As kubenet makes it (`Network.BRIDGE`): the bridge learns hardware addresses as any
switch does, so that a pod which forges its neighbour's address really gets its answers. What the
product must withstand is possible in both. No address is translated anywhere.

Source of the routed shape: Azure/azure-container-networking,
network/transparent_endpointclient_linux.go.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from podidentity_sandbox.node.spec import PodSpec
from podidentity_sandbox.node.syscalls import BIND, RECURSIVE, SHARED, mount
from podidentity_sandbox.plan import Network, NodePlan, mac_of_bridge

BRIDGE = "cbr0"
_AZURE = "azv"
NAMESPACES = Path("/run/netns")


class NetworkFailed(Exception):
    """`ip` refused; the text says what."""


class AddressPool:
    """The pod addresses of a node, given out in turn, so that one is not soon another pod's."""

    def __init__(self, cidr: str, gateway: str) -> None:
        network = ipaddress.ip_network(cidr)
        self._free = [str(host) for host in network.hosts() if str(host) != gateway]

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
        """Make what is there without pods; an earlier kubelet's pods lose their interfaces."""
        async with self._turn:
            _share_namespaces()
            await _ip(*commands_to_open(self._node, [name for _, name in socket.if_nameindex()]))

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
            interface=interface_of(self._node, pod.uid),
        )
        async with self._turn:
            try:
                await _ip(f"netns add {name}", *commands_to_link(self._node, made))
                if self._node.network is Network.ROUTED:
                    # This end of the link answers, at once, for each address behind another.
                    settings = Path("/proc/sys/net/ipv4")
                    (settings / "conf" / made.interface / "proxy_arp").write_text("1")
                    # In a user namespace of old kernels it is not there: up to 0.8 s late.
                    with suppress(FileNotFoundError):
                        (settings / "neigh" / made.interface / "proxy_delay").write_text("0")
                await _ip(*commands_in_pod(self._node, address), namespace=name)
            except (NetworkFailed, OSError) as error:
                with suppress(NetworkFailed):
                    await _ip(f"netns del {name}")
                self._pool.give_back(address)
                raise NetworkFailed(str(error)) from error
        return made

    async def detach(self, attachment: Attachment) -> None:
        if not attachment.namespace:
            return
        async with self._turn:
            # The interface first: a namespace takes its own down only some time after its end.
            # A pod that may change its network may have taken it away itself.
            with suppress(NetworkFailed):
                await _ip(f"link del {attachment.interface}")
            await _ip(f"netns del {Path(attachment.namespace).name}")
        self._pool.give_back(attachment.address)


# ---- What `ip` is told


def interface_of(node: NodePlan, uid: str) -> str:
    """Return the name of the node's end of a pod's link: as Azure CNI or as kubenet names it."""
    digits = uid.replace("-", "")
    return f"veth{digits[:8]}" if node.network is Network.BRIDGE else f"{_AZURE}{digits[:11]}"


def commands_to_open(node: NodePlan, links: Sequence[str]) -> list[str]:
    """Return how a node's network begins anew, where it has these links."""
    if node.network is Network.ROUTED:
        return [f"link del {name}" for name in links if name.startswith(_AZURE)]
    return [
        *([f"link del {BRIDGE}"] if BRIDGE in links else []),
        f"link add {BRIDGE} address {mac_of_bridge(node.gateway)} type bridge",
        f"addr add {node.gateway}/{ipaddress.ip_network(node.pod_cidr).prefixlen} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]


def commands_to_link(node: NodePlan, made: Attachment) -> list[str]:
    """Return how the node's end of a link is made, and the pod's end in its namespace."""
    master = f" master {BRIDGE}" if node.network is Network.BRIDGE else ""
    peer = f"type veth peer name eth0 netns {Path(made.namespace).name}"
    link = f"link add {made.interface} up{master} {peer}"
    return [link] if master else [link, f"route add {made.address}/32 dev {made.interface}"]


def commands_in_pod(node: NodePlan, address: str) -> list[str]:
    """Return how the pod's own end gets its address and its way out."""
    routed = node.network is Network.ROUTED
    length = 32 if routed else ipaddress.ip_network(node.pod_cidr).prefixlen
    return [
        "link set lo up",
        f"addr add {address}/{length} dev eth0",
        "link set eth0 up",
        *([f"route add {node.gateway} dev eth0 scope link"] if routed else []),
        f"route add default via {node.gateway} dev eth0",
    ]


def _share_namespaces() -> None:
    """Make /run/netns a mount whose later mounts reach the containers that ask for it.

    `ip netns add` does so at the first namespace, which may be after NMI has started.
    """
    NAMESPACES.mkdir(parents=True, exist_ok=True)
    mount(str(NAMESPACES), str(NAMESPACES), flags=BIND | RECURSIVE)
    mount("none", str(NAMESPACES), flags=SHARED | RECURSIVE)


async def _ip(*commands: str, namespace: str = "") -> None:
    if not commands:
        return
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
