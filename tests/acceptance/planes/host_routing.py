"""Stand-ins for programs that send pods' packets past the host's netfilter.

    python3 -m tests.acceptance.planes.host_routing LINK UPLINK [KIND [alone]]

Run in a node's network: a program at the ingress of the node's end of a pod's link sends what is
for 169.254.169.254 out of the uplink at once, and one at the uplink sends the answers on to pods;
with `alone` there is no such one. It prints `attached`, and stays until its standard input is
closed. Cilium's eBPF host routing sends requests in two ways (fib_redirect_v4 in bpf/lib/fib.h):

    single       one device in the node: `redirect_neigh` without a next hop (ENABLE_SKIP_FIB)
    looked-up    several: `fib_lookup`, and what has no unicast route is dropped (DROP_NO_FIB)

    next-hop     (default) what no program of Cilium does: the next hop is named without any lookup

Layouts: struct __sk_buff, bpf_redir_neigh and bpf_fib_lookup of <linux/bpf.h>. TCX needs Linux 6.6.
https://docs.cilium.io/en/stable/operations/performance/tuning/#ebpf-host-routing
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from pathlib import Path

from tests.acceptance.planes.bpf import Instruction, attach, load

_SCHED_CLS, _TCX_INGRESS = 3, 46
_REDIRECT_NEIGH, _FIB_LOOKUP = 152, 69
_FOUND, _NO_NEIGHBOUR = 0, 7
"""BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_NO_NEIGH."""
_NEXT, _DROP = -1, 2
"""TCX_NEXT: the packet goes its usual way; TCX_DROP."""
_IMDS = 0xA9FEA9FE
_SOURCE, _DESTINATION = 14 + 12, 14 + 16
"""Offsets in a frame with an IPv4 header."""
_OF_IP = socket.htons(0x0800)
_EXIT = (0x95, 0x00, 0, 0)


def of_requests(sending: list[Instruction]) -> list[Instruction]:
    """Return the program at the pod's link: `sending` for packets to IMDS."""
    return [
        (0xBF, 0x16, 0, 0),  # r6 = r1, the packet, where the old load looks for it
        (0x61, 0x12, 16, 0),  # r2 = its protocol
        (0x55, 0x02, len(sending) + 2, _OF_IP),  # if r2 is not IPv4 goto next
        (0x20, 0x00, 0, _DESTINATION),  # r0 = its destination
        (0x56, 0x00, len(sending), _IMDS),  # if r0 is not IMDS goto next
        *sending,
        (0xB7, 0x00, 0, _NEXT),  # next:
        _EXIT,
    ]


def of_answers(pods: int, node: int) -> list[Instruction]:
    """Return the program at the uplink: what IMDS sends to others than the node goes to pods."""
    sending = single(pods, 0)
    return [
        (0xBF, 0x16, 0, 0),
        (0x61, 0x12, 16, 0),
        (0x55, 0x02, len(sending) + 4, _OF_IP),
        (0x20, 0x00, 0, _SOURCE),
        (0x56, 0x00, len(sending) + 2, _IMDS),
        (0x20, 0x00, 0, _DESTINATION),
        (0x16, 0x00, len(sending), node),
        *sending,
        (0xB7, 0x00, 0, _NEXT),
        _EXIT,
    ]


def single(uplink: int, _: int) -> list[Instruction]:
    return [
        (0xB7, 0x01, 0, uplink),
        (0xB7, 0x02, 0, 0),
        (0xB7, 0x03, 0, 0),
        (0xB7, 0x04, 0, 0),
        (0x85, 0x00, 0, _REDIRECT_NEIGH),
        _EXIT,  # with the helper's word
    ]


def next_hop(uplink: int, gateway: int) -> list[Instruction]:
    return [
        (0x62, 0x0A, -24, socket.AF_INET),  # a bpf_redir_neigh on the stack
        (0x62, 0x0A, -20, gateway),
        *((0x62, 0x0A, offset, 0) for offset in (-16, -12, -8)),
        (0xB7, 0x01, 0, uplink),
        *_by_next_hop(),
    ]


