"""The node agent, assembled: everything is built from the settings on this page.

The guard comes first. Before the API server is even looked for, pods' traffic is led here, because
until then each pod of the node reaches the real metadata service. Next the socket is open, so that
what comes waits instead of failing; then the cluster is read.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from podidentity import __version__
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.imds import Imds
from podidentity.adapters.kube import Kube
from podidentity.adapters.tokencache import TokenCache
from podidentity.core.delegation import Delegation
from podidentity.core.ports import Attestor, Clock, TokenIssuer
from podidentity.core.resources import IdentityType
from podidentity.core.selection import Ambiguity
from podidentity.kernel.attestation import KernelAttestor
from podidentity.kernel.diag import Endpoint
from podidentity.kernel.interception import Interception
from podidentity.kernel.rules import Redirect
from podidentity.nmi.entra import entra_side
from podidentity.nmi.host import HostTokenService
from podidentity.nmi.issuing import Issuers
from podidentity.nmi.listener import Listener
from podidentity.nmi.observing import observe
from podidentity.nmi.probes import Check, Probes
from podidentity.nmi.record import NoEvents, Record
from podidentity.nmi.routes import RoutePolicy, Routes
from podidentity.nmi.service import Policy, TokenService
from podidentity.nmi.watches import Scope, Watches
from podidentity.settings import NmiSettings
from podidentity.telemetry.writing import Writer
from podidentity.wire.metadata import AllowList

GRACE = 1.0
"""Seconds that requests under way have at the end."""

_log = logging.getLogger("podidentity.nmi")

_Task = Callable[[], Coroutine[Any, Any, None]]


async def run(settings: NmiSettings, log: Writer) -> None:
    """Serve until SIGTERM or SIGINT; `log` is where the lines of requests go.

    Raises InterceptionError, KubeError, OSError or ValueError where it cannot begin.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        await _until_told_to_stop(await _assemble(settings, clock, stack, log))
    if settings.on_exit == "keep":
        _log.info("stopped; the interception stays")


async def _assemble(
    settings: NmiSettings, clock: Clock, stack: AsyncExitStack, log: Writer
) -> list[_Task]:
    """Start what answers requests; return what must run beside it. `stack` ends all of it."""
    interception = _intercept(settings, clock, stack)
    attestation = _attestation(settings, stack)
    cluster = WatchedCluster(clock)
    seen = observe(settings, clock, stack, log, NoEvents())
    kube = Kube.connect(settings.kubeconfig, user_agent=_user_agent(settings), trust_env=False)
    stack.push_async_callback(kube.close)
    imds = _imds(settings, clock, stack)
    entra = entra_side(
        settings, clock, stack, kube=kube, imds=imds, user_agent=_user_agent(settings)
    )
    routes = _routes(
        settings,
        clock,
        stack,
        imds=imds,
        issuers={IdentityType.USER_ASSIGNED: imds, **entra.issuers},
        cluster=cluster,
        attestor=attestation.attestor,
        record=seen.record,
    )
    listener = await Listener.start(routes, settings.listen_address, settings.listen_port)
    stack.push_async_callback(listener.close, GRACE)
    watches = Watches(kube, cluster, clock, scope=Scope(node=settings.node))
    checks: dict[str, Check] = {
        "interception": interception.problems,
        "attestation": attestation.problems,
        "watches": watches.problems,
        "listener": lambda: () if listener.serving else ("not listening",),
    }
    # The kubelet asks at the node's address.
    probes = await Listener.start(Probes(checks, clock), "0.0.0.0", settings.probe_port)  # noqa: S104
    stack.push_async_callback(probes.close, 0.0)
    where = f"{settings.listen_address}:{listener.port}"
    _log.info("serving node %s on %s", settings.node, where)
    return [interception.guard, watches.run, entra.run, seen.record.run, *attestation.tasks]


