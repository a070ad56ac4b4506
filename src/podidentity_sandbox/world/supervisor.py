"""Process 1 of a sandbox: it makes the network, starts the parts, and ends all with itself.

It starts everything at once. Sockets listen before their servers exist, so a kubelet's first call
waits in the kernel until the API server takes it: no order, no polling. Programs of Kubernetes open
their own sockets, and end where they miss each other: they start one after the other, nodes last.

It takes orders over the Unix socket `world.sock` in the sandbox's folder, which lets in its owner
only. A client (`inspection.ask`) sends one JSON object a line, `{"op": …, "part": …}`, and gets one
back: what was asked for, or `{"error": …}`.

    status                 every part with its state, process number and memory
    pause, resume PART     it stops answering, and goes on: callers wait, nothing is lost
    kill PART              SIGKILL; `start` brings it back. The cluster's objects live in its memory
    start PART             and wait until it serves; a node starts as a machine that was switched on
    down                   end everything; the answer comes before the end
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import gc
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from podidentity_sandbox.kubernetes.nodes import SERVICES
from podidentity_sandbox.kubernetes.programs import BEFORE_NODES, PROGRAMS
from podidentity_sandbox.plan import (
    APISERVER_ADDRESS,
    AZURE_ADDRESS,
    DNS_ADDRESS,
    IMDS_ADDRESS,
    NodePlan,
    Plan,
)
from podidentity_sandbox.world import network
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.parts import Part, PartProgram, State

_log = logging.getLogger(__name__)
_GRACE_NODES, _GRACE_REST = 4.0, 2.0
"""Seconds for the kubelets to end their pods, and for the servers to end."""

REAL_PARTS: Mapping[str, Sequence[str]] = {
    part: ("-P", "-m", f"podidentity_sandbox.{part}")
    for part in ("cluster", "kubernetes", "azure", "node")
}
"""The interpreter's arguments for each kind of part; tests put stand-ins here."""

RUNTIME_NODE: Sequence[str] = ("-P", "-m", "podidentity_sandbox.node.cri.machine")
"""The part `node` where containerd runs the containers."""

_SIGNALS = {"pause": signal.SIGSTOP, "resume": signal.SIGCONT, "kill": signal.SIGKILL}

# A node's own /run, so that its /run/netns is not its neighbours'; and it routes for its pods. What
# units of the machine do before its kubelet, $0 does: where it fails, the kubelet does not start.
_BOOT = """
mount -t tmpfs -o mode=755 tmpfs /run && echo 1 >/proc/sys/net/ipv4/ip_forward &&
{ [ ! -e "$0" ] || sh -e "$0"; } && exec "$@"
"""


def programs(
    plan: Plan, parts: Mapping[str, Sequence[str]], *, api_fd: int, proxy_fd: int
) -> list[PartProgram]:
    """Open the sockets of this namespace and return how each part is started."""
    world = network.listen_tcp(APISERVER_ADDRESS, 443)

    def server(
        name: str, argv: Sequence[str], after: Sequence[str] = (), **given: Sequence[int]
    ) -> PartProgram:
        words = [
            word for key, fds in given.items() for fd in fds for word in (f"--{key}-fd", str(fd))
        ]
        return PartProgram(
            name=name,
            argv=(sys.executable, *argv, "--folder", plan.folder, *words),
            fds=[fd for fds in given.values() for fd in fds],
            log=plan.logs / f"{name}.log",
            after=after,
        )

    https = network.listen_tcp(AZURE_ADDRESS, 443)
    imds = network.listen_tcp(IMDS_ADDRESS, 80)
    dns = network.listen_udp(DNS_ADDRESS, 53)
    azure = server(
        "azure",
        parts["azure"],
        https=[https.detach()],
        imds=[imds.detach()],
        dns=[dns.detach()],
        proxy=[proxy_fd],
    )
    listen = [api_fd, world.detach()]
    if not plan.kubernetes:
        nodes = [_node_program(plan, node, parts["node"]) for node in plan.nodes]
        return [server("cluster", parts["cluster"], listen=listen), azure, *nodes]
    control = [
        server(name, (*parts["kubernetes"], name), after) for name, after in PROGRAMS.items()
    ]
    nodes = [_node_program(plan, node, parts["node"], BEFORE_NODES) for node in plan.nodes]
    if plan.real_nodes:
        real = (_real_node(plan, node, parts["kubernetes"]) for node in plan.nodes)
        nodes = list(chain.from_iterable(real))
    proxy = server("proxy", (*parts["kubernetes"], "proxy"), listen=listen)
    return [*control, proxy, azure, *nodes]


