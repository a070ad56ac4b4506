"""A stand-in for the program of Azure's Metadata Security Protocol, at a cgroup of a test.

    python3 -m tests.acceptance.planes.security_protocol CGROUP

The guest proxy agent attaches it at the root of a machine's cgroups: a program at connect4 that
leads TCP connections to 169.254.169.254:80 to 127.0.0.1:3080, whoever makes them. This program
attaches the same at one folder of cgroup v2, prints `attached`, and stays until its standard input
is closed.

Source: Azure/GuestProxyAgent, linux-ebpf/ebpf_cgroup.c (authorize_v4). Layouts: union bpf_attr,
struct bpf_insn and struct bpf_sock_addr of <linux/bpf.h>. The release without connect6 is meant:
IPv6 sockets that connect to ::ffff:169.254.169.254 pass it.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

from tests.acceptance.planes.bpf import Instruction, attach, load

_SOCK_ADDR, _INET4_CONNECT = 18, 10
_ADDRESS, _PORT, _PROTOCOL = 4, 24, 36
_PROCEED = 1


def program() -> list[Instruction]:
    """Return the instructions."""
    imds, proxy = (_number(each) for each in ("169.254.169.254", "127.0.0.1"))
    return [
        (0x61, 0x12, _ADDRESS, 0),  # r2 = the address
        (0x56, 0x02, 8, imds),  # if it is not IMDS's goto proceed
        (0x61, 0x12, _PORT, 0),
        (0x56, 0x02, 6, socket.htons(80)),
        (0x61, 0x12, _PROTOCOL, 0),
        (0x56, 0x02, 4, socket.IPPROTO_TCP),
        (0xB4, 0x02, 0, proxy),
        (0x63, 0x21, _ADDRESS, 0),  # the address = r2
        (0xB4, 0x02, 0, socket.htons(3080)),
        (0x63, 0x21, _PORT, 0),
        (0xB4, 0x00, 0, _PROCEED),  # proceed:
        (0x95, 0x00, 0, 0),
    ]


def _number(address: str) -> int:
    """Return an address as it is in memory, read in the host's byte order."""
    return int(struct.unpack("=I", socket.inet_aton(address))[0])


if __name__ == "__main__":
    cgroup = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
    loaded = load(program(), kind=_SOCK_ADDR, attach_type=_INET4_CONNECT, name=b"connect4")
    attach(loaded, cgroup, _INET4_CONNECT)
    print("attached", flush=True)  # noqa: T201 - who started it waits for it
    sys.stdin.read()
