"""`/host/token`, by the bytes that the Go client of the CSI driver's provider sends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from podidentity.adapters.cluster import WatchedCluster
from podidentity.core.attestation import Verdict
from podidentity.core.decision import Ambiguity
from podidentity.core.delegation import CSI_DRIVER, Delegation
from podidentity.core.errors import NotReady
from podidentity.core.resources import ClientId, ObjectRef, TokenRequest
from podidentity.nmi.request.decision import Granted, Outcome
from podidentity.nmi.request.host_token import HostCallers
from podidentity.nmi.server.messages import Caller
from tests.fakes import CLIENT, OTHER_CLIENT, VAULT, binding, identity, pod
from tests.nmi.agents import Agent, agent
from tests.nmi.talking import Reply, started_listener, talking
from tests.nmi.worlds import World, error_of

# Recorded from the provider's own Go code, https://github.com/Azure/
# secrets-store-csi-driver-provider-azure pkg/auth/auth.go: `resource` is not encoded.
REQUEST = (
    b"GET /host/token/?resource=https://vault.azure.net HTTP/1.1\r\n"
    b"Host: localhost:2579\r\n"
    b"User-Agent: Go-http-client/1.1\r\n"
    b"Podname: orders-0\r\n"
    b"Podns: shop\r\n"
    b"Accept-Encoding: gzip\r\n"
    b"\r\n"
)
MOUNTS = pod(csi_drivers=frozenset({CSI_DRIVER}), addresses=())
"""It has no address yet: its volumes come first."""
PROVIDER = pod(
    "provider",
    ref=ObjectRef("kube-system", "provider"),
    service_account="csi-secrets-store-provider-azure",
    host_network=True,
)
WORLD = (MOUNTS, PROVIDER, identity(), binding())


async def say(nmi: Agent, request: bytes = REQUEST) -> Reply:
    async with talking(nmi.listener) as talk:
        return await talk.ask(request)


def known(nmi: Agent, uid: str = PROVIDER.uid) -> None:
    nmi.attestor.uid = uid


async def test_the_provider_gets_what_its_go_types_read() -> None:
    async with agent(*WORLD) as nmi:
        known(nmi)
        reply = await say(nmi)
    assert (reply.status, reply.header("Content-Type")) == (200, ["application/json"])
    assert reply.json == {
        "token": {
            "access_token": "token-1",
            "refresh_token": "",
            "expires_in": "86399",
            "expires_on": "1795686399",
            "not_before": "1795600000",
            "resource": VAULT,
            "token_type": "Bearer",
        },
        "clientid": CLIENT,
    }


@pytest.mark.parametrize("path", ["/host/token", "/host/token/"])
@pytest.mark.parametrize("asked", ["client_id=" + CLIENT, "msi_res_id=", "object_id=", ""])
async def test_an_identity_may_be_named_as_elsewhere(path: str, asked: str) -> None:
    query = f"{path}?resource={VAULT}&{asked}".encode()
    async with agent(*WORLD) as nmi:
        known(nmi)
        reply = await say(nmi, REQUEST.replace(b"/host/token/?resource=" + VAULT.encode(), query))
    assert (reply.status, reply.json["clientid"]) == (200, CLIENT)


@pytest.mark.parametrize(
    ("old", "new", "status", "why"),
    [
        (b"Podns: shop\r\n", b"", 400, "missing 'podname' and 'podns' from request header"),
        (b"Podname: orders-0", b"Podname: a/b", 400, "header 'podname' must be one name"),
        (b"?resource=https://vault.azure.net", b"", 400, "parameter resource is missing"),
        (b"?resource=", b"?resource=a&resource=", 400, "'resource' is given twice"),
        (b"Podns: shop\r\n", b"Podns: shop\r\nX-Forwarded-For: 1.2.3.4\r\n", 400, "X-Forwarded"),
        (b"Podname: orders-0", b"Podname: orders-1", 404, "no pod shop/orders-1 is known"),
        (b"Podname: orders-0", b"Podname: plain", 403, "mounts no volume of secrets-store"),
        (b"net ", b"net&client_id=" + OTHER_CLIENT.encode() + b" ", 400, "has no identity"),
        (b"GET", b"POST", 405, "Only GET"),
        (b"/host/token/", b"/host/token/x", 404, "No such path"),
    ],
)
async def test_a_request_that_cannot_be_served_gets_the_reason(
    old: bytes, new: bytes, status: int, why: str
) -> None:
    request = REQUEST.replace(old, new)
    assert request != REQUEST
    async with agent(*WORLD, pod("plain")) as nmi:
        known(nmi)
        asking = asyncio.create_task(say(nmi, request))
        if "no pod" in why:
            await nmi.clock.somebody_sleeps()
            nmi.clock.advance(2)
        reply = await asking
        assert nmi.tokens.asked == []
    assert (reply.status, why in reply.json["error_description"]) == (status, True)


@pytest.mark.parametrize(
    ("objects", "status", "why"),
    [
        ((pod(labels={}, csi_drivers=frozenset({CSI_DRIVER})), PROVIDER), 404, "Identity not"),
        ((MOUNTS, PROVIDER), 404, "No AzureIdentityBinding"),
        ((MOUNTS, PROVIDER, binding(ref=ObjectRef("bank", "b"))), 404, "in namespace shop"),
    ],
)
async def test_a_pod_without_an_identity_has_none_here_either(
    objects: tuple[Any, ...], status: int, why: str
) -> None:
    async with agent(*objects) as nmi:
        known(nmi)
        reply = await say(nmi)
    assert (reply.status, reply.json["error"]) == (status, "not_found")
    assert why in reply.json["error_description"]
    assert "bank" not in reply.body.decode(), "the event is the namespace's to read"


@pytest.mark.parametrize(
    ("verdict", "uid", "status"),
    [
        (Verdict.PROVEN, "uid-stranger", 403),
        (Verdict.PROVEN, "", 403),
        (Verdict.FORGED, PROVIDER.uid, 403),
        (Verdict.GONE, PROVIDER.uid, 503),
        (Verdict.UNKNOWN, PROVIDER.uid, 503),
    ],
)
async def test_nobody_but_the_provider_gets_a_token(
    verdict: Verdict, uid: str, status: int
) -> None:
    stranger = pod("stranger", host_network=True, addresses=())
    async with agent(*WORLD, stranger) as nmi:
        nmi.attestor.verdict, nmi.attestor.uid, nmi.attestor.root = verdict, uid, True
        reply = await say(nmi)
        assert nmi.tokens.asked == []
    assert reply.status == status


async def test_the_line_in_the_log_names_the_pod_and_who_asked() -> None:
    async with agent(*WORLD) as nmi:
        known(nmi)
        await say(nmi)
    (line,) = nmi.record.lines
    assert (line["pod"], line["namespace"], line["status"]) == ("orders-0", "shop", 200)
    assert line["proof"] == "asked by kube-system/provider"
    assert "token-1" not in json.dumps(line, default=str)


async def test_the_kernel_is_asked_about_the_address_of_ours_that_was_connected_to() -> None:
    """Another process may connect from the provider's port to another one."""
    async with agent(*WORLD) as nmi:
        known(nmi)
        other = started_listener(nmi.pipeline, "127.0.0.3", 0)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.3", other.port)
            writer.write(REQUEST)
            await reader.readuntil(b"\r\n")
            writer.close()
        finally:
            await other.close(0.0)
        await say(nmi)
    assert nmi.attestor.own == ["127.0.0.3", "127.0.0.1"]


