"""The ports of the core in memory, and the objects that most tests need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from podidentity.adapters.cluster import WatchedCluster
from podidentity.core.attestation import Proof, Verdict
from podidentity.core.decision import Use
from podidentity.core.errors import NotReady
from podidentity.core.ports import Clock
from podidentity.core.resources import (
    BINDING_LABEL,
    AccessToken,
    Assignment,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    ClientId,
    Fetched,
    Grant,
    IdentityType,
    ObjectRef,
    Origin,
    Pod,
    ResourceId,
    WorkloadIdentity,
)
from podidentity.wire.kube import Event, Page

NOW = 1_795_600_000.0
CLIENT = "11111111-2222-3333-4444-555555555555"
OTHER_CLIENT = "99999999-2222-3333-4444-555555555555"
RESOURCE_ID = (
    "/subscriptions/s/resourceGroups/g/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/orders"
)
VAULT = "https://vault.azure.net"
ADDRESS = "10.244.0.2"


class FakeClock:
    """Time that stands until a test moves it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._set_by = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._asleep = asyncio.Event()
        self.slept: list[float] = []

    def time(self) -> float:
        return NOW + self._now + self._set_by

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now + seconds, woken))
        self._asleep.set()
        try:
            await woken
        finally:
            self._sleepers = [each for each in self._sleepers if each[1] is not woken]

    def jump(self, seconds: float) -> None:
        """Let somebody set the clock, forward or back: no time passes."""
        self._set_by += seconds

    async def somebody_sleeps(self) -> None:
        """Return as soon as somebody waits for the time to pass."""
        while not self._sleepers:
            self._asleep.clear()
            await self._asleep.wait()

    async def somebody_slept(self, seconds: float, times: int) -> None:
        """Return as soon as that has been asked for so many times."""
        while self.slept.count(seconds) < times:
            self._asleep.clear()
            await self._asleep.wait()

    def advance(self, seconds: float) -> None:
        """Let the time pass; who has slept enough wakes."""
        self._now += seconds
        for due, woken in self._sleepers:
            if due <= self._now and not woken.done():
                woken.set_result(None)