def looked_up(_uplink: int, _gateway: int) -> list[Instruction]:
    sending = [
        (0x61, 0xA1, -56, 0),  # r1 = the interface that was found
        (0x61, 0xA2, -32, 0),  # the next hop, which stands where the destination was
        (0x62, 0x0A, -24, socket.AF_INET),
        (0x63, 0x2A, -20, 0),
        *((0x62, 0x0A, offset, 0) for offset in (-16, -12, -8)),
        *_by_next_hop(),
    ]
    return [
        *((0x62, 0x0A, offset, 0) for offset in range(-64, 0, 4)),
        (0x72, 0x0A, -64, socket.AF_INET),  # a bpf_fib_lookup on the stack: family
        (0x61, 0x62, 40, 0),  # the link
        (0x63, 0x2A, -56, 0),
        (0x20, 0x00, 0, _SOURCE),
        (0xDC, 0x00, 0, 32),  # in network order
        (0x63, 0x0A, -48, 0),
        (0x62, 0x0A, -32, socket.htonl(_IMDS)),
        (0xBF, 0x61, 0, 0),
        (0xBF, 0xA2, 0, 0),
        (0x07, 0x02, 0, -64),
        (0xB7, 0x03, 0, 64),
        (0xB7, 0x04, 0, 0),
        (0x85, 0x00, 0, _FIB_LOOKUP),
        (0x15, 0x00, 3, _FOUND),  # goto sending
        (0x15, 0x00, 2, _NO_NEIGHBOUR),
        (0xB7, 0x00, 0, _DROP),
        _EXIT,
        *sending,
    ]


def _by_next_hop() -> list[Instruction]:
    """Send by the interface in r1 and the next hop on the stack."""
    return [
        (0xBF, 0xA2, 0, 0),
        (0x07, 0x02, 0, -24),
        (0xB7, 0x03, 0, 20),
        (0xB7, 0x04, 0, 0),
        (0x85, 0x00, 0, _REDIRECT_NEIGH),
        _EXIT,
    ]


KINDS: Mapping[str, Callable[[int, int], list[Instruction]]] = {
    "single": single,
    "looked-up": looked_up,
    "next-hop": next_hop,
}


def gateway_of(uplink: str) -> int:
    """Return the default gateway, as it is in memory."""
    for line in Path("/proc/net/route").read_text().splitlines():
        name, destination, gateway, *_ = line.split()
        if (name, destination) == (uplink, "00000000"):
            return int(gateway, 16)
    raise SystemExit(f"no default route by {uplink}")


def address_of(uplink: str) -> int:
    """Return the node's own address as a number."""
    (link,) = json.loads(subprocess.check_output(["ip", "-j", "-4", "addr", "show", uplink]))
    return int(IPv4Address(link["addr_info"][0]["local"]))


def way_to_pods(link: str) -> int:
    """Return the interface by which the node reaches the pod: the link, or the bridge it is of."""
    (found,) = json.loads(subprocess.check_output(["ip", "-j", "link", "show", link]))
    return socket.if_nametoindex(found.get("master", link))


def attached(program: list[Instruction], link: int) -> None:
    """Have a program at the ingress of a link."""
    loaded = load(program, kind=_SCHED_CLS, attach_type=_TCX_INGRESS, name=b"host_routing")
    attach(loaded, link, _TCX_INGRESS)


if __name__ == "__main__":
    link, uplink, *chosen = sys.argv[1:]
    kind, *alone = chosen or ["next-hop"]
    out = socket.if_nametoindex(uplink)
    sending = KINDS[kind](out, gateway_of(uplink))
    attached(of_requests(sending), socket.if_nametoindex(link))
    if not alone:
        attached(of_answers(way_to_pods(link), address_of(uplink)), out)
    print("attached", flush=True)  # noqa: T201 - who started it waits for it
    sys.stdin.read()