async def ask(
    world: World, address: str = "127.0.0.1", *, attested: bool = True, **allowed: Any
) -> Outcome:
    attestor = world.attestor if attested else None
    delegation = Delegation(**allowed)
    callers = HostCallers(world.cluster, attestor, world.clock, delegation=delegation)
    subject = await callers.identify(Caller(address, 40_000), MOUNTS.ref)
    pipeline = world.pipeline(world.decider())
    request, begun = TokenRequest(resource=VAULT), world.clock.monotonic()
    return await pipeline.outcome(subject, request, Ambiguity.WEIGHT, begun=begun)


@pytest.mark.parametrize("address", ["10.244.0.2", "10.240.0.4", "fd00::1", ""])
async def test_only_loopback_may_ask_whatever_is_allowed(address: str) -> None:
    world = World(*WORLD)
    world.attestor.root = True
    outcome = await ask(world, address, root=True)
    assert str(error_of(outcome)) == "the connection is not from this node"
    assert outcome.evidence.delegated
    assert world.attestor.asked == []


@pytest.mark.parametrize("verdict", Verdict)
async def test_whatever_becomes_of_a_request_it_is_known_to_be_in_a_pods_name(
    verdict: Verdict,
) -> None:
    world = World(*WORLD)
    world.attestor.verdict, world.attestor.root = verdict, True
    outcome = await ask(world, root=True)
    assert outcome.evidence.delegated
    assert isinstance(outcome, Granted) is (verdict is Verdict.PROVEN)


@pytest.mark.parametrize(("attested", "root"), [(True, True), (False, True)])
async def test_root_of_the_node_is_served_where_it_is_allowed(
    *, attested: bool, root: bool
) -> None:
    world = World(*WORLD)
    world.attestor.root = root
    assert not isinstance(await ask(world, attested=attested), Granted)
    assert isinstance(await ask(world, attested=attested, root=True), Granted)


async def test_a_pod_that_the_watch_has_not_told_of_yet_is_waited_for() -> None:
    world = World(PROVIDER, identity(), binding())
    world.attestor.uid = PROVIDER.uid
    asking = asyncio.create_task(ask(world))
    await world.clock.somebody_sleeps()
    world.cluster.put_pod(MOUNTS)
    assert isinstance(await asking, Granted)


async def test_a_pod_is_waited_for_to_the_end_of_two_seconds_whatever_else_changes() -> None:
    world = World(PROVIDER, identity(), binding())
    world.attestor.uid = PROVIDER.uid
    asking = asyncio.create_task(ask(world))
    await world.clock.somebody_sleeps()
    world.clock.advance(1.5)
    world.cluster.put(identity("another"))
    await world.clock.somebody_slept(0.5, 1)
    world.cluster.put_pod(MOUNTS)
    assert isinstance(await asking, Granted)


async def test_before_the_pods_of_the_node_have_been_read_none_is_unknown() -> None:
    world = World()
    world.cluster = WatchedCluster(world.clock)
    world.cluster.put_pod(PROVIDER)
    world.attestor.uid = PROVIDER.uid
    asking = asyncio.create_task(ask(world))
    await world.clock.somebody_sleeps()
    world.clock.advance(2)
    assert isinstance(error_of(await asking), NotReady)


async def test_the_heaviest_identity_is_the_pods_here() -> None:
    second = identity("second", client_id=ClientId.parse(OTHER_CLIENT))
    world = World(*WORLD, second, binding("b2", identity="second", weight=5))
    world.attestor.uid = PROVIDER.uid
    outcome = await ask(world)
    assert outcome.identity == second