def _routes(
    settings: NmiSettings,
    clock: Clock,
    stack: AsyncExitStack,
    *,
    imds: Imds,
    issuers: Mapping[IdentityType, TokenIssuer],
    cluster: WatchedCluster,
    attestor: Attestor | None,
    record: Record,
) -> Routes:
    tokens = TokenCache(Issuers(issuers), clock)
    stack.push_async_callback(tokens.close)
    policy = Policy(hold=settings.hold, ambiguity=Ambiguity(settings.ambiguous))

    def service(policy: Policy) -> TokenService:
        return TokenService(
            cluster=cluster,
            tokens=tokens,
            permissions=None,
            attestor=attestor,
            clock=clock,
            policy=policy,
        )

    host = HostTokenService(
        # The provider cannot name one of several identities.
        service(replace(policy, ambiguity=Ambiguity.WEIGHT)),
        cluster=cluster,
        attestor=attestor,
        clock=clock,
        delegation=_delegation(settings),
    )
    policies = _route_policy(settings)
    return Routes(service(policy), host, imds, clock=clock, policy=policies, record=record)


def _imds(settings: NmiSettings, clock: Clock, stack: AsyncExitStack) -> Imds:
    imds = Imds.connect(
        settings.metadata_address,
        settings.metadata_port,
        clock=clock,
        user_agent=_user_agent(settings),
    )
    stack.push_async_callback(imds.close)
    return imds


def _delegation(settings: NmiSettings) -> Delegation:
    root = settings.host_token == "root"  # noqa: S105 - a choice
    return Delegation(callers=settings.host_token_callers, root=root)


def _intercept(settings: NmiSettings, clock: Clock, stack: AsyncExitStack) -> Interception:
    sysctls = Path(settings.proc_sys_net)
    interception = Interception(_redirect(settings), clock, proc_sys_net=sysctls)
    stack.callback(interception.close)
    interception.install()
    if settings.on_exit == "remove":
        stack.callback(_remove, interception)
    return interception


def _remove(interception: Interception) -> None:
    for left in interception.remove():
        _log.warning("left behind: %s", left)
    _log.warning("the interception is removed: pods reach the real metadata service")


def _redirect(settings: NmiSettings) -> Redirect:
    return Redirect(
        metadata_ip=settings.metadata_address,
        metadata_port=settings.metadata_port,
        listen_address=settings.listen_address,
        listen_port=settings.listen_port,
    )


@dataclass(frozen=True, slots=True)
class _Attestation:
    """The attestor, what must run beside it, and how to ask whether it works."""

    attestor: Attestor | None = None
    tasks: tuple[_Task, ...] = ()
    problems: Check = tuple


def _attestation(settings: NmiSettings, stack: AsyncExitStack) -> _Attestation:
    if settings.attestation == "address":
        _log.warning("--attestation=address: any pod can take another's tokens by its address")
        return _Attestation()
    attestor = KernelAttestor.open(
        netns_dir=Path(settings.netns_dir),
        cgroup_root=Path(settings.cgroup_root),
        listener=Endpoint(_redirect(settings).target, settings.listen_port),
        imds=Endpoint(settings.metadata_address, settings.metadata_port),
    )
    stack.callback(attestor.close)
    return _Attestation(attestor, (attestor.follow,), attestor.problems)


def _route_policy(settings: NmiSettings) -> RoutePolicy:
    allowed = [
        path
        for path in settings.metadata_allow
        if not (settings.block_instance_metadata and path.startswith("/metadata/instance"))
    ]
    return RoutePolicy(
        allow=AllowList(allowed),
        header_required=settings.metadata_header_required,
        retry_after_header=settings.retry_after_header,
    )


def _user_agent(settings: NmiSettings) -> str:
    return f"podidentity-nmi/{__version__} {settings.custom_user_agent}".strip()


async def _until_told_to_stop(tasks: list[_Task]) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task()) for task in tasks]
        await told.wait()
        for task in running:
            task.cancel()
