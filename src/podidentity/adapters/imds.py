"""The client of the node's Instance Metadata Service: tokens, and other metadata for pods.

IMDS sees the node's address. So this client builds each request itself from a few checked values,
and never exceeds IMDS's rate limit for a node.

All pods of a node share that limit, and IMDS would answer 429 to a pod that did nothing wrong. So
requests are queued and sent at the rate that IMDS allows. Namespaces take turns, and within a
namespace its pods: a tenant with many pods delays a neighbour by one turn. A request is refused at
once only if it could not be answered in time, or if its pod or namespace has too many in the queue.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#rate-limiting
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#retry-guidance
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from math import ceil, inf
from typing import Self

import httpx2

from podidentity.bounded_answers import no_answer
from podidentity.core.errors import TokenSourceDown, TokenThrottled
from podidentity.core.ports import Clock
from podidentity.core.rate_limits import FairQueue, Flow, SlidingWindow
from podidentity.core.resources import AccessToken, Grant
from podidentity.wire.imds import MetadataAnswer, parse_answer, render_request

SECONDS = 9.0
"""Timeout of an answer, with the time in the queue: Go's and Terraform's clients wait for ten."""
RECONNECT_SECONDS = 0.25
"""Before the second attempt to connect."""
LONGEST_ANSWER = 1 << 20
RATE = 20
"""Token requests in a second."""
AT_ONCE = 5
GENERAL_RATE = 5
"""Other requests in a second."""
SPAN = 1.1
"""Seconds of the window; 10 % more than IMDS's second, because requests may arrive closer together
than they were sent."""
MOST_OF_POD = 30
"""Queued requests of one pod. Its budget of cache misses is ten at once, and two a second."""
MOST_OF_NAMESPACE = 150
"""Queued requests of one namespace: at the rate above they take eight seconds."""
FOR_TURN = 0.9
"""Part of a request's time in which its turn must come; the rest is for the answer."""

_TIMEOUT = httpx2.Timeout(SECONDS, connect=2)


