"""How many of our files one request enters: what a reader must open to follow it.

Everything is real but the API server, which is in memory, and the other side of the three
connections that a request makes: the pod, IMDS, and `net`, which states the facts.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import podidentity
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.imds import Imds
from podidentity.adapters.net import NetClient
from podidentity.adapters.permission_cache import RbacPermissions
from podidentity.adapters.token_cache import TokenCache
from podidentity.core.attestation import AttestationMode
from podidentity.core.delegation import Delegation
from podidentity.core.resources import IdentityType
from podidentity.local_sockets import listen
from podidentity.nmi.reporting.metrics import NmiMetrics
from podidentity.nmi.reporting.request_log import AuditLog, RequestLog
from podidentity.nmi.request.caller import Callers
from podidentity.nmi.request.decision import Decider, DecisionPolicy
from podidentity.nmi.request.host_token import HostCallers
from podidentity.nmi.request.pipeline import AnswerCache, RequestPipeline, RoutePolicy
from podidentity.nmi.server.listener import Listener
from podidentity.settings import METADATA_ALLOWED
from podidentity.telemetry.lines import Json, Stream, Writer
from podidentity.telemetry.metrics import Registry
from podidentity.wire.imds import AllowList
from tests.adapters.scripted import answers, scripted
from tests.adapters.test_imds import TOKEN as IMDS_TOKEN
from tests.adapters.test_permission_cache import Server
from tests.fakes import VAULT, binding, cluster, identity, pod
from tests.nmi.talking import started_listener, talking

MOST_WARM, MOST_COLD = 5, 23
OURS = Path(podidentity.__file__).parent
REQUEST = (
    f"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource={VAULT} HTTP/1.1\r\n"
    "Host: 169.254.169.254\r\nMetadata: true\r\nUser-Agent: azsdk-python-identity\r\n\r\n"
).encode()


@contextmanager
def entered() -> Iterator[set[str]]:
    """Collect the files of ours whose functions are entered in this thread."""
    found: set[str] = set()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(f"{OURS}/"):
            found.add(str(Path(name).relative_to(OURS)))

    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)


async def state_facts(path: Path, uid: str) -> None:
    """Be `net` for one client: say of every connection that it is the pod's with this uid."""
    loop = asyncio.get_running_loop()
    with listen(path) as listening:
        connection, _ = await loop.sock_accept(listening)
    facts = [True, [["cni-1", "open", uid, 0]]]
    with connection:
        while packet := await loop.sock_recv(connection, 1 << 16):
            said = json.loads(packet)
            if said["type"] == "hello":
                packets = [said, {"type": "state", "proof": "kernel"}]
            else:
                asked = [each["id"] for each in said["questions"]]
                found = [{"id": number, "facts": facts} for number in asked]
                packets = [{"type": "answers", "answers": found}]
            for each in packets:
                await loop.sock_sendall(connection, json.dumps(each).encode())


@asynccontextmanager
async def proving(folder: Path, uid: str) -> AsyncIterator[NetClient]:
    """Run a client of such a `net`."""
    path = folder / "net.sock"
    serving = asyncio.create_task(state_facts(path, uid))
    await asyncio.sleep(0)
    ours = frozenset({os.getuid()})
    asking = NetClient(path, SystemClock(), version="1", mode=AttestationMode.KERNEL, uids=ours)
    running = asyncio.create_task(asking.run())
    try:
        async with asyncio.timeout(60):
            while asking.state is None:
                await asking.changed()
        yield asking
    finally:
        for task in (running, serving):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def agent(folder: Path) -> AsyncIterator[Listener]:
    clock = SystemClock()
    owner = pod(addresses=("127.0.0.1",))
    watched = cluster(clock, owner, identity(), binding())
    registry = Registry()
    metrics = NmiMetrics(registry)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    log, audit = (Writer(Stream(nowhere), name=name) for name in ("log", "audit"))
    api = Server()
    permissions = RbacPermissions(api, clock)
    life = {"expires_in": "86399", "expires_on": str(int(clock.time()) + 86_399)}
    async with scripted(answers(IMDS_TOKEN | life)) as metadata, proving(folder, owner.uid) as net:
        imds = Imds.connect("127.0.0.1", metadata.port, clock=clock, user_agent="ours")
        requests = RequestLog(
            log.write, Json(), metrics, clock, audit=AuditLog(audit, required=False)
        )
        tokens = TokenCache({IdentityType.USER_ASSIGNED: imds}, clock, told=requests.issued)
        pipeline = RequestPipeline(
            callers=Callers(watched, net, clock),
            host_callers=HostCallers(watched, net, clock, delegation=Delegation()),
            decider=Decider(
                cluster=watched, permissions=permissions, clock=clock, policy=DecisionPolicy()
            ),
            tokens=tokens,
            metadata=imds,
            answers=AnswerCache(watched, permissions, clock),
            log=requests,
            clock=clock,
            policy=RoutePolicy(allow=AllowList(METADATA_ALLOWED)),
        )
        listener = started_listener(pipeline, memo=pipeline)
        try:
            yield listener
        finally:
            await listener.close(0.0)
            await tokens.close()
            await permissions.close()
            await imds.close()
            for writer in (log, audit):
                writer.close()
            os.close(nowhere)


async def test_a_request_enters_few_files(tmp_path: Path) -> None:
    async with agent(tmp_path) as listener:
        with entered() as cold:
            async with talking(listener) as talk:
                assert (await talk.ask(REQUEST)).status == 200
        async with talking(listener) as talk:
            for _ in range(3):
                await talk.ask(REQUEST)
            warm: set[str] = set()
            for _ in range(5):
                # One of them may begin a new second, and is decided again.
                with entered() as found:
                    await talk.ask(REQUEST)
                warm = min(warm or found, found, key=len)
    assert len(warm) <= MOST_WARM, sorted(warm)
    assert len(cold) <= MOST_COLD, sorted(cold)