def _real_node(plan: Plan, node: NodePlan, part: Sequence[str]) -> list[PartProgram]:
    """Return the machine, and the services on it in the order in which they start."""

    def program(name: str, kind: str, after: Sequence[str] = ()) -> PartProgram:
        words = (kind, "--folder", plan.folder, "--node", node.name)
        argv = (sys.executable, *part, *words)
        return PartProgram(name=name, argv=argv, log=plan.logs / f"{name}.log", after=after)

    make, top = partial(network.make_node, node), Path(plan.cgroup_root, node.name)
    found = [replace(program(node.name, "machine"), prepare=make, machine=top)]
    for service in SERVICES:
        after = [found[-1].name, *(["kube-apiserver"] if service == "kubelet" else ())]
        found.append(program(f"{node.name}-{service}", service, after))
    return found


def _node_program(
    plan: Plan, node: NodePlan, part: Sequence[str], after: Sequence[str] = ()
) -> PartProgram:
    enter = ("nsenter", f"--net=/run/netns/{node.name}", "unshare", "--mount")
    return PartProgram(
        name=node.name,
        argv=(
            *(*enter, "--propagation", "slave", "sh", "-c", _BOOT, str(plan.boot_script(node))),
            *(sys.executable, *part, "--folder", plan.folder, "--node", node.name),
        ),
        log=plan.logs / f"{node.name}.log",
        prepare=partial(network.make_node, node),
        after=after,
    )


