"""A stand-in for eBPF host routing, by which Cilium passes the host's netfilter.

    python3 -m tests.acceptance.planes.host_routing LINK UPLINK

Run in a node's network: a program at the ingress of the node's end of a pod's link sends what is
for 169.254.169.254 out of the uplink at once, by the helper with which Cilium does so. It prints
`attached`, and stays until its standard input is closed.

Layout: struct __sk_buff of <linux/bpf.h>. TCX needs Linux 6.6.
Source of the behaviour: https://docs.cilium.io/en/stable/operations/performance/tuning/#ebpf-host-routing
"""

from __future__ import annotations

import socket
import sys

from tests.acceptance.planes.bpf import Instruction, attach, load

_SCHED_CLS, _TCX_INGRESS = 3, 46
_REDIRECT_NEIGH = 152
_NEXT = -1
"""TCX_NEXT: the packet goes its usual way."""
_IMDS = 0xA9FEA9FE
_DESTINATION = 14 + 16
"""Offset of the destination in a frame with an IPv4 header."""


def program(uplink: int) -> list[Instruction]:
    """Return the instructions."""
    of_ip = socket.htons(0x0800)
    return [
        (0xBF, 0x16, 0, 0),  # r6 = r1, the packet, where the old load looks for it
        (0x61, 0x12, 16, 0),  # r2 = its protocol
        (0x55, 0x02, 8, of_ip),  # if r2 is not IPv4 goto next
        (0x20, 0x00, 0, _DESTINATION),  # r0 = its destination
        (0x56, 0x00, 6, _IMDS),  # if r0 is not IMDS goto next
        (0xB7, 0x01, 0, uplink),  # r1 = the uplink
        (0xB7, 0x02, 0, 0),
        (0xB7, 0x03, 0, 0),
        (0xB7, 0x04, 0, 0),
        (0x85, 0x00, 0, _REDIRECT_NEIGH),
        (0x95, 0x00, 0, 0),  # exit with the helper's word
        (0xB7, 0x00, 0, _NEXT),  # next:
        (0x95, 0x00, 0, 0),
    ]


if __name__ == "__main__":
    link, uplink = (socket.if_nametoindex(name) for name in sys.argv[1:])
    loaded = load(program(uplink), kind=_SCHED_CLS, attach_type=_TCX_INGRESS, name=b"host_routing")
    attach(loaded, link, _TCX_INGRESS)
    print("attached", flush=True)  # noqa: T201 - who started it waits for it
    sys.stdin.read()
