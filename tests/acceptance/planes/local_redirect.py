"""The programs of a stand-in for Cilium with eBPF host routing and a local redirect policy.

    python3 -m tests.acceptance.planes.local_redirect WAY ROUTING UPLINK CGROUP

Run in a node's network. `WAY` is how Cilium redirects, which depends on its settings:

    packets   at the pod's link (bpf_lxc.c), and back for answers
    sockets   at connect(2) (bpf_sock.c, socket load balancing); getpeername(2) tells the old
              address, and who has the backend in his own network namespace is left out

At each pod's link there is, in this order: the redirection of packets, the policy of denial, and
host routing (`host_routing`), which sends what is for 169.254.169.254 out of the uplink. So what is
not redirected goes on to IMDS, as with Cilium. A connection keeps what its SYN got.

Lines on standard input tell what to do (`planes.cilium` decides it); each is answered `done`:

    pod ADDRESS                  attach to the link to which the node routes this address
    state ADDRESS PORT FLAGS     the backend, 0.0.0.0 for none. Flags are `empty` (a frontend
                                 without a backend: nobody answers), `imds` and `all` (denied)

Sources: bpf/bpf_sock.c, bpf/bpf_lxc.c, bpf/lib/lb.h of cilium/cilium. Layouts: struct __sk_buff,
bpf_sock_addr and bpf_sock_tuple of <linux/bpf.h>. TCX needs Linux 6.6.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.planes import bpf
from tests.acceptance.planes.bpf import Line, assemble, of_map
from tests.acceptance.planes.host_routing import KINDS, gateway_of

_SCHED_CLS, _TCX_INGRESS, _TCX_EGRESS = 3, 46, 47
_SOCK_ADDR, _CONNECT, _GETPEERNAME = 18, 10, 29
_LOOKUP, _UPDATE, _DELETE, _STORE, _L3_SUM, _L4_SUM = 1, 2, 3, 9, 10, 11
_COOKIE, _LOOKUP_SOCKET, _RELEASE = 46, 84, 86
_NEXT, _DROP = -1, 2
_REJECT, _PROCEED = 0, 1
_IMDS = 0xA9FEA9FE
_IMDS_RAW, _PORT_RAW = socket.htonl(_IMDS), socket.htons(80)
"""IMDS's address and port as they are in memory."""
_OF_IP = socket.htons(0x0800)
_PROTOCOL, _IP_SUM, _SOURCE, _DESTINATION = 14 + 9, 14 + 10, 14 + 12, 14 + 16
_SOURCE_PORT, _DESTINATION_PORT, _FLAGS, _TCP_SUM = 34, 36, 34 + 13, 34 + 16
"""Offsets in a frame with an IPv4 header without options, and a TCP header."""
_PSEUDO_HEADER = 0x10
_SYN, _SYN_OR_ACK = 0x02, 0x12
_STATE = struct.Struct("=IIIII")
"""The backend's address and port as they are in memory, and a number other than 0 for each flag."""
_ADDRESS, _PORT, _EMPTY, _DENY, _DENY_ALL = 0, 4, 8, 12, 16
_FLAG_NAMES = ("empty", "imds", "all")
_EXIT: Line = (0x95, 0x00, 0, 0)
_USER_IP4, _USER_PORT, _USER_PROTOCOL = 4, 24, 36


class Maps(NamedTuple):
    """What the programs share."""

    state: int
    connections: int
    """The backend of each connection, by the pod's address and port."""
    sockets: int
    """The backend of each socket, by its cookie."""


def _call(helper: int) -> Line:
    return (0x85, 0x00, 0, helper)


def _load_state(state: int, otherwise: str) -> list[Line]:
    """Have the state in r7."""
    return [
        (0x62, 0x0A, -4, 0),
        (0xBF, 0xA2, 0, 0),
        (0x07, 0x02, 0, -4),
        *of_map(1, state),
        _call(_LOOKUP),
        (0x15, 0x00, otherwise, 0),
        (0xBF, 0x07, 0, 0),
    ]


