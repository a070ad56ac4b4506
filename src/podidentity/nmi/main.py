"""The node agent, assembled: everything is built from the settings on this page.

The guard comes first. Before the API server is even looked for, pods' traffic is led here, because
until then each pod of the node reaches the real metadata service. Next the socket is open, so that
what comes waits instead of failing; then the cluster is read.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from contextlib import AsyncExitStack
from dataclasses import replace

from podidentity import __version__
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.imds import Imds
from podidentity.adapters.kube import Kube
from podidentity.adapters.permissions import RbacPermissions
from podidentity.adapters.tokencache import TokenCache
from podidentity.core.ports import Attestor, Clock
from podidentity.core.resources import IdentityType
from podidentity.core.selection import Ambiguity
from podidentity.nmi.authorizing import permissions_of
from podidentity.nmi.entra import entra_side
from podidentity.nmi.node import Task, attest, intercept
from podidentity.nmi.policies import (
    delegation_of,
    policy_of,
    prefetch_of,
    route_policy_of,
    scope_of,
    warn_of,
)
from podidentity.nmi.reporting.debug import permissions_shown, tokens_shown
from podidentity.nmi.reporting.events import PodEvents
from podidentity.nmi.reporting.gauges import look_at_tokens
from podidentity.nmi.reporting.instrumented import (
    MeasuredAttestor,
    MeasuredIssuer,
    kubernetes_errors,
)
from podidentity.nmi.reporting.issuing import Issuers
from podidentity.nmi.reporting.observing import Observation, observe
from podidentity.nmi.reporting.probes import Check, Probes
from podidentity.nmi.reporting.publishing import Parts, publish
from podidentity.nmi.request.answer_cache import Express
from podidentity.nmi.request.decision import Policy, TokenService
from podidentity.nmi.request.host_token import HostTokenService
from podidentity.nmi.request.routes import Routes
from podidentity.nmi.server.listener import FOR_LOOKS, Listener
from podidentity.nmi.sync.watches import Watches
from podidentity.nmi.tokens import token_side
from podidentity.settings import NmiSettings
from podidentity.telemetry.writing import Writer

GRACE = 1.0
"""Seconds that requests under way have at the end."""

_log = logging.getLogger("podidentity.nmi")


async def run(settings: NmiSettings, log: Writer) -> None:
    """Serve until SIGTERM or SIGINT; `log` is where the lines of requests go.

    Raises InterceptionError, KubeError, OSError or ValueError where it cannot begin.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        tasks = await _assemble(settings, clock, stack, log)
        # What is here now stays: the collector need not look at it again, 8 ms each time.
        gc.collect()
        gc.freeze()
        await _until_told_to_stop(tasks)
    if settings.on_exit == "keep":
        _log.info("stopped; the interception stays")