class Supervisor:
    """Runs the parts until it is told to end."""

    def __init__(
        self,
        plan: Plan,
        programs: Sequence[PartProgram],
        report_fd: int,
        *,
        bound: bool,
    ) -> None:
        self._plan = plan
        self._report_fd = report_fd
        self._bound = bound
        self._all_ready = False
        self._stop = asyncio.Event()
        self._parts = {each.name: Part(each, self._changed) for each in programs}

    async def run(self) -> None:
        """Start the parts, serve orders, and end the parts when told to."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        # The kernel reports an error on a pipe whose reader is gone: nobody waits any more, or with
        # `bound` nobody is there to end this.
        loop.add_reader(self._report_fd, self._abandoned)
        socket = Folder(self._plan.name, self._plan.path.parent).control
        server = await asyncio.start_unix_server(self._converse, socket)
        parts = self._parts.values()
        for part in parts:
            if not part.program.after:
                part.start()
        ready = asyncio.gather(*map(self._follow, parts))
        ready.add_done_callback(lambda _: self._report_all_ready())
        await self._stop.wait()
        ready.cancel()
        nodes = [node.name for node in self._plan.nodes]
        await self._end(nodes, _GRACE_NODES)
        rest = [name for name in self._parts if name not in nodes]
        await self._end([name for name in rest if name not in PROGRAMS], _GRACE_REST)
        await self._end([name for name in rest if name in PROGRAMS], 0.0)
        server.close()

    async def _follow(self, part: Part) -> None:
        """Return when a part has settled; start it first where it waits for another."""
        for before in part.program.after:
            if await self._parts[before].settled() is not State.READY:
                return
        if part.program.after:
            part.start()
        await part.settled()

    def _changed(self, part: Part) -> None:
        self._report({"part": part.name, "state": part.state.value, "exit": part.exit})

    def _report_all_ready(self) -> None:
        ready = all(part.state is State.READY for part in self._parts.values())
        if ready:
            self._report({"state": "ready"})
        self._all_ready = ready
        if not (ready and self._bound):
            self._stop_reporting()

    def _abandoned(self) -> None:
        _log.warning("who made this sandbox is gone: ending")
        self._stop_reporting()
        self._stop.set()

    def _stop_reporting(self) -> None:
        if self._report_fd >= 0:
            asyncio.get_running_loop().remove_reader(self._report_fd)
            os.close(self._report_fd)
            self._report_fd = -1

    def _report(self, news: Mapping[str, object]) -> None:
        if self._report_fd >= 0 and not self._all_ready:  # nobody reads on: a full pipe would block
            with suppress(BrokenPipeError):  # `_abandoned` is about to be told
                os.write(self._report_fd, json.dumps(news).encode() + b"\n")

    def _reap(self) -> None:
        """Wait for every child that ended: parts, and orphans that became ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for part in self._parts.values():
                if part.pid == pid:
                    part.buried(status)

    async def _end(self, names: Sequence[str], seconds: float) -> None:
        """End parts: SIGTERM, and SIGKILL for those that live on after `seconds`."""
        parts = [self._parts[name] for name in names]
        for part in parts:
            part.send(signal.SIGTERM)
            part.send(signal.SIGCONT)
        try:
            async with asyncio.timeout(seconds):
                for part in parts:
                    await part.ended()
        except TimeoutError:
            for part in parts:
                if part.pid is not None:
                    _log.warning("%s does not end: killed", part.name)
                part.send(signal.SIGKILL)

    # ---- Orders

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                order = json.loads(line)
                answer = await self._obey(order["op"], order.get("part", ""))
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # a client that left: there is nobody to tell
        finally:
            writer.close()

    async def _obey(self, operation: str, name: str) -> dict[str, Any]:
        if operation == "status":
            return {"parts": [_shown(part) for part in self._parts.values()]}
        if operation == "down":
            self._stop.set()
            return {}
        part = self._parts.get(name)
        if part is None:
            return {"error": f"no part {name!r}; there are {', '.join(self._parts)}"}
        return await self._direct(operation, part)

    async def _direct(self, operation: str, part: Part) -> dict[str, Any]:
        if operation == "start":
            if part.state is not State.ENDED:
                return {"error": f"{part.name} is running ({part.state})"}
            try:
                part.start()
            except (OSError, subprocess.CalledProcessError) as cause:
                return {"error": f"{part.name} cannot be started: {cause}; see the log of `world`"}
            if await part.settled() is State.ENDED:
                return {"error": f"{part.name} ended with {part.exit}; see its log"}
            for each in self._parts.values() if part.program.machine else ():
                if each.name.startswith(f"{part.name}-"):
                    said = await self._direct(operation, each)
                    if "error" in said:
                        return said
            return _shown(part)
        if part.pid is None:
            return {"error": f"{part.name} is not running; start it first"}
        part.send(_SIGNALS[operation])
        if operation == "kill":
            await part.ended()
        return _shown(part)


def _shown(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "state": part.state.value,
        "pid": part.pid,
        "exit": part.exit,
        "memory_kib": None if part.pid is None else _memory(part, part.pid),
    }


def _memory(part: Part, pid: int) -> int | None:
    """Return the proportional memory in KiB of a part, or of all that runs on its machine."""
    if part.program.machine is None:
        return _proportional_memory(pid)
    groups = part.program.machine.rglob("cgroup.procs")
    pids = {int(each) for group in groups for each in group.read_text().split()}
    return sum(_proportional_memory(each) or 0 for each in pids)


def _proportional_memory(pid: int) -> int | None:
    """Return a process's proportional set size in KiB (proc_pid_smaps(5)); None if it is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    sizes = [line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:")]
    return int(sizes[0]) if sizes else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parts", type=json.loads, required=True)
    for option in ("--api-fd", "--proxy-fd", "--report-fd"):
        parser.add_argument(option, type=int, required=True)
    parser.add_argument("--bound", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for fd in (options.api_fd, options.proxy_fd, options.report_fd):
        os.set_inheritable(fd, False)
    plan = Plan.load(options.folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    network.make_azure()
    started = programs(plan, options.parts, api_fd=options.api_fd, proxy_fd=options.proxy_fd)
    with suppress(KeyboardInterrupt):
        asyncio.run(Supervisor(plan, started, options.report_fd, bound=options.bound).run())


if __name__ == "__main__":
    atexit.register(gc.freeze)  # at the end all goes anyhow: no garbage is looked for
    main()