def _load_key(address: int, port: int) -> list[Line]:
    """Have the pod's end of a connection on the stack, from these places of the frame."""
    return [
        (0x20, 0x00, 0, address),
        (0x63, 0x0A, -16, 0),
        (0x28, 0x00, 0, port),
        (0x63, 0x0A, -12, 0),
    ]


def _with_key(helper: int, connections: int) -> list[Line]:
    value: list[Line] = [(0xBF, 0xA3, 0, 0), (0x07, 0x03, 0, -24), (0xB7, 0x04, 0, 0)]
    return [
        (0xBF, 0xA2, 0, 0),
        (0x07, 0x02, 0, -16),
        *of_map(1, connections),
        *(value if helper == _UPDATE else ()),
        _call(helper),
    ]


def _only_tcp(otherwise: str) -> list[Line]:
    return [
        (0x30, 0x00, 0, 14),
        (0x55, 0x00, otherwise, 0x45),
        (0x30, 0x00, 0, _PROTOCOL),
        (0x55, 0x00, otherwise, socket.IPPROTO_TCP),
    ]


def _replace(place: int, size: int, register: int, of_imds: int, *, back: bool) -> list[Line]:
    """Replace an address or a port at a place of the frame, and mend the sums.

    That of IMDS by the backend's, which is in a register; or `back`.
    """
    theirs = register << 4
    to_backend: list[Line] = [(0xB4, 0x03, 0, of_imds), (0xBC, theirs | 4, 0, 0)]
    to_imds: list[Line] = [(0xBC, theirs | 3, 0, 0), (0xB4, 0x04, 0, of_imds)]
    is_address = size == 4
    sums = [(_TCP_SUM, _L4_SUM, size | is_address * _PSEUDO_HEADER)]
    sums += [(_IP_SUM, _L3_SUM, size)] * is_address
    mended: list[Line] = []
    for where, helper, flags in sums:
        mended += [(0xBF, 0x61, 0, 0), (0xB7, 0x02, 0, where)]
        mended += to_imds if back else to_backend
        mended += [(0xB7, 0x05, 0, flags), _call(helper)]
    new: Line = (0x62, 0x0A, -32, of_imds) if back else (0x63, theirs | 0xA, -32, 0)
    return [
        *mended,
        new,
        (0xBF, 0x61, 0, 0),
        (0xB7, 0x02, 0, place),
        (0xBF, 0xA3, 0, 0),
        (0x07, 0x03, 0, -32),
        (0xB7, 0x04, 0, size),
        (0xB7, 0x05, 0, 0),
        _call(_STORE),
    ]


def leaving_pod(maps: Maps, sending: Sequence[Line], *, redirects: bool) -> list[Line]:
    """Return the program for what a pod sends: `sending` is host routing."""
    return [
        (0xBF, 0x16, 0, 0),
        (0x61, 0x12, 16, 0),
        (0x55, 0x02, "next", _OF_IP),
        *_load_state(maps.state, "next"),
        (0x61, 0x71, _DENY_ALL, 0),
        (0x55, 0x01, "drop", 0),
        (0x20, 0x00, 0, _DESTINATION),
        (0x56, 0x00, "elsewhere", _IMDS),
        *(_to_backend(maps) if redirects else ()),
        "policy",
        (0x61, 0x71, _DENY, 0),
        (0x55, 0x01, "drop", 0),
        *sending,
        "drop",
        (0xB7, 0x00, 0, _DROP),
        _EXIT,
        "elsewhere",
        *(_forget(maps) if redirects else ()),
        "next",
        (0xB7, 0x00, 0, _NEXT),
        _EXIT,
    ]


def _forget(maps: Maps) -> list[Line]:
    """Forget the connection that had the port of one that begins: its answers stay as they are."""
    return [
        *_only_tcp("next"),
        *_load_key(_SOURCE, _SOURCE_PORT),
        (0x30, 0x00, 0, _FLAGS),
        (0x57, 0x00, 0, _SYN_OR_ACK),
        (0x55, 0x00, "next", _SYN),
        *_with_key(_DELETE, maps.connections),
    ]


