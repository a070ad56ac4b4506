"""A stand-in for eBPF host routing, by which Cilium passes the host's netfilter.

    python3 -m tests.acceptance.planes.host_routing LINK UPLINK

Run in a node's network: a program at the ingress of the node's end of a pod's link sends what is
for 169.254.169.254 out of the uplink at once, by the helper with which Cilium does so. It prints
`attached`, and stays until its standard input is closed.

Layouts: union bpf_attr, struct bpf_insn and struct __sk_buff of <linux/bpf.h>. TCX needs Linux 6.6.
Source of the behaviour: https://docs.cilium.io/en/stable/operations/performance/tuning/#ebpf-host-routing
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys

_CALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _LINK_CREATE = 5, 28
_SCHED_CLS, _TCX_INGRESS = 3, 46
_REDIRECT_NEIGH = 152
_NEXT = -1
"""TCX_NEXT: the packet goes its usual way."""
_IMDS = 0xA9FEA9FE
_DESTINATION = 14 + 16
"""Offset of the destination in a frame with an IPv4 header."""


def program(uplink: int) -> bytes:
    """Return the instructions: each opcode, registers (source, target), offset, immediate."""
    of_ip = socket.htons(0x0800)
    code = (
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
    )
    return b"".join(
        struct.pack("=BBhI", *head, immediate & 0xFFFFFFFF) for *head, immediate in code
    )


def attach(link: int, uplink: int) -> tuple[int, int]:
    """Load the program and attach it; it holds as long as both descriptors are open."""
    code = ctypes.create_string_buffer(program(uplink))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(1 << 16)
    count = (len(code) - 1) // 8
    load = struct.pack(
        "=IIQQIIQII16sII",
        *(_SCHED_CLS, count, ctypes.addressof(code), ctypes.addressof(licence)),
        *(1, len(log), ctypes.addressof(log), 0, 0, b"host_routing", 0, _TCX_INGRESS),
    )
    try:
        loaded = _bpf(_PROG_LOAD, load)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {log.value.decode()}") from error
    made = struct.pack("=IIIIIIQ", loaded, link, _TCX_INGRESS, 0, 0, 0, 0)
    return loaded, _bpf(_LINK_CREATE, made)


def _bpf(command: int, attributes: bytes) -> int:
    held = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(_CALL[platform.machine()], command, held, len(attributes))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


if __name__ == "__main__":
    ends = [socket.if_nametoindex(name) for name in sys.argv[1:]]
    attach(*ends)
    print("attached", flush=True)  # noqa: T201 - who started it waits for it
    sys.stdin.read()
