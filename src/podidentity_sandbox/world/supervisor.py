"""Process 1 of a sandbox: it makes the network, starts the parts, and ends all with itself.

It starts everything at once. Sockets listen before their servers exist, so a kubelet's first call
waits in the kernel until the API server takes it: no order, no polling.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from podidentity_sandbox.plan import (
    APISERVER_ADDRESS,
    AZURE_ADDRESS,
    DNS_ADDRESS,
    IMDS_ADDRESS,
    NodePlan,
    Plan,
)
from podidentity_sandbox.world import network
from podidentity_sandbox.world.control import Control
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.parts import ChildProcesses, Part, PartProgram, State

_log = logging.getLogger(__name__)
_GRACE_NODES, _GRACE_REST = 4.0, 2.0
"""Seconds for the kubelets to end their pods, and for the servers to end."""

REAL_PARTS: Mapping[str, Sequence[str]] = {
    part: ("-P", "-m", f"podidentity_sandbox.{part}") for part in ("cluster", "azure", "node")
}
"""The interpreter's arguments for each kind of part; tests put stand-ins here."""

RUNTIME_NODE: Sequence[str] = ("-P", "-m", "podidentity_sandbox.node.cri.machine")
"""The part `node` where containerd runs the containers."""

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
    https = network.listen_tcp(AZURE_ADDRESS, 443)
    imds = network.listen_tcp(IMDS_ADDRESS, 80)
    dns = network.listen_udp(DNS_ADDRESS, 53)
    cluster = {"--listen-fd": [api_fd, world.detach()]}
    azure = {
        "--https-fd": [https.detach()],
        "--imds-fd": [imds.detach()],
        "--dns-fd": [dns.detach()],
        "--proxy-fd": [proxy_fd],
    }
    servers = [
        PartProgram(
            name=name,
            argv=(sys.executable, *parts[name], "--folder", plan.folder, *_options(fds)),
            fds=[fd for given in fds.values() for fd in given],
            log=plan.logs / f"{name}.log",
        )
        for name, fds in (("cluster", cluster), ("azure", azure))
    ]
    return [*servers, *(_node_program(plan, node, parts["node"]) for node in plan.nodes)]


def _options(fds: Mapping[str, Sequence[int]]) -> list[str]:
    return [word for option, given in fds.items() for fd in given for word in (option, str(fd))]


def _node_program(plan: Plan, node: NodePlan, part: Sequence[str]) -> PartProgram:
    enter = ("nsenter", f"--net=/run/netns/{node.name}", "unshare", "--mount")
    return PartProgram(
        name=node.name,
        argv=(
            *(*enter, "--propagation", "slave", "sh", "-c", _BOOT, str(plan.boot_script(node))),
            *(sys.executable, *part, "--folder", plan.folder, "--node", node.name),
        ),
        log=plan.logs / f"{node.name}.log",
        prepare=partial(network.make_node, node),
    )


class Supervisor:
    """Runs the parts until it is told to end."""

    def __init__(
        self,
        plan: Plan,
        programs: Sequence[PartProgram],
        report_fd: int,
        environment: Mapping[str, str],
    ) -> None:
        self._plan = plan
        self._environment = environment
        self._report_fd: int | None = report_fd
        self._stop = asyncio.Event()
        self._nursery = ChildProcesses([Part(program, self._changed) for program in programs])

    async def run(self) -> None:
        """Start the parts, serve orders, and end the parts when told to."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._nursery.reap)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        if self._report_fd is not None:
            # The kernel reports an error on a pipe whose reader is gone: nobody waits any more.
            loop.add_reader(self._report_fd, self._abandoned)
        control = Control(self._nursery, self._environment, self._stop.set)
        server = await control.serve(Folder(self._plan.name, self._plan.path.parent).control)
        parts = self._nursery.parts.values()
        for part in parts:
            part.start(self._environment)
        ready = asyncio.gather(*(part.settled() for part in parts))
        ready.add_done_callback(lambda _: self._report_all_ready())
        await self._stop.wait()
        ready.cancel()
        nodes = [node.name for node in self._plan.nodes]
        await self._nursery.end(nodes, _GRACE_NODES)
        await self._nursery.end(["cluster", "azure"], _GRACE_REST)
        server.close()

    def _changed(self, part: Part) -> None:
        self._report({"part": part.name, "state": part.state.value, "exit": part.exit})

    def _report_all_ready(self) -> None:
        if all(part.state is State.READY for part in self._nursery.parts.values()):
            self._report({"state": "ready"})
        self._stop_reporting()

    def _abandoned(self) -> None:
        _log.warning("`up` is gone before all was ready: ending")
        self._stop_reporting()
        self._stop.set()

    def _stop_reporting(self) -> None:
        if self._report_fd is not None:
            asyncio.get_running_loop().remove_reader(self._report_fd)
            os.close(self._report_fd)
            self._report_fd = None

    def _report(self, news: Mapping[str, object]) -> None:
        if self._report_fd is not None:
            with suppress(BrokenPipeError):  # `_abandoned` is about to be told
                os.write(self._report_fd, json.dumps(news).encode() + b"\n")
