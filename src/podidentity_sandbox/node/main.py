"""Composition of a node: everything made once, started, and ended together."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import aiohttp

import podidentity_sandbox
from podidentity_sandbox.node.api import ApiClient, ApiRefusal
from podidentity_sandbox.node.cgroups import PodCgroups
from podidentity_sandbox.node.clock import Clock
from podidentity_sandbox.node.execution import ExecServer
from podidentity_sandbox.node.kubelet import Kubelet
from podidentity_sandbox.node.network import NetworkFailed, PodNetwork
from podidentity_sandbox.node.object_watches import ObjectWatches
from podidentity_sandbox.node.processes import LauncherClient, LauncherDied
from podidentity_sandbox.node.reports import Events
from podidentity_sandbox.node.rootfs import prepare_stage
from podidentity_sandbox.node.server import KubeletServer
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.plan import Plan

_log = logging.getLogger(__name__)
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def run(services: Services, ready_fd: int) -> None:
    """Serve the node until it is told to end, or cannot go on."""
    services.cgroups.open()
    await services.network.open()
    kubelet = Kubelet(services)
    executions = ExecServer(services.plan.path / services.node.socket, kubelet)
    server = KubeletServer(services.plan.path / services.node.api_socket, kubelet, services.clock)
    async with asyncio.TaskGroup() as group:
        group.create_task(services.launcher.listen())
        group.create_task(services.events.run())
        group.create_task(executions.run())
        group.create_task(server.run())
        group.create_task(kubelet.run())
        await kubelet.ready.wait()
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)


async def compose(folder: Path, name: str, ready_fd: int) -> None:
    """Make the node, run it, and remove it."""
    plan = Plan.load(folder)
    node, clock = plan.node(name), Clock()
    prepare_stage()
    api = ApiClient.connect(plan, node, clock)
    probing = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=False, force_close=True),
        headers={"User-Agent": "kube-probe/1.32"},
    )
    launcher = await LauncherClient.open()
    source = Path(podidentity_sandbox.__file__).parents[1]
    az = (plan.azure_cli,) if plan.azure_cli else ()
    az_tools = (f"{folder}/tools" for folder in az)
    services = Services(
        plan=plan,
        node=node,
        search_path=":".join((str(Path(sys.executable).parent), *az_tools, _SYSTEM_PATH)),
        kept=tuple(dict.fromkeys((sys.prefix, sys.base_prefix, str(source), *az))),
        api=api,
        launcher=launcher,
        network=PodNetwork(node),
        cgroups=PodCgroups(plan.cgroup_root, plan.memory_root, node.name),
        events=Events(api, node.name, clock),
        watched=ObjectWatches(api, clock),
        clock=clock,
        probing=probing,
    )
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await run(services, ready_fd)
    finally:
        await launcher.close()
        await services.watched.close()
        await probing.close()
        await api.close()
        services.cgroups.close()


def main() -> None:
    """Run a node: `python -m podidentity_sandbox.node --folder DIR --node NAME --ready-fd N`."""
    parser = argparse.ArgumentParser(prog="podidentity_sandbox.node", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    given = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    sys.exit(_serve(given.folder, given.node, given.ready_fd))


def _serve(folder: Path, name: str, ready_fd: int) -> int:
    code = 0
    try:
        asyncio.run(compose(folder, name, ready_fd))
    except* (KeyboardInterrupt, asyncio.CancelledError):
        _log.info("told to end: the node has ended")
    except* (ApiRefusal, LauncherDied, NetworkFailed) as failed:
        for error in failed.exceptions:
            _log.error("the node cannot go on: %s", error)
        code = 1
    return code
