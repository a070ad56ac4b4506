"""The sandbox's network: Azure's fabric as a bridge, each node at the end of a cable to it.

The supervisor's own network namespace is Azure: its addresses are on `lo`, the bridge `fabric` is
the nodes' gateway. A node is a namespace with one interface, eth0; what is behind it (links, pods)
is its kubelet's business. Nothing is masqueraded: IMDS sees who asks. See `plan` for a drawing.
"""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from podidentity_sandbox.plan import (
    APISERVER_ADDRESS,
    AZURE_ADDRESS,
    DNS_ADDRESS,
    FABRIC_ADDRESS,
    IMDS_ADDRESS,
    KUBERNETES_ADDRESS,
    NodePlan,
    mac_of_bridge,
)

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_BACKLOG = 1024
"""Connections that wait while a server starts or is paused; the kernel's limit may be lower."""


def azure_script() -> str:
    """Return the commands for `ip -batch` that make Azure out of an empty namespace."""
    apiservers = (APISERVER_ADDRESS, KUBERNETES_ADDRESS)
    addresses = (IMDS_ADDRESS, AZURE_ADDRESS, DNS_ADDRESS, *apiservers)
    return _script(
        "link set lo up",
        *(f"address add {address}/32 dev lo" for address in addresses),
        f"link add fabric address {mac_of_bridge(FABRIC_ADDRESS)} type bridge",
        f"address add {FABRIC_ADDRESS}/24 dev fabric",
        "link set fabric up",
    )


def cable_script(node: NodePlan) -> str:
    """Return the commands that make a node's namespace and lay its cable, on Azure's side."""
    cable, mac = cable_of(node), mac_of_bridge(node.address)
    return _script(
        f"netns add {node.name}",
        # The same at each start: neighbours would send to another one for half a minute.
        f"link add {cable} type veth peer name eth0 address {mac} netns {node.name}",
        f"link set {cable} master fabric up",
        # "replace": the route of a node that was switched off is still there.
        f"route replace {node.pod_cidr} via {node.address}",
    )


def node_script(node: NodePlan) -> str:
    """Return the commands inside a node's namespace."""
    return _script(
        "link set lo up",
        f"address add {node.address}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {FABRIC_ADDRESS}",
    )


def cable_of(node: NodePlan) -> str:
    return f"node{node.index}"


def make_azure() -> None:
    _ip(azure_script())
    _FORWARD.write_text("1")


def make_node(node: NodePlan) -> None:
    """Make a node's namespace anew: as a machine that is switched off and on."""
    if Path("/run/netns", node.name).exists():
        # The cable goes with the namespace, but later than the command returns.
        _ip(f"link delete {cable_of(node)}\n", force=True)
        _ip(f"netns delete {node.name}\n")
    _ip(cable_script(node))
    _ip(node_script(node), namespace=node.name)


def listen_tcp(address: str, port: int) -> socket.socket:
    """Return a listening socket of this process's namespace; the kernel keeps early callers."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(_BACKLOG)
    return listener


def listen_udp(address: str, port: int) -> socket.socket:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((address, port))
    return receiver


def _script(*commands: str) -> str:
    return "\n".join(commands) + "\n"


def _ip(script: str, *, namespace: str | None = None, force: bool = False) -> None:
    inside = [] if namespace is None else ["-netns", namespace]
    subprocess.run(
        ["ip", *inside, *(["-force"] if force else []), "-batch", "-"],
        input=script.encode(),
        check=not force,
    )
