from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Hashable
from functools import partial

from podidentity.adapters.token_cache import TokenCache
from podidentity.core.decision import current_grants
from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.resources import (
    AccessToken,
    AzureIdentity,
    ClientId,
    Entra,
    Grant,
    IdentityType,
    ObjectRef,
    Tenant,
)
from tests.fakes import OTHER_CLIENT, FakeClock, cluster, identity, pod

LIFE = 3600
CAPACITY = 40
SHARE = 12


def principal(number: int) -> AzureIdentity:
    """Return an identity with a secret; two of them each are the same client of Entra."""
    return identity(
        f"i{number}",
        type=IdentityType.SERVICE_PRINCIPAL,
        client_id=ClientId.parse(f"{number // 2:08d}" + OTHER_CLIENT[8:]),
        resource_id=None,
        entra=Entra(tenant=Tenant("contoso.com"), secret=ObjectRef("shop", f"s{number}")),
    )


class Issuer:
    """Stamps each token with credential, audience and the true moment of its end."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.secrets: Counter[str] = Counter()
        self.unread: set[str] = set()
        self.failure: TokenUnavailable | None = None
        self.answering = asyncio.Event()
        self.answering.set()
        self.issued = 0

    def stamp(self, grant: Grant) -> tuple[str, str, int]:
        name = grant.identity.ref.name
        return (str(grant.identity.client_id), name, self.secrets[name])

    def credential(self, grant: Grant) -> Hashable | None:
        return None if grant.identity.ref.name in self.unread else self.stamp(grant)

    async def ready(self, grant: Grant) -> Hashable:
        await asyncio.sleep(0)
        self.unread.discard(grant.identity.ref.name)
        return self.stamp(grant)

    async def issue(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> AccessToken:
        del bypass_cache
        client, name, generation = self.stamp(grant)
        await self.answering.wait()
        if self.failure is not None:
            raise self.failure
        self.issued += 1
        end = int(self.clock.monotonic()) + LIFE
        return AccessToken(
            value=f"{client} {name} {generation} {resource} {end}",
            client_id=grant.identity.client_id,
            expires_on=int(self.clock.time()) + LIFE,
            not_before=int(self.clock.time()),
            resource=resource,
        )


class Node:
    """The cache between an issuer and pods that come and go; `check` asserts the invariants."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - the same node each time
        self.clock = FakeClock()
        self.issuer = Issuer(self.clock)
        self.identities = [principal(number) for number in range(6)]
        self.cluster = cluster(self.clock, *self.identities)
        self.cache = TokenCache(
            dict.fromkeys(IdentityType, self.issuer),
            self.clock,
            current=partial(current_grants, directory=self.cluster),
            capacity=CAPACITY,
            capacity_of_pod=SHARE,
            jitter=self.chance.random,
        )
        self.cluster.follow(lambda _, ref: self.cache.changed(ref))
        self.pods = [pod(f"p{number}") for number in range(8)]
        self.born = 8
        self.asking: set[asyncio.Task[None]] = set()
        self.seen: Counter[str] = Counter()

    def grant(self) -> Grant | None:
        """Return the grant of some pod by the current rules, if it has any."""
        named = self.chance.choice(self.identities)
        if self.cluster.identity(named.ref) is None:
            return None
        return Grant(identity=named, pod=self.chance.choice(self.pods))

    def ask(self) -> None:
        grant = self.grant()
        if grant is not None:
            self.asking.add(asyncio.create_task(self._ask(grant, self._audience())))

    def look(self) -> None:
        grant = self.grant()
        if grant is not None:
            resource = self._audience()
            kept = self.cache.cached(grant, resource)
            if kept is not None:
                self.seen["look"] += 1
                self.check(kept.token, grant, resource, self.issuer.stamp(grant)[2])

    def prepare(self) -> None:
        grant = self.grant()
        if grant is not None:
            self.asking.add(asyncio.create_task(self._prepare(grant, self._audience())))

    def rotate(self) -> None:
        number = self.chance.randrange(len(self.identities))
        self.issuer.secrets[f"i{number}"] += 1
        self.cache.changed(ObjectRef("shop", f"s{number}"))
        self.seen["rotate"] += 1

    def forget_secret(self) -> None:
        self.issuer.unread.add(f"i{self.chance.randrange(len(self.identities))}")

    def delete_or_create(self) -> None:
        named = self.chance.choice(self.identities)
        if self.cluster.identity(named.ref) is None:
            self.cluster.put(named)
        else:
            self.cluster.remove("AzureIdentity", named.ref)
            self.seen["delete"] += 1
            assert self.cache.audiences(named.ref) == []

    def churn(self) -> None:
        self.pods[self.chance.randrange(len(self.pods))] = pod(f"p{self.born}")
        self.born += 1

    def advance(self) -> None:
        self.clock.advance(self.chance.choice([0.1, 1.0, 20.0, 300.0, 3595.0]))

    def jump(self) -> None:
        self.clock.jump(self.chance.uniform(-10_000, 10_000))

    def fail(self, failure: TokenUnavailable | None) -> None:
        self.issuer.failure = failure

    def hang_or_answer(self) -> None:
        if self.issuer.answering.is_set():
            self.issuer.answering.clear()
        else:
            self.issuer.answering.set()

    def check(self, token: AccessToken, grant: Grant, resource: str, generation: int) -> None:
        """Neither foreign, nor of a secret that was rotated before it was asked for, nor over."""
        client, name, stamped, audience, end = token.value.split(" ")
        assert (client, audience) == (str(grant.identity.client_id), resource)
        assert name == grant.identity.ref.name
        assert generation <= int(stamped) <= self.issuer.secrets[name]
        assert int(end) > self.clock.monotonic()

    async def _ask(self, grant: Grant, resource: str) -> None:
        bypass = self.chance.random() < 0.05
        generation = self.issuer.stamp(grant)[2]
        try:
            found = await self.cache.fetch(grant, resource, bypass_cache=bypass)
        except TokenUnavailable as error:
            self.seen[type(error).__name__] += 1
            return
        self.seen[found.origin] += 1
        self.check(found.token, grant, resource, generation)

    async def _prepare(self, grant: Grant, resource: str) -> None:
        try:
            await self.cache.prepare(grant, resource)
        except TokenUnavailable as error:
            self.seen[type(error).__name__] += 1

    def _audience(self) -> str:
        return f"r{self.chance.randrange(1000 if self.chance.random() < 0.4 else 3)}"

    async def turn(self) -> None:
        """Run the tasks under way; fail if a check in them failed."""
        for _ in range(4):
            await asyncio.sleep(0)
        for done in [each for each in self.asking if each.done()]:
            self.asking.discard(done)
            done.result()
        assert len(self.cache) <= CAPACITY


