"""Scenario: processes of the node itself connect to NMI, and the kernel says whose they are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from podidentity.core.attestation import AttestationMode, judge_local
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from tests.kernel.agent import uid
from tests.kernel.topology import inside

_LISTENER = ("127.0.0.1", 2579)
_CLIENT = f"import socket, sys; s = socket.create_connection({_LISTENER}); sys.stdin.read()"
_NOBODY = 65534


async def local(*, cgroups: str = "") -> dict[str, Any]:
    """Connections from the node's namespace, by whom and in which state."""
    found: dict[str, Any] = {}
    mode = AttestationMode.KERNEL if cgroups else AttestationMode.NAMESPACE
    inspector = ConnectionInspector(
        netns_dir=Path("/run/netns"),
        cgroups=PodCgroups(Path(cgroups)) if cgroups else None,
        listener=Endpoint(Redirect().target, 2579),
        host_listener=Endpoint(*_LISTENER),
    )

    def prove(what: str, peer: tuple[str, int]) -> None:
        proof = judge_local(inspector.local_facts(*peer), mode)
        found[what] = [proof.verdict, proof.pod_uid, proof.root]

    with socket.create_server(_LISTENER) as listening, contextlib.closing(inspector):
        async with _process(listening) as peer:
            prove("root", peer)
        if cgroups:
            procs = f"{cgroups}/kubepods/burstable/pod{uid('p1')}/main/cgroup.procs"
            join = ("sh", "-c", 'echo 0 > "$0" && exec "$@"', procs)
            async with _process(listening, *join) as peer:
                prove("a pod of the node's network", peer)
            async with _process(listening, "setpriv", f"--reuid={_NOBODY}") as peer:
                prove("nobody", peer)
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
async def _process(listening: socket.socket, *join: str) -> AsyncIterator[tuple[str, int]]:
    """Start a process that connects; yield where it comes from."""
    process = await asyncio.create_subprocess_exec(
        *join, sys.executable, "-c", _CLIENT, stdin=asyncio.subprocess.PIPE
    )
    accepted, peer = await asyncio.to_thread(listening.accept)
    with accepted:
        yield peer
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()