def _to_backend(maps: Maps) -> list[Line]:
    """Redirect a connection that begins while there is a backend, or did."""
    return [
        *_only_tcp("policy"),
        (0x28, 0x00, 0, _DESTINATION_PORT),
        (0x55, 0x00, "policy", 80),
        *_load_key(_SOURCE, _SOURCE_PORT),
        (0x30, 0x00, 0, _FLAGS),
        (0x57, 0x00, 0, _SYN_OR_ACK),
        (0x15, 0x00, "begins", _SYN),
        *_with_key(_LOOKUP, maps.connections),
        (0x15, 0x00, "policy", 0),
        (0x61, 0x09, 0, 0),
        (0x61, 0x08, 4, 0),
        (0x05, 0x00, "translate", 0),
        "begins",
        (0x61, 0x71, _EMPTY, 0),
        (0x55, 0x01, "drop", 0),
        (0x61, 0x79, _ADDRESS, 0),
        (0x61, 0x78, _PORT, 0),
        (0x55, 0x09, "remember", 0),
        *_with_key(_DELETE, maps.connections),
        (0x05, 0x00, "policy", 0),
        "remember",
        (0x63, 0x9A, -24, 0),
        (0x63, 0x8A, -20, 0),
        *_with_key(_UPDATE, maps.connections),
        "translate",
        *_replace(_DESTINATION, 4, 9, _IMDS_RAW, back=False),
        *_replace(_DESTINATION_PORT, 2, 8, _PORT_RAW, back=False),
        # Behind it the policy sees the node, which it does not deny.
        (0x05, 0x00, "next", 0),
    ]


def coming_to_pod(maps: Maps) -> list[Line]:
    """Return the program for what a pod gets: answers of the backend become those of IMDS."""
    return [
        (0xBF, 0x16, 0, 0),
        (0x61, 0x12, 16, 0),
        (0x55, 0x02, "next", _OF_IP),
        *_only_tcp("next"),
        *_load_key(_DESTINATION, _DESTINATION_PORT),
        *_with_key(_LOOKUP, maps.connections),
        (0x15, 0x00, "next", 0),
        (0x61, 0x09, 0, 0),
        (0x61, 0x08, 4, 0),
        (0x20, 0x00, 0, _SOURCE),
        (0xDC, 0x00, 0, 32),
        (0x5E, 0x90, "next", 0),
        (0x28, 0x00, 0, _SOURCE_PORT),
        (0xDC, 0x00, 0, 16),
        (0x5E, 0x80, "next", 0),
        *_replace(_SOURCE, 4, 9, _IMDS_RAW, back=True),
        *_replace(_SOURCE_PORT, 2, 8, _PORT_RAW, back=True),
        "next",
        (0xB7, 0x00, 0, _NEXT),
        _EXIT,
    ]


def connecting(maps: Maps) -> list[Line]:
    """Return the program at connect(2)."""
    return [
        (0xBF, 0x16, 0, 0),
        (0x61, 0x62, _USER_IP4, 0),
        (0x56, 0x02, "next", _IMDS_RAW),
        (0x61, 0x62, _USER_PORT, 0),
        (0x56, 0x02, "next", _PORT_RAW),
        (0x61, 0x62, _USER_PROTOCOL, 0),
        (0x56, 0x02, "next", socket.IPPROTO_TCP),
        *_load_state(maps.state, "next"),
        (0x61, 0x71, _EMPTY, 0),
        (0x55, 0x01, "reject", 0),
        (0x61, 0x79, _ADDRESS, 0),
        (0x61, 0x78, _PORT, 0),
        (0x15, 0x09, "next", 0),
        # Whoever has the backend in his own network is not led to himself.
        (0x62, 0x0A, -24, 0),
        (0x63, 0x9A, -20, 0),
        (0x6A, 0x0A, -16, 0),
        (0x6B, 0x8A, -14, 0),
        (0xBF, 0x61, 0, 0),
        (0xBF, 0xA2, 0, 0),
        (0x07, 0x02, 0, -24),
        (0xB7, 0x03, 0, 12),
        (0xB7, 0x04, 0, -1),
        (0xB7, 0x05, 0, 0),
        _call(_LOOKUP_SOCKET),
        (0x15, 0x00, "lead", 0),
        (0xBF, 0x01, 0, 0),
        _call(_RELEASE),
        (0x05, 0x00, "next", 0),
        "lead",
        (0xBF, 0x61, 0, 0),
        _call(_COOKIE),
        (0x7B, 0x0A, -16, 0),
        (0x63, 0x9A, -24, 0),
        (0x63, 0x8A, -20, 0),
        *_with_key(_UPDATE, maps.sockets),
        (0x63, 0x96, _USER_IP4, 0),
        (0x63, 0x86, _USER_PORT, 0),
        "next",
        (0xB7, 0x00, 0, _PROCEED),
        _EXIT,
        "reject",
        (0xB7, 0x00, 0, _REJECT),
        _EXIT,
    ]