async def _assemble(
    settings: NmiSettings, clock: Clock, stack: AsyncExitStack, log: Writer
) -> list[Task]:
    """Start what answers requests; return what must run beside it. `stack` ends all of it."""
    interception = intercept(settings, clock, stack)
    attestation = attest(settings, clock, stack)
    warn_of(settings.compat)
    cluster = WatchedCluster(clock)
    seen = observe(settings, clock, stack, log)
    kube = Kube.connect(
        settings.kubeconfig,
        user_agent=_user_agent(settings),
        trust_env=False,
        failed=kubernetes_errors(seen.metrics),
    )
    stack.push_async_callback(kube.close)
    permissions = permissions_of(settings, kube, clock, stack)
    if permissions is not None:
        seen.known["permissions"] = lambda: permissions_shown(permissions.decisions())
    events = PodEvents(kube, clock, seen.metrics.events, node=settings.node)
    seen.record.events = events
    imds = _imds(settings, clock, stack)
    entra = entra_side(
        settings, clock, stack, kube=kube, imds=imds, user_agent=_user_agent(settings)
    )
    issuers = Issuers({IdentityType.USER_ASSIGNED: imds, **entra.issuers})
    tokens = token_side(
        clock,
        stack,
        cluster=cluster,
        issuer=MeasuredIssuer(issuers, seen.metrics, clock),
        imds=imds,
        secrets=entra.secrets,
        permissions=permissions,
        policy=prefetch_of(settings),
    )
    routes, service, express = _routes(
        settings,
        clock,
        imds=imds,
        tokens=tokens.cache,
        cluster=cluster,
        permissions=permissions,
        attestor=attestation.attestor,
        seen=seen,
    )
    listener = await Listener.start(
        routes, settings.listen_address, settings.listen_port, memo=express.answer
    )
    stack.push_async_callback(listener.close, GRACE)
    watches = Watches(kube, cluster, clock, scope=scope_of(settings))
    checks: dict[str, Check] = {
        "interception": interception.problems,
        "attestation": attestation.problems,
        "sources": attestation.source_problems,
        "watches": watches.problems,
        "permissions": permissions.problems if permissions else tuple,
        "listener": lambda: () if listener.serving else ("not listening",),
        "audit": seen.problems,
    }
    # The kubelet asks at the node's address.
    probes = await Listener.start(
        Probes(checks, clock, attestation=attestation.mode),
        "0.0.0.0",  # noqa: S104
        settings.probe_port,
        FOR_LOOKS,
    )
    stack.push_async_callback(probes.close, 0.0)
    parts = Parts(
        interception=interception,
        attestation=attestation.mode,
        watches=watches.followed,
        connections=listener.connections,
        cluster=cluster,
        decided=service.decided,
    )
    await publish(settings, clock, stack, seen, parts)
    _log.info("serving node %s on %s:%s", settings.node, settings.listen_address, listener.port)
    telling = [seen.record.run, events.run]
    return [interception.guard, watches.run, entra.run, tokens.run, *telling, *attestation.tasks]


def _routes(
    settings: NmiSettings,
    clock: Clock,
    *,
    imds: Imds,
    tokens: TokenCache,
    cluster: WatchedCluster,
    permissions: RbacPermissions | None,
    attestor: Attestor | None,
    seen: Observation,
) -> tuple[Routes, TokenService, Express]:
    """Return what answers requests, what decides about those of pods, and the memo of answers."""
    attestor = MeasuredAttestor(attestor, seen.metrics) if attestor else None
    look_at_tokens(seen.metrics.registry, lambda: len(tokens))
    seen.known["tokens"] = lambda: tokens_shown(tokens.entries(), clock.time())
    policy = policy_of(settings)

    def service(policy: Policy) -> TokenService:
        return TokenService(
            cluster=cluster,
            tokens=tokens,
            permissions=permissions,
            attestor=attestor,
            clock=clock,
            policy=policy,
        )

    host = HostTokenService(
        # The provider cannot name one of several identities.
        service(replace(policy, ambiguity=Ambiguity.WEIGHT, tenant_array=False)),
        cluster=cluster,
        attestor=attestor,
        clock=clock,
        delegation=delegation_of(settings),
    )
    of_pods = service(policy)
    express = Express(
        revision=of_pods.revision,
        cached=tokens.cached,
        record=seen.record,
        clock=clock,
    )
    routes = Routes(
        of_pods,
        host,
        imds,
        clock=clock,
        policy=route_policy_of(settings),
        record=seen.record,
        express=express,
    )
    return routes, of_pods, express


def _imds(settings: NmiSettings, clock: Clock, stack: AsyncExitStack) -> Imds:
    imds = Imds.connect(
        settings.metadata_address,
        settings.metadata_port,
        clock=clock,
        user_agent=_user_agent(settings),
    )
    stack.push_async_callback(imds.close)
    return imds


def _user_agent(settings: NmiSettings) -> str:
    return f"podidentity-nmi/{__version__} {settings.custom_user_agent}".strip()


async def _until_told_to_stop(tasks: list[Task]) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task()) for task in tasks]
        await told.wait()
        for task in running:
            task.cancel()
