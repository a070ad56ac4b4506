"""The worker of `serve`, assembled: everything is built from the settings on this page.

Its listening sockets are the supervisor's, and so is the word when to accept connections: what
comes before waits in their backlog. Whose a connection is it asks of `net`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from podidentity import __version__
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.imds import Imds
from podidentity.adapters.kube import Kube
from podidentity.adapters.net import NetClient
from podidentity.adapters.permission_cache import RbacPermissions
from podidentity.adapters.tokencache import TokenCache
from podidentity.core.attestation import AttestationMode
from podidentity.core.ports import Attestor, Clock
from podidentity.core.resources import IdentityType
from podidentity.nmi.authorizing import permissions_of
from podidentity.nmi.entra import entra_side
from podidentity.nmi.policies import (
    delegation_of,
    policy_of,
    prefetch_of,
    route_policy_of,
    scope_of,
    warn_of,
)
from podidentity.nmi.reporting.debug import permissions_shown, tokens_shown
from podidentity.nmi.reporting.endpoints import Check, Parts, endpoints
from podidentity.nmi.reporting.events import PodEvents
from podidentity.nmi.reporting.instrumented import (
    MeasuredAttestor,
    MeasuredIssuers,
    kubernetes_errors,
)
from podidentity.nmi.reporting.metrics import add_tokens
from podidentity.nmi.reporting.observing import Observation, observe
from podidentity.nmi.request.answer_cache import AnswerCache
from podidentity.nmi.request.caller import Callers
from podidentity.nmi.request.decision import Decider
from podidentity.nmi.request.host_token import HostCallers
from podidentity.nmi.request.pipeline import RequestPipeline
from podidentity.nmi.server.listener import Listener
from podidentity.nmi.sync.watches import Watches
from podidentity.nmi.tokens import token_side
from podidentity.settings import NET_SOCKET, NmiSettings
from podidentity.supervisor import control
from podidentity.supervisor.control import BEAT_SECONDS, UNREADY_BEAT_SECONDS, Readiness, Report
from podidentity.supervisor.privileges import capabilities
from podidentity.supervisor.worker import Inherited
from podidentity.telemetry.writer import Writer

GRACE = 1.0
"""Seconds that requests under way have at the end."""

Task = Callable[[], Coroutine[Any, Any, None]]
"""What must run beside the listeners."""

_log = logging.getLogger("podidentity.nmi")


async def run(settings: NmiSettings, log: Writer, given: Inherited) -> None:
    """Serve until the supervisor, SIGTERM or SIGINT says otherwise; `log` gets requests' lines.

    Raises KubeError, OSError or ValueError where it cannot begin.
    """
    clock = SystemClock()
    orders = Orders(given.control)
    async with AsyncExitStack() as stack:
        agent = _assemble(settings, clock, stack, log)
        # What is here now stays: the collector need not look at it again, 8 ms each time.
        gc.collect()
        gc.freeze()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(task()) for task in agent.tasks]
            tasks.append(group.create_task(_report(agent, orders, clock)))
            await orders.accept_or_end()
            if orders.accepting:
                agent.accept(given.listeners)
            await orders.end()
            # Requests under way may wait for a secret or a watch: those are ended after them.
            await agent.finish(orders)
            for task in tasks:
                task.cancel()


class Orders:
    """What the supervisor wants, and its end of the line for reports."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._accept = asyncio.Event()
        self._end = asyncio.Event()
        self._stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(connection, self._told)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped)

    @property
    def accepting(self) -> bool:
        """Whether connections are to be accepted."""
        return self._accept.is_set() and not self._end.is_set()

    async def accept_or_end(self) -> None:
        """Return when connections are to be accepted, or never will be."""
        await self._accept.wait()

    async def end(self) -> None:
        """Return when no more connections are to be accepted."""
        await self._end.wait()

    async def stop(self) -> None:
        """Return when there is no time left for connections that are idle."""
        await self._stop.wait()

    def report(self, report: Report) -> None:
        """Tell the supervisor; one that does not listen just now hears the next report."""
        with suppress(OSError):
            self._connection.send(report.encode())

    def _told(self) -> None:
        try:
            word = self._connection.recv(100)
        except BlockingIOError:
            return
        except OSError:
            word = b""
        if word == control.ACCEPT:
            self._accept.set()
        elif word == control.DRAIN:
            self._accept.set()
            self._end.set()
        elif not word:
            # The supervisor has ended, and with it the container: nobody restarts this worker.
            asyncio.get_running_loop().remove_reader(self._connection)
            self._stopped()

    def _stopped(self) -> None:
        for each in (self._accept, self._end, self._stop):
            each.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The worker's parts that its life is made of."""

    node: str
    net: NetClient
    pods: Listener
    pages: Mapping[str, Listener]
    """Of probes, metrics and `/debug`, by the name of their socket."""
    checks: Mapping[str, Check]
    tasks: list[Task]

    def accept(self, sockets: Mapping[str, socket.socket]) -> None:
        """Accept connections."""
        for name, each in sockets.items():
            self.pages.get(name, self.pods).accept_from(each)
        self.net.accept(accepting=True)
        _log.info("serving node %s, port %s", self.node, self.pods.port)

    async def finish(self, orders: Orders) -> None:
        """Accept no more; end connections behind their next answer, all of them when told to."""
        self.net.accept(accepting=False)
        for page in self.pages.values():
            await page.close(0.0)
        draining = asyncio.create_task(self.pods.drain())
        stopping = asyncio.create_task(orders.stop())
        await asyncio.wait({draining, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await self.pods.close(GRACE)
        stopping.cancel()
        await draining

    def readiness(self) -> Report:
        """Return how far it is, and what is missing."""
        problems = {name: list(check()) for name, check in self.checks.items()}
        if not any(problems.values()):
            readiness = Readiness.READY
        elif not any(found for name, found in problems.items() if name != "listener"):
            readiness = Readiness.PREPARED
        else:
            readiness = Readiness.UNREADY
        return Report(readiness, msgspec.json.encode(problems).decode())


async def _report(agent: Agent, orders: Orders, clock: Clock) -> None:
    """Tell the supervisor how it is, for ever: it takes silence for a loop that stands."""
    while True:
        # Where another pod could speak with its address, a kept connection is not a pod's for long.
        agent.pods.keep_connections(kept=agent.net.sources_guarded)
        report = agent.readiness()
        orders.report(report)
        ready = report.readiness is Readiness.READY
        await clock.sleep(BEAT_SECONDS if ready else UNREADY_BEAT_SECONDS)


def _assemble(settings: NmiSettings, clock: Clock, stack: AsyncExitStack, log: Writer) -> Agent:
    """Build what answers requests; `stack` ends it."""
    net = NetClient(
        Path(settings.runtime_dir, NET_SOCKET),
        clock,
        version=__version__,
        mode=settings.attestation,
        uids=frozenset({0}),
    )
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
    seen.requests.events = events
    imds = _imds(settings, clock, stack)
    entra = entra_side(
        settings, clock, stack, kube=kube, imds=imds, user_agent=_user_agent(settings)
    )
    issuers = {IdentityType.USER_ASSIGNED: imds, **entra.issuers}
    tokens = token_side(
        clock,
        stack,
        cluster=cluster,
        issuer=MeasuredIssuers(issuers, seen.metrics, clock),
        imds=imds,
        secrets=entra.secrets,
        permissions=permissions,
        policy=prefetch_of(settings),
    )
    pipeline, decider, answers = _pipeline(
        settings,
        clock,
        imds=imds,
        tokens=tokens.cache,
        cluster=cluster,
        permissions=permissions,
        attestor=_attestor(settings, net),
        seen=seen,
    )
    pods = Listener(pipeline, memo=answers.answer)
    watches = Watches(kube, cluster, clock, scope=scope_of(settings))
    checks: dict[str, Check] = {
        "interception": net.interception_problems,
        "attestation": net.attestation_problems,
        "watches": watches.problems,
        "permissions": permissions.problems if permissions else tuple,
        "listener": lambda: () if pods.serving else ("not listening",),
        "audit": seen.problems,
    }
    too_much_right = _too_much_right()
    parts = Parts(
        checks=checks,
        warnings=lambda: (*too_much_right, *net.warnings()),
        net=net,
        watches=watches.followed,
        connections=pods.connections,
        cluster=cluster,
        decided=decider.current,
        kube=kube,
    )
    pages = endpoints(settings, clock, stack, seen, parts)
    return Agent(
        node=settings.node,
        net=net,
        pods=pods,
        pages=pages.listeners,
        checks=checks,
        tasks=[
            net.run,
            watches.run,
            entra.run,
            tokens.run,
            seen.requests.run,
            events.run,
            *pages.tasks,
        ],
    )


def _too_much_right() -> tuple[str, ...]:
    """Return what this process, which parses strangers' bytes, should not be or have."""
    held = "with capabilities" if capabilities() else "without a capability"
    if not capabilities() and os.getuid():
        return ()
    return (
        f"serve is user {os.getuid()}, {held}: a manifest with two containers gives it a user of "
        "its own, and none",
    )


def _attestor(settings: NmiSettings, net: NetClient) -> Attestor | None:
    if settings.attestation is AttestationMode.ADDRESS:
        _log.warning("--attestation=address: any pod can take another's tokens by its address")
        return None
    return net


def _pipeline(
    settings: NmiSettings,
    clock: Clock,
    *,
    imds: Imds,
    tokens: TokenCache,
    cluster: WatchedCluster,
    permissions: RbacPermissions | None,
    attestor: Attestor | None,
    seen: Observation,
) -> tuple[RequestPipeline, Decider, AnswerCache]:
    """Return what answers requests, what decides about them, and the memo of answers."""
    attestor = MeasuredAttestor(attestor, seen.metrics) if attestor else None
    add_tokens(seen.metrics.registry, lambda: len(tokens))
    seen.known["tokens"] = lambda: tokens_shown(tokens.entries(), clock.time())
    decider = Decider(
        cluster=cluster, permissions=permissions, clock=clock, policy=policy_of(settings)
    )
    recorded_first = seen.audit is not None and seen.audit.required
    answers = AnswerCache(cluster, permissions, clock, recorded_first=recorded_first)
    pipeline = RequestPipeline(
        callers=Callers(cluster, attestor, clock),
        host_callers=HostCallers(cluster, attestor, clock, delegation=delegation_of(settings)),
        decider=decider,
        tokens=tokens,
        metadata=imds,
        answers=answers,
        log=seen.requests,
        clock=clock,
        policy=route_policy_of(settings),
    )
    return pipeline, decider, answers


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