def naming_peer(maps: Maps) -> list[Line]:
    """Return the program at getpeername(2)."""
    return [
        (0xBF, 0x16, 0, 0),
        (0xBF, 0x61, 0, 0),
        _call(_COOKIE),
        (0x7B, 0x0A, -16, 0),
        *_with_key(_LOOKUP, maps.sockets),
        (0x15, 0x00, "next", 0),
        (0x61, 0x62, _USER_IP4, 0),
        (0x61, 0x03, 0, 0),
        (0x5D, 0x32, "next", 0),
        (0xB4, 0x02, 0, _IMDS_RAW),
        (0x63, 0x26, _USER_IP4, 0),
        (0xB4, 0x02, 0, _PORT_RAW),
        (0x63, 0x26, _USER_PORT, 0),
        "next",
        (0xB7, 0x00, 0, _PROCEED),
        _EXIT,
    ]


def state_of(address: str, port: int, flags: Sequence[str]) -> bytes:
    """Return the state as the programs read it."""
    (raw,) = struct.unpack("=I", socket.inet_aton(address))
    return _STATE.pack(raw, socket.htons(port), *(each in flags for each in _FLAG_NAMES))


def link_to(address: str) -> int:
    """Return the index of the link to which alone the node routes an address; 0: there is none."""
    wanted = socket.inet_aton(address)[::-1].hex().upper()
    for line in Path("/proc/net/route").read_text().splitlines():
        name, destination, *_, mask = line.split()[:8]
        if (destination, mask) == (wanted, "FFFFFFFF"):
            return socket.if_nametoindex(name)
    return 0


def _run(way: str, routing: str, uplink: str, cgroup: str) -> None:
    maps = Maps(
        bpf.create_map(bpf.ARRAY, key=4, value=_STATE.size, entries=1),
        bpf.create_map(bpf.HASH, key=8, value=8, entries=1 << 14),
        bpf.create_map(bpf.HASH, key=8, value=8, entries=1 << 14),
    )
    index = socket.if_nametoindex(uplink)
    sending = KINDS[routing](index, gateway_of(uplink))
    packets = way == "packets"
    classifier = [(_TCX_INGRESS, leaving_pod(maps, sending, redirects=packets))]
    if packets:
        classifier.append((_TCX_EGRESS, coming_to_pod(maps)))
    else:
        folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        for where, lines in ((_CONNECT, connecting(maps)), (_GETPEERNAME, naming_peer(maps))):
            loaded = bpf.load(
                assemble(lines), kind=_SOCK_ADDR, attach_type=where, name=b"socket_lb"
            )
            bpf.attach(loaded, folder, where)
    loaded_at = [
        (where, bpf.load(assemble(lines), kind=_SCHED_CLS, attach_type=where, name=b"from_pod"))
        for where, lines in classifier
    ]
    attached: set[int] = set()
    print("attached", flush=True)  # noqa: T201 - who started it waits for it
    for line in sys.stdin:
        word, *given = line.split()
        if word == "pod":
            link = link_to(given[0])
            if link and link not in attached:
                attached.add(link)
                for where, program in loaded_at:
                    bpf.attach(program, link, where)
        else:
            address, port, *flags = given
            bpf.update(maps.state, struct.pack("=I", 0), state_of(address, int(port), flags))
        print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    _run(*sys.argv[1:])
