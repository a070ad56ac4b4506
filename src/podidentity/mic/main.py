"""The controller, assembled: everything is built from the settings on this page.

watches ──▶ driver ──▶ controller (decides) ──▶ driver ──▶ neighbours ──▶ Azure, API server
              ▲
election ─────┘ leads until …, leads no more
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from podidentity import __version__
from podidentity.adapters.arm import ArmCalls
from podidentity.adapters.azure_transport import AzureTransport
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.entra.issuer import TokenEndpoint
from podidentity.adapters.imds import Imds
from podidentity.adapters.kube import Kube
from podidentity.build import build
from podidentity.core.authorities import CLOUDS, PUBLIC, STACK, Cloud
from podidentity.core.ports import Clock
from podidentity.core.resources import ObjectRef, Pod
from podidentity.mic.controller import Assign, Controller
from podidentity.mic.driver import Driver
from podidentity.mic.election import Election
from podidentity.mic.metrics import MicMetrics, add_state
from podidentity.mic.neighbours import Neighbours, NotLeading
from podidentity.mic.pages import PageServer, probes, scrapes
from podidentity.mic.policies import controller_settings
from podidentity.mic.signin import Configured, SignIn, credential_of, read_cloud_config
from podidentity.mic.warnings import OwnWarnings
from podidentity.mic.watches import ControllerWatches
from podidentity.settings import MicSettings
from podidentity.telemetry.metrics import Registry
from podidentity.telemetry.process import keep_small
from podidentity.wire.azure_environment import parse_environment
from podidentity.wire.proxies import parse_proxies

IMDS = ("169.254.169.254", 80)


async def run(settings: MicSettings) -> None:
    """Run until SIGTERM or SIGINT; raise KubeError, OSError or ValueError if it cannot begin."""
    clock = SystemClock()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        parts = await _assemble(settings, clock, stack)
        gc.collect()
        gc.freeze()
        await parts.live(stopped)


class Mic:
    """The controller's parts that its life is made of."""

    def __init__(
        self,
        election: Election,
        clock: Clock,
        *others: ControllerWatches | Driver | OwnWarnings | SignIn,
    ) -> None:
        self._election = election
        self._clock = clock
        self._tasks = [election, *others]

    async def live(self, stopped: asyncio.Event) -> None:
        """Watch, stand for election and work, until `stopped`; then hand over at once."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each.run()) for each in self._tasks]
            tasks.append(group.create_task(keep_small(self._clock)))
            await stopped.wait()
            await self._election.release()
            for task in tasks:
                task.cancel()


async def _assemble(settings: MicSettings, clock: Clock, stack: AsyncExitStack) -> Mic:
    me = settings.lease_holder or socket.gethostname()
    metrics = MicMetrics(Registry(), clock.monotonic)
    kube = _connect(settings, stack)
    transport = AzureTransport(parse_proxies(os.environ), connections=100)
    sign_in = _sign_in(settings, clock, stack, me, transport)
    election = Election(
        _connect(settings, stack),  # a renewal waits for no other request's connection
        clock,
        me=me,
        lock=ObjectRef(settings.lease_namespace, settings.lease_name),
        seconds=int(settings.lease_duration),
    )

    def may_write() -> None:
        if not election.leading:
            raise NotLeading

    decides = controller_settings(settings)
    watches = ControllerWatches(
        kube,
        clock,
        namespace=settings.own_namespace,
        asks_permission=decides.asks_permission,
    )
    arm = await stack.enter_async_context(
        ArmCalls(
            sign_in,
            clock,
            cloud=cloud_of(settings),
            transport=transport,
            user_agent=_user_agent(settings),
        )
    )
    neighbours = Neighbours(
        arm,
        kube,
        watches,
        clock,
        namespace=settings.own_namespace,
        me=me,
        may_write=may_write,
        rejected=sign_in.rejected,
    )
    controller = Controller(decides)
    driver = Driver(
        controller,
        neighbours,
        clock,
        metrics,
        leading=lambda: election.leading,
    )
    watches.follow(driver.tell)
    election.follow(led=driver.led, lost=driver.lost)
    add_state(
        metrics.registry,
        leading=lambda: election.leading,
        elections=lambda: election.elections,
        paused=lambda: (watches.pauses.all, len(watches.pauses.hosts)),
        watched=lambda: [
            (each.what, each.synced and not each.trouble) for each in watches.followed()
        ],
    )
    checks = {
        "watches": watches.problems,
        "lease": election.problems,
        "azure": sign_in.problems,
    }

    made = build()

    def said() -> dict[str, object]:
        return {
            "leader": election.leader,
            "waits_for": election.waits_for,
            "paused": str(watches.pauses),
            "azure": metrics.troubles(),
            "under_way": driver.under_way,
            "build": made,
        }

    served = [
        (settings.probe_port, probes(leading=lambda: election.leading, checks=checks, said=said))
    ]
    if settings.prometheus_port:
        served.append((settings.prometheus_port, scrapes(metrics.registry)))
    for port, pages in served:
        stack.callback((await PageServer(pages).serve(port)).close)
    warnings = OwnWarnings(
        kube,
        clock,
        Pod(
            ref=ObjectRef(settings.own_namespace, settings.own_pod),
            uid=settings.own_pod_uid,
            labels={},
        ),
        leading=lambda: election.leading,
        troubles=lambda: controller.troubles(driver.now()),
    )
    tells = [warnings] if settings.own_pod else []
    signs_in = [] if decides.assign is Assign.NONE else [sign_in]
    return Mic(election, clock, watches, driver, *tells, *signs_in)


def _connect(settings: MicSettings, stack: AsyncExitStack) -> Kube:
    kube = Kube.connect(
        settings.kubeconfig, user_agent=_user_agent(settings), trust_env=False, patience=0
    )
    stack.push_async_callback(kube.close)
    return kube


def _sign_in(
    settings: MicSettings,
    clock: Clock,
    stack: AsyncExitStack,
    me: str,
    transport: AzureTransport,
) -> SignIn:
    user_agent = _user_agent(settings)
    endpoint = TokenEndpoint(user_agent=user_agent, transport=transport)
    stack.push_async_callback(endpoint.close)
    imds = Imds.connect(*IMDS, clock=clock, user_agent=user_agent)
    stack.push_async_callback(imds.close)
    configured = Configured(
        cloud_config=settings.cloud_config,
        token_file=settings.token_file,
        client_id=settings.client_id,
        # There is no flag for it: everybody on the node can read flags.
        client_secret=os.environ.get("CLIENT_SECRET", ""),
        tenant=settings.tenant,
        managed=settings.managed_identity,
        managed_client_id=settings.managed_client_id,
    )
    return SignIn(
        partial(credential_of, configured),
        endpoint=endpoint,
        imds=imds,
        cloud=cloud_of(settings),
        clock=clock,
        own=ObjectRef(settings.own_namespace, me),
    )


def cloud_of(settings: MicSettings) -> Cloud:
    """Return the cloud that is configured; raise ValueError."""
    file = read_cloud_config(settings.cloud_config) if settings.cloud_config else None
    name = (file.cloud if file else "") or settings.cloud or PUBLIC.name
    if name.lower() == STACK.lower():
        if not settings.environment_file:
            raise ValueError(f"cloud {STACK} needs AZURE_ENVIRONMENT_FILEPATH")
        found = parse_environment(Path(settings.environment_file).read_bytes())
        if not found.resource_manager:
            raise ValueError(f"{settings.environment_file} names no resourceManagerEndpoint")
        return found
    known = CLOUDS.get(name.lower())
    if known is None:
        names = ", ".join(sorted({cloud.name for cloud in CLOUDS.values()} | {STACK}))
        raise ValueError(f"the cloud must be one of {names}, not {name!r}")
    return known


def _user_agent(settings: MicSettings) -> str:
    return " ".join(filter(None, [f"podidentity-mic/{__version__}", settings.custom_user_agent]))
