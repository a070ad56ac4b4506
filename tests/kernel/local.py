"""Scenario: processes of the node itself connect to NMI, and the kernel says whose they are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from podidentity.core.attestation import AttestationMode, judge_local
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from tests.kernel.agent import uid
from tests.kernel.topology import ANSWERED, command, inside

_LISTENER = ("127.0.0.1", 2579)
_REDIRECTED = (Redirect().target, 2579)
_CLIENT = f"import socket, sys; s = socket.create_connection({_LISTENER}); sys.stdin.read()"
# A port may have a connection to each of our addresses, of another process each.
_SHARER = f"""
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
s.bind(("127.0.0.1", 0))
s.connect({_REDIRECTED})
sys.stdin.read()
"""
_NOBODY = 65534


async def local(*, cgroups: str = "") -> dict[str, Any]:
    """Connections from the node's namespace, by whom and in which state."""
    found: dict[str, Any] = {}
    mode = AttestationMode.KERNEL if cgroups else AttestationMode.NAMESPACE
    inspector = ConnectionInspector(
        netns_dirs=[Path("/run/netns")],
        cgroups=PodCgroups(Path(cgroups)) if cgroups else None,
        listener=Endpoint(*_REDIRECTED),
    )

    def prove(what: str, peer: tuple[str, int], own: str = _LISTENER[0]) -> None:
        proof = judge_local(inspector.local_facts(*peer, own), mode)
        found[what] = [proof.verdict, proof.pod_uid, proof.root]

    with socket.create_server(_LISTENER) as listening, contextlib.closing(inspector):
        async with _process(listening) as peer:
            prove("root", peer)
        if cgroups:
            procs = f"{cgroups}/kubepods/burstable/pod{uid('p1')}/main/cgroup.procs"
            join = ("sh", "-c", 'echo 0 > "$0" && exec "$@"', procs)
            async with _process(listening, *join) as peer:
                prove("a pod of the node's network", peer)
            nobody = ("setpriv", f"--reuid={_NOBODY}")
            async with _process(listening, *nobody) as peer:
                prove("nobody", peer)
            async with _process(listening, *join) as peer, _sharing(peer, *nobody) as same:
                prove("nobody, at a pod's port", same, _REDIRECTED[0])
                prove("the pod whose port it is", peer)
        with socket.create_connection(_LISTENER) as client:
            accepted, peer = listening.accept()
            client.shutdown(socket.SHUT_WR)
            prove("half-closed", peer)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        prove("reset", peer)
        accepted.close()
        prove("a port that nobody has", ("127.0.0.1", 1))
        with inside("p1", lambda: socket.create_server(_LISTENER)) as other:
            client = inside("p1", lambda: socket.create_connection(_LISTENER))
            with client:
                prove("a pod's own loopback", client.getsockname())
            other.close()
    return found


@contextlib.asynccontextmanager
async def _sharing(peer: tuple[str, int], *join: str) -> AsyncIterator[tuple[str, int]]:
    """Start a process that connects from there, too, to where pods are redirected to."""
    await command("ip", "address", "add", f"{_REDIRECTED[0]}/32", "dev", "lo")
    with socket.create_server(_REDIRECTED) as listening, _from_one_port(peer[1]):
        async with _process(listening, *join, program=_SHARER) as other:
            assert other == peer
            yield other


@contextlib.contextmanager
def _from_one_port(port: int) -> Iterator[None]:
    """Have connections of this network come from this port: one may share it with another's."""
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
    before = ports.read_text()
    ports.write_text(f"{port} {port}")
    try:
        yield
    finally:
        ports.write_text(before)


@contextlib.asynccontextmanager
async def _process(
    listening: socket.socket, *join: str, program: str = _CLIENT
) -> AsyncIterator[tuple[str, int]]:
    """Start a process that connects; yield where it comes from."""
    process = await asyncio.create_subprocess_exec(
        *join, sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE
    )
    listening.settimeout(ANSWERED)
    accepted, peer = await asyncio.to_thread(listening.accept)
    with accepted:
        yield peer
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()