STEPS = 20_000


async def test_whatever_happens_no_token_is_stale_foreign_or_over_and_memory_is_bounded() -> None:
    node = Node(seed=4)
    happens = (
        (node.ask, 50),
        (node.look, 20),
        (node.prepare, 3),
        (node.rotate, 1),
        (node.forget_secret, 1),
        (node.delete_or_create, 1),
        (node.churn, 3),
        (node.advance, 10),
        (node.jump, 1),
        (lambda: node.fail(None), 4),
        (lambda: node.fail(TokenSourceDown("away")), 1),
        (lambda: node.fail(TokenThrottled("slow", retry_after=5)), 1),
        (lambda: node.fail(TokenRefused("no", status=401, error="invalid_client")), 1),
        (lambda: node.fail(NotYetKnown("no", status=400, error="invalid_request")), 1),
        (node.hang_or_answer, 2),
    )
    steps, weights = zip(*happens, strict=True)
    for step in node.chance.choices(steps, weights, k=STEPS):
        step()
        await node.turn()
    node.issuer.answering.set()
    await asyncio.gather(*node.asking)
    await node.cache.close()
    # The node was busy with all of it.
    rare = min(node.seen, key=lambda each: node.seen[each])
    assert node.seen[rare] > 50, node.seen
    assert {"cache", "entra", "shared", "look", "rotate", "delete"} <= node.seen.keys()
    assert {"TokenSourceDown", "TokenThrottled", "TokenRefused", "NotYetKnown"} <= node.seen.keys()