class Imds:
    """A client of IMDS; a core.ports.TokenIssuer. Close it when done."""

    def __init__(self, client: httpx2.AsyncClient, clock: Clock, *, seconds: float) -> None:
        self._client = client
        self._clock = clock
        self._seconds = seconds
        self._tokens = Quota(RATE, clock)
        self._general = Quota(GENERAL_RATE, clock)

    @classmethod
    def connect(
        cls, address: str, port: int, *, clock: Clock, user_agent: str, seconds: float = SECONDS
    ) -> Self:
        """Return a client; nothing is sent yet. It ignores the proxies of the environment."""
        client = httpx2.AsyncClient(
            base_url=f"http://{address}:{port}",
            headers={"Metadata": "true", "User-Agent": user_agent},
            limits=httpx2.Limits(
                max_connections=2 * AT_ONCE, max_keepalive_connections=2 * AT_ONCE
            ),
            timeout=_TIMEOUT,
            trust_env=False,
        )
        return cls(client, clock, seconds=seconds)

    async def close(self) -> None:
        await self._tokens.close()
        await self._general.close()
        await self._client.aclose()

    def credential(self, grant: Grant) -> Hashable:
        """Return the key of the grant's tokens, without the audience: the requested id."""
        identity = grant.identity
        named = identity.client_id or identity.resource_id or identity.object_id
        # The fields that the answer is checked against belong to the key: a wrong field in one
        # AzureIdentity then does no harm to another one.
        return ("imds", named, identity.resource_id, identity.system_assigned)

    async def ready(self, grant: Grant) -> Hashable:
        """Return `credential`: nothing must be read first."""
        return self.credential(grant)

    async def issue(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> AccessToken:
        """Return a token of the grant's identity for `resource`; raise a TokenUnavailable.

        Other programs of the node may use up IMDS's quota: after a 429 the request is repeated at
        the time that IMDS names, if that is before the timeout.
        """
        target = render_request(grant.identity, resource, bypass_cache=bypass_cache)
        flow = Flow(grant.pod.ref.namespace, grant.pod.uid)
        until = self._clock.monotonic() + self._seconds
        while True:
            answer, headers = await self._get(target, "application/json", self._tokens, flow, until)
            try:
                return parse_answer(
                    answer.status,
                    answer.body,
                    identity=grant.identity,
                    resource=resource,
                    now=self._clock.time(),
                    retry_after=headers.get("Retry-After", ""),
                )
            except TokenThrottled as error:
                self._tokens.pause(error.retry_after)
                if self._clock.monotonic() + error.retry_after >= until:
                    raise

    async def spare(self) -> None:
        """Return when the quota has room for a request in the background."""
        await self._tokens.spare()

    async def metadata(self, target: str, accept: str, flow: Flow) -> MetadataAnswer:
        """Return IMDS's answer to path and query `target`, requested by `flow`.

        Raises TokenSourceDown, or TokenThrottled if the queue is too long.
        """
        until = self._clock.monotonic() + self._seconds
        wanted = accept if _is_plain(accept) else "*/*"
        answer, _ = await self._get(target, wanted, self._general, flow, until)
        return answer

    async def _get(
        self, target: str, accept: str, quota: Quota, flow: Flow, until: float
    ) -> tuple[MetadataAnswer, httpx2.Headers]:
        left = until - self._clock.monotonic()
        try:
            async with asyncio.timeout(left):
                try:
                    return await self._once(target, accept, quota, flow, left)
                except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                    # IMDS closed a pooled connection just as we used it: no answer was lost.
                    return await self._once(target, accept, quota, flow, left)
                except httpx2.ConnectError:
                    # Nothing was sent. Somebody took one of the node's routing rules away, and the
                    # rest keeps us from IMDS as well, until they are repaired.
                    await self._clock.sleep(RECONNECT_SECONDS)
                    return await self._once(target, accept, quota, flow, left)
        except TimeoutError as error:
            raise TokenSourceDown(f"IMDS did not answer within {self._seconds:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise TokenSourceDown(f"IMDS cannot be asked: {no_answer(error)}") from error

    async def _once(
        self, target: str, accept: str, quota: Quota, flow: Flow, seconds: float
    ) -> tuple[MetadataAnswer, httpx2.Headers]:
        asking = self._client.stream("GET", target, headers={"Accept": accept})
        async with quota.turn(flow, seconds), asking as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > LONGEST_ANSWER:
                    raise TokenSourceDown(f"IMDS sent more than {LONGEST_ANSWER} bytes")
            content_type = response.headers.get("Content-Type", "application/json")
            answer = MetadataAnswer(
                status=response.status_code,
                content_type=content_type if _is_plain(content_type) else "application/json",
                body=bytes(body),
            )
            return answer, response.headers


def _is_plain(value: str) -> bool:
    """Whether a header's value is visible ASCII: a pod may send any bytes."""
    return value.isascii() and value.isprintable() and value == value.strip() != ""


# The rate limit.


class Quota:
    """A limit of requests a second and at once, with a fair queue."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._clock = clock
        self._window = SlidingWindow(rate, SPAN)
        self._reserve = rate // 2
        self._places = AT_ONCE
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(
            most_of_pod=MOST_OF_POD, most_of_namespace=MOST_OF_NAMESPACE
        )
        self._idle = asyncio.Event()
        """Set while nothing waits."""
        self._idle.set()
        self._timer: asyncio.Task[None] | None = None
        """Sleeps until the window has room again."""
        self._paused = -inf
        """Until when IMDS has asked for a pause, in monotonic seconds."""

    async def close(self) -> None:
        """Cancel the timer; no queued request is sent any more."""
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)

    @asynccontextmanager
    async def turn(self, flow: Flow, seconds: float) -> AsyncIterator[None]:
        """Wait in the queue for a turn of `flow`, and hold it during the block.

        Raises TokenThrottled if the turn does not come early enough to get an answer within
        `seconds`; at once, if that is known at the start.
        """
        seconds *= FOR_TURN
        since = self._clock.monotonic()
        turn = self._enqueued(flow, seconds)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.cancelled():
                self._queue.remove(flow, turn)
                self._mark_idle()
            else:
                # It came in this very moment.
                self._release()
            if isinstance(error, TimeoutError):
                raise self._too_late(seconds, since) from None
            raise
        try:
            yield
        finally:
            self._release()

    def pause(self, seconds: float) -> None:
        """Send nothing for `seconds`: IMDS has asked for it."""
        self._paused = max(self._paused, self._clock.monotonic() + seconds)
        self._window.pause(self._paused)

    async def spare(self) -> None:
        """Return when the queue is empty and half of a second's requests are left."""
        while True:
            await self._idle.wait()
            wait = self._window.wait(self._clock.monotonic(), leaving=self._reserve)
            if wait <= 0:
                return
            await self._clock.sleep(wait)

    def _enqueued(self, flow: Flow, seconds: float) -> asyncio.Future[None]:
        now = self._clock.monotonic()
        wait = self._window.wait(now) + self._queue.ahead(flow) / self._window.rate
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if wait > seconds or not self._queue.put(flow, turn):
            raise self._too_late(wait, now)
        self._idle.clear()
        self._dispatch()
        return turn

    def _release(self) -> None:
        self._places += 1
        self._dispatch()

    def _dispatch(self) -> None:
        """Give turns to queued requests; set the timer if the window is full."""
        while self._places and len(self._queue):
            now = self._clock.monotonic()
            wait = self._window.wait(now)
            if wait > 0:
                self._wake_in(wait)
                return
            turn = self._queue.pop()
            self._mark_idle()
            # Its request may have been cancelled at this moment.
            if not turn.cancelled():
                self._window.take(now)
                self._places -= 1
                turn.set_result(None)

    def _wake_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.create_task(self._sleep(seconds))

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timer = None
        self._dispatch()

    def _mark_idle(self) -> None:
        if not len(self._queue):
            self._idle.set()

    def _too_late(self, wait: float, since: float) -> TokenThrottled:
        """Return why no turn comes: IMDS has the node pause since then, or the pod's share."""
        retry_after = max(1, ceil(wait))
        if self._paused > since:
            return TokenThrottled("IMDS: Too many requests of this node.", retry_after=retry_after)
        return TokenThrottled(
            "The pod, and its namespace, ask IMDS for more than their share.",
            retry_after=retry_after,
            of_caller=True,
        )
