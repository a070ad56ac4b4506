"""A node with the real `net` on it, and a client that has it prove new connections, one by one.

It is process 1 of namespaces of its own (`bench.proof`).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from podidentity import __version__
from podidentity.adapters.net import NetClient
from podidentity.core.attestation import AttestationMode, Proof, Verdict, judge
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from podidentity.net.main import run
from podidentity.net.plan import NetPlan
from tests.kernel.agent import WallClock, pod, uid
from tests.kernel.topology import IMDS, build, inside

_FOLDER = Path("/run/net")
_NETNS = Path("/run/netns")
_PODS = 110
_QUESTION = 100
"""Bytes of a question with its envelope, roughly."""
_REDIRECT = Redirect()


def main(network: str, cgroups: Path, connections: int) -> None:
    """Print the microseconds of each proof, as JSON."""
    build(network)
    _more_pods()
    _FOLDER.mkdir()
    if not os.fork():
        _net(cgroups)
        os._exit(0)
    # A socket belongs to the cgroup of the process that made it.
    (cgroups / "kubepods" / "burstable" / f"pod{uid('p1')}" / "main" / "cgroup.procs").write_text(
        "0"
    )
    print(json.dumps(asyncio.run(_measure(cgroups, connections))))


def _more_pods() -> None:
    words = "".join(
        f"ip netns add more-{n}\nip -n more-{n} addr add 10.244.1.{n + 1}/32 dev lo\n"
        for n in range(_PODS - 3)
    )
    subprocess.run(["sh", "-ec", words], check=True)


def _net(cgroups: Path) -> None:
    plan = NetPlan(
        node="node",
        redirect=_REDIRECT,
        attestation=AttestationMode.KERNEL,
        guards_bridges=True,
        netns_dirs=(_NETNS,),
        cgroup_root=cgroups,
        socket=_FOLDER / "net.sock",
        serve_user=0,
        lock_folder=None,
        handover_folder=None,
        removes=False,
    )
    asyncio.run(run(plan))


async def _measure(cgroups: Path, connections: int) -> dict[str, list[float]]:
    inspector = ConnectionInspector(
        netns_dirs=[_NETNS],
        cgroups=PodCgroups(cgroups),
        listener=Endpoint(_REDIRECT.target, _REDIRECT.listen_port),
    )
    client = NetClient(
        _FOLDER / "net.sock", WallClock(), version=__version__, mode=AttestationMode.KERNEL
    )
    running = asyncio.create_task(client.run())
    while client.problems() or client.interception_problems() or not client.sources_guarded:
        await client.changed()
    took: dict[str, list[float]] = {"through net": [], "in one process": []}
    candidates = [pod("p1")]
    with socket.create_server((_REDIRECT.target, _REDIRECT.listen_port)) as listening:
        for number in range(connections):
            with inside("p1", socket.socket) as asking:
                asking.connect(IMDS)
                accepted, (address, port) = listening.accept()
                with accepted:
                    began = time.perf_counter()
                    if number % 2:
                        proof = await client.prove(address, port, candidates)
                    else:
                        facts = inspector.facts(address, port)
                        proof = judge(facts, candidates, AttestationMode.KERNEL)
                    ended = time.perf_counter()
            _must_prove(proof)
            took["through net" if number % 2 else "in one process"].append((ended - began) * 1e6)
    running.cancel()
    inspector.close()
    return took | {"bare hop": _bare_hops(connections // 2)}


def _bare_hops(times: int) -> list[float]:
    """Return the microseconds that a packet of a question's size takes to another process and back.

    It is the control: nothing that asks another process is faster on this machine.
    """
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        near.close()
        while packet := far.recv(_QUESTION):
            far.send(packet)
        os._exit(0)
    far.close()
    took = []
    with near:
        for _ in range(times):
            began = time.perf_counter()
            near.send(bytes(_QUESTION))
            near.recv(_QUESTION)
            took.append((time.perf_counter() - began) * 1e6)
    os.wait()
    return took


def _must_prove(proof: Proof) -> None:
    if proof.verdict is not Verdict.PROVEN:
        sys.exit(f"a connection was not proved: {proof.verdict}: {proof.detail}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
