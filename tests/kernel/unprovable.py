"""Scenario: something is missing on the node, so that no caller can be proven."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from podidentity.core.attestation import AttestationMode, judge
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.interception import Interception
from podidentity.kernel.namespaces import unpropagated
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from tests.kernel.agent import WallClock, pod
from tests.kernel.topology import IMDS, command, inside

_NETNS = Path("/run/netns")
_COPY = Path("/run/copy")


async def unprovable() -> dict[str, Any]:
    """Return the verdict on a connection of p1 and the problems, for each thing that is missing."""
    redirect = Redirect()
    Interception(redirect, WallClock()).install()
    here = redirect.listener
    with socket.create_server(here) as listening, inside("p1", socket.socket) as client:
        client.connect(IMDS)
        accepted, peer = listening.accept()

        def found(netns: Path, cgroups: Path | None) -> list[Any]:
            with _inspector(here, netns, cgroups) as inspector:
                proof = judge(inspector.facts(*peer), [pod("p1")], AttestationMode.KERNEL)
                return [proof.verdict, proof.detail, list(inspector.problems())]

        await command("mkdir", "/run/empty")
        with accepted:
            return {
                "no cgroup v2": found(_NETNS, Path("/run/empty")),
                "not asked": found(_NETNS, None),
                "no namespaces": found(Path("/run/empty"), None),
                "no folder": found(Path("/run/nowhere"), None),
            }


@contextlib.contextmanager
def _inspector(here: Endpoint, netns: Path, cgroups: Path | None) -> Iterator[ConnectionInspector]:
    tree = PodCgroups(cgroups) if cgroups else None
    inspector = ConnectionInspector(netns_dirs=[netns], cgroups=tree, listener=here)
    with contextlib.closing(inspector):
        yield inspector


async def unseen() -> dict[str, Any]:
    """Return the verdict on a connection of p1, whose namespace does not come where it is sought.

    The folder is a copy that gets no new mounts; the file is there, a moment old. Once more where
    the copy gets them.
    """
    redirect = Redirect()
    Interception(redirect, WallClock()).install()
    here = redirect.listener
    await command("mount", "--rbind", str(_NETNS), str(_NETNS))
    await command("mount", "--make-rshared", str(_NETNS))
    found = {}
    with socket.create_server(here) as listening, inside("p1", socket.socket) as client:
        client.connect(IMDS)
        accepted, peer = listening.accept()
        with accepted:
            for kind in ("private", "slave"):
                await command("mkdir", "-p", str(_COPY))
                await command("mount", "--rbind", str(_NETNS), str(_COPY))
                await command("mount", f"--make-r{kind}", str(_COPY))
                await command("umount", str(_COPY / "p1"))
                await command("touch", "-d", "now", str(_COPY / "p1"))
                with _inspector(here, _COPY, None) as inspector:
                    proof = judge(inspector.facts(*peer), [pod("p1")], AttestationMode.NAMESPACE)
                    found[kind] = [proof.verdict, proof.detail]
                await command("umount", "-R", str(_COPY))
    return found


async def propagation() -> list[str]:
    """Return what is said of a copy of the folder of namespaces that gets no new mounts, or does.

    That is what a container has whose volume has mountPropagation None, or HostToContainer.
    """
    said = []
    # The node's folder is shared, as systemd makes it.
    await command("mount", "--rbind", str(_NETNS), str(_NETNS))
    await command("mount", "--make-rshared", str(_NETNS))
    for kind in ("private", "slave"):
        await command("mkdir", "-p", str(_COPY))
        await command("mount", "--rbind", str(_NETNS), str(_COPY))
        await command("mount", f"--make-r{kind}", str(_COPY))
        said.append(unpropagated(_COPY, seconds=0))
        await command("ip", "netns", "add", f"later-{kind}")
        await asyncio.sleep(0.01)  # ctime has the clock's granularity
        said.append(unpropagated(_COPY, seconds=0))
        await command("umount", "-R", str(_COPY))
    return said
