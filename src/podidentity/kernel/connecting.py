"""Notices programs that lead connections to IMDS elsewhere before there is any packet.

A program at a cgroup (connect4) rewrites the address at the call of connect(2), for each process
of the cgroup and of those below it. Azure's Metadata Security Protocol has one at the root of all
cgroups: it leads connections to 169.254.169.254:80 to 127.0.0.1:3080, where its proxy listens in
the node's network. In a pod that is the pod's own loopback. So no request of a pod comes to us, and
no rule, counter or log of the node shows it.

Such a program treats this process as it does the others. So we connect ourselves, and ask the
kernel for the other end of our socket. No packet leaves the node: SO_DONTROUTE permits neighbours
of a link only, and IMDS is behind a router. Where somebody says that it is none, one SYN is sent.

Source: Azure/GuestProxyAgent, linux-ebpf/ebpf_cgroup.c and proxy_agent/src/redirector/linux.rs.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from ipaddress import IPv4Address
from math import inf
from typing import TYPE_CHECKING

from podidentity.kernel.sock_diag import Endpoint

if TYPE_CHECKING:
    from podidentity.core.ports import Clock

LOOK_SECONDS = 5.0
"""Between two looks: a proxy is connected to each time."""

_SO_PEERNAME = 28
"""As getpeername(2), also for a connection that is not made yet or was refused (socket(7))."""
_ADDRESS = struct.Struct("=H2s4s8x")
"""sockaddr_in: family, port and address, both in network order (linux/in.h)."""
_PROXY = Endpoint("127.0.0.1", 3080)

_log = logging.getLogger(__name__)


class Connecting:
    """Looks every few seconds whether connections to `imds` are led elsewhere."""

    def __init__(self, imds: Endpoint, clock: Clock) -> None:
        self._imds = imds
        self._clock = clock
        self._due = -inf
        self._problems: tuple[str, ...] = ()

    def problems(self) -> tuple[str, ...]:
        """Return what the last look found; look again if that was some time ago."""
        now = self._clock.monotonic()
        if now >= self._due:
            self._due = now + LOOK_SECONDS
            self._look()
        return self._problems

    def _look(self) -> None:
        try:
            led = led_to(self._imds)
        except OSError as error:
            _log.warning("cannot see where connections to IMDS are led: %s", error)
            return
        found = (problem(self._imds, led),) if led else ()
        if found and found != self._problems:
            _log.error("%s", found[0])
        self._problems = found


def led_to(imds: Endpoint) -> Endpoint | None:
    """Return where a connection of this process to `imds` is led; None if nobody leads it.

    An address beyond the node is not found. Raises OSError.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connecting:
        connecting.setblocking(False)
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        connecting.connect_ex(imds)
        try:
            peer = connecting.getsockopt(socket.SOL_SOCKET, _SO_PEERNAME, _ADDRESS.size)
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return None  # there was no route to IMDS itself
            raise
    _, port, address = _ADDRESS.unpack(peer)
    found = Endpoint(socket.inet_ntoa(address), int.from_bytes(port, "big"))
    return None if found == imds else found


def problem(imds: Endpoint, led: Endpoint) -> str:
    """Return what it means that connections to `imds` are led elsewhere, with the next step."""
    what = f"a program of the node leads connections to {imds} to {led}"
    if not IPv4Address(led.address).is_loopback:
        return f"{what}, those of NMI too; have it leave out NMI's own"
    who = "Azure's Metadata Security Protocol" if led == _PROXY else "the program"
    return (
        f"{what}, which in a pod is the pod's own loopback: no request of a pod comes to NMI; turn "
        f"{who} off on machines whose pods have identities"
        + (" (securityProfile.proxyAgentSettings)" if led == _PROXY else "")
    )
