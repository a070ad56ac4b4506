"""Composition of a node: everything made once, started, and ended together."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import ssl
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

import podidentity_sandbox
from podidentity_sandbox.apiserver import ApiRefusal
from podidentity_sandbox.node.api import ApiClient
from podidentity_sandbox.node.cgroups import PodCgroups
from podidentity_sandbox.node.containers import ProgramContainer
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.node.execution import ExecServer
from podidentity_sandbox.node.kubelet import Kubelet, show_life
from podidentity_sandbox.node.network import NetworkFailed, PodNetwork
from podidentity_sandbox.node.processes import LauncherClient, LauncherDied
from podidentity_sandbox.node.reports import Events
from podidentity_sandbox.node.rootfs import prepare_stage
from podidentity_sandbox.node.server import KubeletServer
from podidentity_sandbox.node.services import MakeContainer, Services
from podidentity_sandbox.plan import NodePlan, Plan

if TYPE_CHECKING:
    from podidentity_sandbox.node.cri.sandboxes import PodSandboxes

_log = logging.getLogger(__name__)
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def run(
    services: Services, others: Sequence[Coroutine[Any, Any, None]], ready_fd: int
) -> None:
    """Serve the node until it is told to end, or cannot go on; `others` run beside it."""
    services.cgroups.open()
    await services.network.open()
    kubelet = Kubelet(services)
    executions = ExecServer(services.plan.path / services.node.socket, kubelet)
    plan, node = services.plan, services.node
    tls = None
    if plan.kubernetes:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(plan.ca_certificate))
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_cert_chain(*plan.kubelet_files(node))
    server = KubeletServer(plan.path / node.api_socket, kubelet, services.probing, tls)
    async with asyncio.TaskGroup() as group:
        for each in (*others, services.events.run(), executions.run(), server.run(), kubelet.run()):
            group.create_task(each)
        await kubelet.ready.wait()
        group.create_task(show_life(services.api, services.node, plan.kubernetes_version))
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)


async def compose(folder: Path, name: str, ready_fd: int, *, containerd: bool) -> None:
    plan = Plan.load(folder)
    node = plan.node(name)
    if containerd and not RuntimeOptions.load(folder).tells_address:
        node = replace(node, address="")
    api = ApiClient(plan, node)
    probing = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=False, force_close=True),
        headers={"User-Agent": "kube-probe/1.32"},
    )
    source = Path(podidentity_sandbox.__file__).parents[1]
    az = (plan.azure_cli,) if plan.azure_cli else ()
    az_tools = (f"{folder}/tools" for folder in az)
    async with AsyncExitStack() as opened:
        made = await (_runtime if containerd else _programs)(plan, node, api, opened)
        services = Services(
            plan=plan,
            node=node,
            search_path=":".join((str(Path(sys.executable).parent), *az_tools, _SYSTEM_PATH)),
            kept=tuple(dict.fromkeys((sys.prefix, sys.base_prefix, str(source), *az))),
            api=api,
            container=made.container,
            network=made.network,
            cgroups=made.cgroups,
            events=Events(api, node.name),
            probing=probing,
        )
        for each in (api, probing):
            opened.push_async_callback(each.close)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await run(services, made.others, ready_fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What a kind of node starts pods and containers with."""

    container: MakeContainer
    network: PodNetwork | PodSandboxes
    cgroups: PodCgroups
    others: Sequence[Coroutine[Any, Any, None]] = ()


async def _programs(plan: Plan, node: NodePlan, _: ApiClient, opened: AsyncExitStack) -> _Made:
    """Let this machine's programs be the containers."""
    prepare_stage()
    memory = Path(plan.memory_root, node.name) if plan.memory_root else None
    cgroups = PodCgroups(plan.cgroups_of(node), memory)
    opened.callback(cgroups.close)  # after the launcher, which ends all that runs in them
    launcher = await LauncherClient.open()
    opened.push_async_callback(launcher.close)
    return _Made(
        container=partial(ProgramContainer, launcher=launcher),
        network=PodNetwork(node),
        cgroups=cgroups,
        others=[launcher.listen()],
    )


async def _runtime(plan: Plan, node: NodePlan, api: ApiClient, opened: AsyncExitStack) -> _Made:
    """Let containerd make the containers, and their cgroups."""
    # gRPC is there for such nodes only.
    from podidentity_sandbox.node.cri.client import Cri
    from podidentity_sandbox.node.cri.containerd import SOCKET
    from podidentity_sandbox.node.cri.containers import RuntimeContainer
    from podidentity_sandbox.node.cri.sandboxes import PodSandboxes
    from podidentity_sandbox.node.cri.static import StaticPods

    options = RuntimeOptions.load(plan.path)
    cri = Cri(SOCKET, Path(options.tools, "cri.pb"))
    opened.push_async_callback(cri.close)
    sandboxes = PodSandboxes(cri, plan, node, options)
    return _Made(
        container=partial(RuntimeContainer, cri=cri, sandboxes=sandboxes),
        network=sandboxes,
        cgroups=PodCgroups([], None),  # the sandboxes have them
        others=[StaticPods(api, node).run()],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="podidentity_sandbox.node", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--containerd", action="store_true", help="Ask containerd by CRI.")
    given = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    sys.exit(_serve(given.folder, given.node, given.ready_fd, containerd=given.containerd))


def _serve(folder: Path, name: str, ready_fd: int, *, containerd: bool) -> int:
    code = 0
    try:
        asyncio.run(compose(folder, name, ready_fd, containerd=containerd))
    except* (KeyboardInterrupt, asyncio.CancelledError):
        _log.info("told to end: the node has ended")
    except* (ApiRefusal, LauncherDied, NetworkFailed) as failed:
        for error in failed.exceptions:
            _log.error("the node cannot go on: %s", error)
        code = 1
    return code