class ImpatientClock(FakeClock):
    """Time that jumps to the end of each sleep: for loops that back off."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += seconds
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Uncached:
    """A token that is in no cache."""

    token: AccessToken
    fresh_until: float = -inf
    fresh_until_time: float = -inf


class FakeTokenSource:
    """Gives `token-1`, `token-2`, …, or fails as told; remembers who asked for what.

    A TokenSource and a TokenIssuer.
    """

    def __init__(self, *, life: int = 86_399) -> None:
        self.asked: list[tuple[AzureIdentity, str, bool]] = []
        self.grants: list[Grant] = []
        self.failures: list[Exception] = []
        self.open = asyncio.Event()
        self.open.set()
        self.begun = asyncio.Event()
        self.life = life
        self.padding = 0
        """Letters by which a token is longer."""
        self.until = inf
        """Until when the last request of a token waits."""
        self.unread = False
        """Whether `credential` cannot be told before `ready`, which waits for `readable`."""
        self.readable = asyncio.Event()
        self.readable.set()
        self.now: Callable[[], float] = lambda: NOW

    def credential(self, grant: Grant) -> Hashable | None:
        return None if self.unread else (grant.identity.type, grant.identity.client_id)

    async def ready(self, grant: Grant) -> Hashable:
        await self.readable.wait()
        return (grant.identity.type, grant.identity.client_id)

    async def fetch(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False, until: float = inf
    ) -> Fetched:
        self.until = until
        token = await self.issue(grant, resource, bypass_cache=bypass_cache)
        return Fetched(Uncached(token), Origin.IMDS)

    async def issue(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> AccessToken:
        identity = grant.identity
        self.grants.append(grant)
        self.asked.append((identity, resource, bypass_cache))
        number = len(self.asked)
        self.begun.set()
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        now = int(self.now())
        return AccessToken(
            value=f"token-{number}" + self.padding * "x",
            client_id=identity.client_id,
            expires_on=now + self.life,
            not_before=now,
            resource=resource,
        )


class FakePermissions:
    """Permits what the test says; remembers what was asked."""

    def __init__(self, *, allowed: bool = True) -> None:
        self.allowed: dict[Use, bool] = {}
        self.default = allowed
        self.asked: list[Use] = []
        self.failure: NotReady | None = None
        self.revision = 0

    def known(self, use: Use, since: float) -> bool | None:  # noqa: ARG002 - the port's
        return self.allowed.get(use)

    async def ask(self, use: Use, since: float, patience: float = 0.0) -> bool:  # noqa: ARG002 - the port's
        self.asked.append(use)
        if self.failure is not None:
            raise self.failure
        return self.allowed.setdefault(use, self.default)


class FakeKubeApi:
    """An API server that is asked for nothing; a test's own answers what it expects."""

    async def get(self, path: str) -> bytes:
        raise AssertionError(f"nobody expects a request for {path}")

    async def list(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        return await self.list_all(path, params)

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        raise AssertionError(f"nobody expects a list of {path} by {params}")

    async def pages(
        self, path: str, params: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Page, None]:
        yield await self.list_all(path, params)

    async def watch(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        resource_version: str,
        opened: Callable[[], None],
    ) -> AsyncGenerator[Event, None]:
        del resource_version
        events = self.watched(path, params or {})
        opened()
        async for event in events:
            yield event

    def watched(self, path: str, params: Mapping[str, str]) -> AsyncIterator[Event]:
        """Yield the events of a watch, from its beginning."""
        raise AssertionError(f"nobody expects a watch of {path} by {params}")

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        raise AssertionError(f"nobody expects an object at {path}: {body}")

    async def ask(self, path: str, question: Mapping[str, Any]) -> bytes:
        raise AssertionError(f"nobody expects a question at {path}: {question}")

    async def replace(self, path: str, body: Mapping[str, Any]) -> bytes:
        raise AssertionError(f"nobody expects an update of {path}: {body}")

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        raise AssertionError(f"nobody expects a change of {path}: {body}")


class FakeAttestor:
    """Says what the test tells it to; by default that every connection is the first pod's."""

    def __init__(self) -> None:
        self.verdict = Verdict.PROVEN
        self.uid: str | None = None
        """Of the owner of the socket; None: the first candidate; "": the node cannot tell."""
        self.root = self.unseen = self.guarded = False
        self.proxy = ""
        self.holders = 1
        self.asked: list[tuple[str, int, list[Pod]]] = []
        self.asks = True
        """Whether it can be asked without a task."""
        self.own: list[str] = []
        """Our addresses that local connections came to."""
        self.arrived_at: list[str] = []
        """Our addresses that all others came to."""

    async def prove(
        self, address: str, port: int, candidates: Sequence[Pod], own: str = ""
    ) -> Proof:
        self.arrived_at.append(own)
        return self.proof(address, port, candidates)

    def ask(
        self,
        address: str,
        port: int,
        candidates: Sequence[Pod],
        judged: Callable[[Proof], None],
        own: str = "",
    ) -> bool:
        self.arrived_at.append(own)
        return self.answer(judged, lambda: self.proof(address, port, candidates))

    def answer(self, judged: Callable[[Proof], None], proof: Callable[[], Proof]) -> bool:
        """Say at the next turn of the loop what `proof` returns, if it can be asked so."""
        if self.asks:
            asyncio.get_running_loop().call_soon(lambda: judged(proof()))
        return self.asks

    def proof(self, address: str, port: int, candidates: Sequence[Pod]) -> Proof:
        self.asked.append((address, port, list(candidates)))
        if self.uid is not None:
            unseen = self.unseen and not self.uid
            detail = "in cni-1234"
            return Proof(
                verdict=self.verdict,
                pod_uid=self.uid,
                unseen=unseen,
                proxy=self.proxy,
                holders=self.holders,
                guarded=self.guarded,
                detail=detail,
            )
        if not candidates:
            return Proof(verdict=Verdict.UNKNOWN, detail="no network namespace has the address")
        return Proof(verdict=self.verdict, pod_uid=candidates[0].uid, detail="in cni-1234")

    async def prove_local(self, address: str, port: int, own: str) -> Proof:
        self.own.append(own)
        self.asked.append((address, port, []))
        verdict, uid = self.verdict, self.uid or ""
        return Proof(verdict=verdict, pod_uid=uid, root=self.root, detail="user 0")


def pod(name: str = "orders-0", **changes: Any) -> Pod:
    """Return a pod of namespace shop with the label `orders`, at ADDRESS."""
    fields: dict[str, Any] = {
        "ref": ObjectRef("shop", name),
        "uid": f"uid-{name}",
        "node": "n1",
        "labels": {BINDING_LABEL: "orders"},
        "addresses": (ADDRESS,),
    }
    return Pod(**(fields | changes))


def identity(name: str = "orders", **changes: Any) -> AzureIdentity:
    """Return a user-assigned identity of namespace shop."""
    fields: dict[str, Any] = {
        "ref": ObjectRef("shop", name),
        "type": IdentityType.USER_ASSIGNED,
        "client_id": ClientId.parse(CLIENT),
        "resource_id": ResourceId.parse(RESOURCE_ID),
    }
    return AzureIdentity(**(fields | changes))


def binding(name: str = "orders-binding", **changes: Any) -> AzureIdentityBinding:
    """Return a binding of namespace shop from the label `orders` to the identity `orders`."""
    fields: dict[str, Any] = {
        "ref": ObjectRef("shop", name),
        "identity": "orders",
        "selector": "orders",
    }
    return AzureIdentityBinding(**(fields | changes))


def assigned(of: str = "orders", state: str = "Assigned", **changes: Any) -> AzureAssignedIdentity:
    """Return the controller's word that the identity is on node n1 for `pod()`."""
    fields: dict[str, Any] = {
        "ref": ObjectRef("default", f"orders-0-shop-{of}"),
        "pod": ObjectRef("shop", "orders-0"),
        "identity": ObjectRef("shop", of),
        "node": "n1",
        "state": Assignment(state),
    }
    return AzureAssignedIdentity(**(fields | changes))


def grant(of: AzureIdentity | None = None, **changes: Any) -> Grant:
    """Return the grant of an identity, `identity()` where none is named, to `pod()`."""
    fields: dict[str, Any] = {"identity": of or identity(), "pod": pod()}
    return Grant(**(fields | changes))


def cluster(clock: Clock, *objects: Any) -> WatchedCluster:
    """Return a synced cluster that holds these pods, identities and bindings."""
    return WatchedCluster.of(
        clock,
        pods=[each for each in objects if isinstance(each, Pod)],
        identities=[each for each in objects if isinstance(each, AzureIdentity)],
        bindings=[each for each in objects if isinstance(each, AzureIdentityBinding)],
        exceptions=[each for each in objects if isinstance(each, AzurePodIdentityException)],
        assigned=[each for each in objects if isinstance(each, AzureAssignedIdentity)],
        accounts=[each for each in objects if isinstance(each, WorkloadIdentity)],
    )
