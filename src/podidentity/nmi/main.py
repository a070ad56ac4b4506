"""The worker of `serve`, assembled: everything is built from the settings on this page.

Its listening sockets are the supervisor's, and so is the word when to accept connections: what
comes before waits in their backlog. Whose a connection is it asks of `net`.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from podidentity import __version__
from podidentity.adapters.azure_transport import AzureTransport
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.entra.certificates import Certificates
from podidentity.adapters.entra.client_credentials import (
    Assertions,
    CertificateCredentials,
    CredentialSource,
    FederatedCredentials,
    SecretCredentials,
)
from podidentity.adapters.entra.issuer import EntraIssuer, TokenEndpoint
from podidentity.adapters.imds import Imds
from podidentity.adapters.kube import Kube
from podidentity.adapters.net import NetClient
from podidentity.adapters.node_identity import NodeIdentity
from podidentity.adapters.permission_cache import RbacPermissions
from podidentity.adapters.startup_taint import StartupTaint
from podidentity.adapters.token_cache import TokenCache
from podidentity.core.attestation import AttestationMode
from podidentity.core.decision import Authorization, current_grants
from podidentity.core.ports import Attestor, Clock, TokenIssuer
from podidentity.core.resources import IdentityType, ObjectRef, Pod
from podidentity.nmi.lifecycle import Agent, Orders, live
from podidentity.nmi.path_watch import PathWatch, probe_pod
from podidentity.nmi.policies import (
    delegation_of,
    policy_of,
    prefetch_of,
    route_policy_of,
    scope_of,
    warn_of,
)
from podidentity.nmi.probe_requests import ProbeRequests
from podidentity.nmi.reporting.debug import permissions_shown, tokens_shown
from podidentity.nmi.reporting.endpoints import Check, Parts, endpoints
from podidentity.nmi.reporting.events import AgentWarning, AgentWarnings, PodEvents
from podidentity.nmi.reporting.metrics import add_tokens, kubernetes_errors
from podidentity.nmi.reporting.observing import Observation, observe
from podidentity.nmi.request.caller import Callers
from podidentity.nmi.request.decision import Decider
from podidentity.nmi.request.host_token import HostCallers
from podidentity.nmi.request.pipeline import AnswerCache, RequestPipeline
from podidentity.nmi.rules import trust_of
from podidentity.nmi.server.listener import Listener
from podidentity.nmi.sync.prefetch import Prefetcher
from podidentity.nmi.sync.secret_watch import WatchedSecrets
from podidentity.nmi.sync.watches import Watches
from podidentity.settings import NET_SOCKET, NmiSettings
from podidentity.supervisor.privileges import capabilities
from podidentity.supervisor.worker import Inherited
from podidentity.telemetry.lines import Writer
from podidentity.telemetry.process import keep_small
from podidentity.wire.events import PATH_PROVED, AgentReason, NodeName
from podidentity.wire.proxies import parse_proxies

_log = logging.getLogger("podidentity.nmi")


async def run(settings: NmiSettings, log: Writer, given: Inherited) -> None:
    """Serve until the supervisor, SIGTERM or SIGINT says otherwise; `log` gets requests' lines.

    Raises KubeError, OSError or ValueError where it cannot begin.
    """
    warn_of(settings.compat)
    clock = SystemClock()
    orders = Orders(given)
    async with AsyncExitStack() as stack:
        agent = _assemble(settings, clock, stack, log, orders.missing)
        # What is here now stays: the collector need not look at it again, 8 ms each time.
        gc.collect()
        gc.freeze()
        await live(agent, orders, clock)


def _assemble(
    settings: NmiSettings,
    clock: Clock,
    stack: AsyncExitStack,
    log: Writer,
    missing: Mapping[str, str],
) -> Agent:
    """Build what answers requests; `stack` ends it.

    `missing` are the addresses that other programs have, for as long as they do.
    """
    cluster = WatchedCluster(clock)
    net = NetClient(
        Path(settings.runtime_dir, NET_SOCKET),
        clock,
        version=__version__,
        mode=settings.attestation,
        uids=frozenset({0}),
        is_elsewhere=cluster.has_address,
    )
    seen = observe(settings, clock, stack, log)
    kube = Kube.connect(
        settings.kubeconfig,
        user_agent=_user_agent(settings),
        trust_env=False,
        failed=kubernetes_errors(seen.metrics),
    )
    stack.push_async_callback(kube.close)
    permissions = _permissions(settings, kube, clock, stack, seen)
    events = PodEvents(kube, clock, seen.metrics.events, node=settings.node)
    seen.requests.events = events
    imds = Imds.connect(
        settings.metadata_address,
        settings.metadata_port,
        clock=clock,
        user_agent=_user_agent(settings),
    )
    stack.push_async_callback(imds.close)
    secrets = WatchedSecrets(kube, clock)
    identity = None
    if settings.tokens_as == "node":
        as_node = kube.acting_as(f"system:node:{settings.node}")
        identity = NodeIdentity(as_node, clock, node=settings.node)
    issuers = _issuers(
        settings, clock, stack, kube=kube, identity=identity, imds=imds, secrets=secrets
    )
    tokens = TokenCache(
        issuers,
        clock,
        told=seen.requests.issued,
        current=partial(current_grants, directory=cluster),
    )
    stack.push_async_callback(tokens.close)
    prefetcher = Prefetcher(
        cluster=cluster,
        tokens=tokens,
        permissions=permissions,
        spare=imds.spare,
        clock=clock,
        policy=prefetch_of(settings),
    )
    # First what has ended goes: what is fetched next must not find it.
    cluster.follow(lambda _, ref: tokens.changed(ref))
    cluster.follow(prefetcher.changed)
    secrets.follow(tokens.changed)
    add_tokens(seen.metrics.registry, lambda: len(tokens))
    seen.known["tokens"] = lambda: tokens_shown(tokens.entries(), clock.time())
    attestor: Attestor | None = net
    if settings.attestation is AttestationMode.ADDRESS:
        _log.warning("--attestation=address: any pod can take another's tokens by its address")
        attestor = None
    decider = Decider(
        cluster=cluster, permissions=permissions, clock=clock, policy=policy_of(settings)
    )
    pipeline = RequestPipeline(
        callers=Callers(cluster, attestor, clock, trust=trust_of(settings)),
        host_callers=HostCallers(cluster, attestor, clock, delegation=delegation_of(settings)),
        decider=decider,
        tokens=tokens,
        metadata=imds,
        answers=AnswerCache(cluster, permissions, clock),
        log=seen.requests,
        clock=clock,
        policy=route_policy_of(settings),
        recorded_first=seen.audit is not None and seen.audit.required,
        take_probe=net.take_probe,
    )
    pods = Listener(pipeline, memo=pipeline)
    watches = Watches(kube, cluster, clock, scope=scope_of(settings))
    path = PathWatch(
        net,
        clock,
        pod=lambda: probe_pod(cluster.pods(), settings.own_namespace),
        pods_changed=cluster.changed,
        required=settings.path_probe,
    )
    checks: dict[str, Check] = {
        "interception": net.interception_problems,
        "attestation": net.attestation_problems,
        "path": path.problems,
        "watches": watches.problems,
        "permissions": permissions.problems if permissions else tuple,
        "listener": lambda: () if pods.serving else ("not listening",),
        "audit": seen.problems,
        **({"node-tokens": identity.problems} if identity else {}),
    }
    taint = None
    if settings.startup_taint:
        taint = StartupTaint(
            kube,
            clock,
            node=settings.node,
            key=settings.startup_taint,
            ready=lambda: not any(problems() for problems in checks.values()),
        )
    warnings = _warnings(net, path, seen, taint, missing, watches=watches)
    own = partial(cluster.pod, ObjectRef(settings.own_namespace, settings.own_pod))
    _tell_of_path(path, events, settings.node, own)
    parts = Parts(
        checks=checks,
        warnings=lambda: _said(settings, warnings()),
        net=net,
        path=path,
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
            path.run,
            watches.run,
            secrets.run,
            prefetcher.run,
            seen.requests.run,
            events.run,
            ProbeRequests(net, cluster, kube, clock, own=own, node=settings.node).run,
            AgentWarnings(
                events,
                clock,
                own=own,
                warnings=lambda: [
                    *warnings(),
                    *seen.requests.outcomes.warnings(cluster.pod),
                    *_facts(net, path),
                ],
            ).run,
            *pages.tasks,
            *([identity.run] if identity else []),
            *([taint.run] if taint else []),
            partial(keep_small, clock),
        ],
    )


def _permissions(
    settings: NmiSettings, kube: Kube, clock: Clock, stack: AsyncExitStack, seen: Observation
) -> RbacPermissions | None:
    """Return the questions to RBAC, closed by `stack`; None if nobody is to be asked."""
    choice = settings.authorization
    if choice is Authorization.OFF:
        _log.warning("--authorization=off: a tenant that may create an AzureIdentity may use any")
        return None
    if choice is Authorization.OBSERVE:
        _log.warning("--authorization=observe: a missing permission is told, and refuses nothing")
    permissions = RbacPermissions(kube, clock, outlives=settings.authorization_outlives)
    stack.push_async_callback(permissions.close)
    seen.known["permissions"] = lambda: permissions_shown(permissions.decisions())
    return permissions


def _issuers(
    settings: NmiSettings,
    clock: Clock,
    stack: AsyncExitStack,
    *,
    kube: Kube,
    identity: NodeIdentity | None,
    imds: Imds,
    secrets: WatchedSecrets,
) -> Mapping[IdentityType, TokenIssuer]:
    """Return who issues tokens for each type of identity: IMDS, or Entra by a credential."""
    transport = AzureTransport(parse_proxies(os.environ))
    endpoint = TokenEndpoint(user_agent=_user_agent(settings), transport=transport)
    stack.push_async_callback(endpoint.close)
    credentials: dict[IdentityType, CredentialSource] = {
        IdentityType.SERVICE_PRINCIPAL: SecretCredentials(secrets),
        IdentityType.CERTIFICATE: CertificateCredentials(secrets, Certificates(), clock),
        IdentityType.FEDERATED: FederatedCredentials(
            Assertions(kube, imds, clock, as_node=identity.as_node if identity else None),
            cloud=settings.cloud,
            namespace=settings.identities_namespace,
        ),
    }
    entra = {
        kind: EntraIssuer(endpoint, source, clock=clock, cloud=settings.cloud)
        for kind, source in credentials.items()
    }
    return {IdentityType.USER_ASSIGNED: imds, **entra}


def _warnings(
    net: NetClient,
    path: PathWatch,
    seen: Observation,
    taint: StartupTaint | None,
    missing: Mapping[str, str],
    *,
    watches: Watches,
) -> Callable[[], Sequence[AgentWarning]]:
    """Return what finds the warnings that only the node can tell.

    Every pod can read them in `/readyz`, so they name no tenant.
    """
    rights = _too_much_right()
    audit = seen.audit

    def look() -> list[AgentWarning]:
        state = net.state
        found = {
            AgentReason.TOO_MANY_RIGHTS: rights,
            AgentReason.AUDIT_NOT_WRITTEN: audit.warnings() if audit else (),
            AgentReason.SOURCES_UNGUARDED: state.sources if state else (),
            AgentReason.PATH_UNPROVED: path.warnings(),
            AgentReason.NODE_LACKS: [*(state.warnings if state else ()), *_taken(missing)],
            AgentReason.STARTUP_TAINT: taint.warnings() if taint else (),
            AgentReason.STALE_STATE: watches.warnings(),
        }
        return [AgentWarning(reason, text) for reason, texts in found.items() for text in texts]

    return look


def _taken(missing: Mapping[str, str]) -> list[str]:
    """Return what another program, such as the archived NMI, keeps from this one."""
    if not missing:
        return []
    named = ", ".join(f"{address} ({name})" for name, address in missing.items())
    return [
        f"another program has {named}, and pods are served without; end it, such as an NMI of AAD "
        "Pod Identity: NMI listens there within a second"
    ]


def _facts(net: NetClient, path: PathWatch) -> Iterator[AgentWarning]:
    """Yield for `podidentity check` what closes the node without NMI, and what leads pods here."""
    if net.state and (found := net.state.closed_by):
        yield AgentWarning(AgentReason.BOOT_CLOSED, " and ".join(found))
    if path.was_proved:
        yield AgentWarning(AgentReason.BACKEND, path.backend or "none")


def _tell_of_path(
    path: PathWatch, events: PodEvents, node: str, own: Callable[[], Pod | None]
) -> None:
    """Have a path that breaks, and that is whole again, told by events on the node and our pod."""

    def about() -> list[Pod | NodeName]:
        pod = own()
        return [NodeName(node), *([pod] if pod else [])]

    def broke(why: str) -> None:
        for each in about():
            events.warn(each, AgentReason.PATH_BROKEN, why, ends=PATH_PROVED)

    def mended(how: str) -> None:
        for each in about():
            events.tell(each, PATH_PROVED, how, ends=AgentReason.PATH_BROKEN)

    path.broke, path.mended = broke, mended


def _too_much_right() -> tuple[str, ...]:
    """Return what this process, which parses strangers' bytes, should not be or have."""
    held = "with capabilities" if capabilities() else "without a capability"
    if not capabilities() and os.getuid():
        return ()
    return (
        f"serve is user {os.getuid()}, {held}; a manifest with two containers gives it a user of "
        "its own, and none",
    )


def _said(settings: NmiSettings, warnings: Sequence[AgentWarning]) -> list[str]:
    """Return the warnings as `/readyz` says them, with what was given up by choice."""
    mode = settings.attestation
    chosen = [f"--attestation={mode}: {mode.weakness}"] if mode.weakness else []
    chosen += [f"{what}; {mend}" for what, mend in trust_of(settings).weaknesses()]
    return [*chosen, *(each.text for each in warnings)]


def _user_agent(settings: NmiSettings) -> str:
    return f"podidentity-nmi/{__version__} {settings.custom_user_agent}".strip()
