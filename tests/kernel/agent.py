"""A stand-in for NMI, as a program: the kernel package's guard and attestor, and a tiny listener.

It answers each request with who the kernel says the caller is, and takes commands on its standard
input, one a line: `install`, `repairs N` (wait for so many), `checked` (wait for a check),
`healthy` (wait until there is no problem), `problems`, `deafen` (close the listener), `remove`,
`sources` (bring the source guard up to date), `unguard` (remove its rules).
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from podidentity.core.attestation import AttestationMode, judge
from podidentity.core.ports import Clock
from podidentity.core.resources import ObjectRef, Pod
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.interception import Interception
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from podidentity.kernel.source_guard import SourceGuard
from tests.kernel.topology import PODS, serve

UID = "00000000-0000-4000-8000-0000000000{}"
"""Uid of each pod, by the last two digits of its address."""


class WallClock:
    """Implements `core.ports.Clock` by the machine's clock."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def pod(name: str) -> Pod:
    """Return the pod of that name as the API server would know it."""
    address = PODS[name]
    return Pod(ref=ObjectRef("demo", name), uid=uid(name), addresses=(address,))


def uid(name: str) -> str:
    """Return the uid of the pod of that name."""
    return UID.format(PODS[name][-2:])


class Watched(Interception):
    """Tells when it has repaired something."""

    def __init__(self, redirect: Redirect, *, copy: bool, clock: Clock | None = None) -> None:
        super().__init__(redirect, clock or WallClock(), copy=copy)
        self._checked = asyncio.Event()

    async def check(self) -> bool:
        done = await super().check()
        self._checked.set()
        return done

    async def checked(self) -> None:
        """Return after the next check."""
        self._checked.clear()
        await self._checked.wait()

    async def healthy(self) -> None:
        """Return once a check has found nothing that it could not repair."""
        while self.problems():
            await self.checked()

    async def repaired(self, times: int) -> int:
        """Return how often, once it is so often."""
        while self.repairs < times:
            await self.checked()
        return self.repairs


class Node:
    """The kernel package as NMI holds it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        redirect = Redirect(**settings.get("redirect", {}))
        self.interception = Watched(redirect, copy=settings.get("copy", True))
        self.listener = (redirect.target, redirect.listen_port)
        root = settings.get("cgroup_root")
        self.mode = AttestationMode.KERNEL if root else AttestationMode.NAMESPACE
        self.inspector = ConnectionInspector(
            netns_dirs=[Path("/run/netns")],
            cgroups=PodCgroups(Path(root)) if root else None,
            listener=Endpoint(*self.listener),
        )
        self.sources = (
            SourceGuard(
                self.inspector.networks,
                redirect,
                WallClock(),
                copy=settings.get("copy", True),
                bridges=settings["source_guard"] != "off",
            )
            if settings.get("source_guard")
            else None
        )
        self._pods = [pod(name) for name in PODS]
        self.server: asyncio.Server | None = None

    def answer(self, peer: tuple[str, int], path: str) -> dict[str, object]:
        """Answer a request: without attestation, `peer` would be all that is known."""
        candidates = [each for each in self._pods if peer[0] in each.addresses]
        began = time.perf_counter()
        proof = judge(self.inspector.facts(*peer), candidates, self.mode)
        if proof.clients_decide:
            facts = self.inspector.facts(*peer, clients=True)
            proof = judge(facts, candidates, self.mode)
        return {
            "who": "agent",
            "peer": peer[0],
            "path": path,
            "verdict": proof.verdict,
            "uid": proof.pod_uid,
            "proxy": proof.proxy,
            "holders": proof.holders,
            "detail": proof.detail,
            "us": (time.perf_counter() - began) * 1e6,
        }

    async def obey(self, command: str, *arguments: str) -> object:
        """Do what a line of the standard input says."""
        match command:
            case "install":
                self.interception.install()
            case "repairs":
                return await self.interception.repaired(int(arguments[0]))
            case "checked":
                await self.interception.checked()
            case "healthy":
                await self.interception.healthy()
            case "problems":
                return self.interception.problems()
            case _:
                return self._obey(command)
        return None

    def _obey(self, command: str) -> object:
        match command:
            case "remove":
                return self.interception.remove()
            case "sources" if self.sources is not None:
                self.sources.refresh()
                return [self.sources.bound, self.sources.repairs, self.sources.problems()]
            case "unguard" if self.sources is not None:
                self.sources.remove()
            case "deafen" if self.server is not None:
                self.server.close()
        return None


async def main(settings: dict[str, Any]) -> None:
    node = Node(settings)
    node.interception.install()
    if settings.get("listen", True):
        listening = socket.create_server(node.listener, backlog=1024)
        node.server = await serve(listening, node.answer)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node.inspector.follow())]
        if settings.get("guard", True):
            tasks.append(group.create_task(node.interception.guard()))
        if node.sources is not None:
            node.sources.refresh()
            if settings.get("guard", True):
                tasks.append(group.create_task(node.sources.run()))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        commands = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(commands)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while line := await commands.readline():
            sys.stdout.write(json.dumps(await node.obey(*line.decode().split())) + "\n")
            sys.stdout.flush()
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
