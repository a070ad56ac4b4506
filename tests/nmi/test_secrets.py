from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress

import msgspec
import pytest

from podidentity.core.errors import NotYetKnown, TokenSourceDown
from podidentity.core.resources import ObjectRef
from podidentity.lasting import STARTING
from podidentity.nmi.sync.secret_watch import IDLE, WatchedSecrets
from podidentity.wire.kube import Event, KubeError, Page
from tests.fakes import FakeClock, FakeKubeApi

ORDERS = ObjectRef("shop", "orders")


def raw(ref: ObjectRef, value: str) -> msgspec.Raw:
    meta = {"namespace": ref.namespace, "name": ref.name, "resourceVersion": "2"}
    data = {"clientSecret": b64encode(value.encode()).decode()}
    return msgspec.Raw(json.dumps({"metadata": meta, "data": data}).encode())


class Cluster(FakeKubeApi):
    """An API server that has secrets, and tells whoever watches what becomes of them."""

    def __init__(self, **values: str) -> None:
        self.values = {ObjectRef("shop", name): value for name, value in values.items()}
        self.asked: list[tuple[str, str]] = []
        self.watching: dict[ObjectRef, asyncio.Queue[Event]] = {}
        self.opened = asyncio.Event()
        self.failure: KubeError | None = None
        self.mute = False

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        self.asked.append((path, (params or {})["fieldSelector"]))
        if self.mute:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        ref = self._ref(path, params)
        found = (raw(ref, self.values[ref]),) if ref in self.values else ()
        return Page(items=found, resource_version="1")

    async def watch(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        resource_version: str,
        opened: Callable[[], None],
    ) -> AsyncGenerator[Event, None]:
        del resource_version
        ref = self._ref(path, params)
        queue = self.watching[ref] = asyncio.Queue()
        opened()
        self.opened.set()
        try:
            while True:
                yield await queue.get()
                queue.task_done()
        finally:
            del self.watching[ref]

    async def tell(self, kind: str, ref: ObjectRef, value: str = "x") -> None:
        await self.opened.wait()
        queue = self.watching[ref]
        queue.put_nowait(Event(type=kind, object=raw(ref, value)))
        await queue.join()

    def _ref(self, path: str, params: Mapping[str, str] | None) -> ObjectRef:
        name = (params or {})["fieldSelector"].removeprefix("metadata.name=")
        return ObjectRef(path.split("/")[4], name)


def value(secrets: WatchedSecrets, ref: ObjectRef = ORDERS) -> bytes | None:
    found = secrets.known(ref)
    return found.entries["clientSecret"] if found else None


async def test_a_secret_is_asked_for_by_its_name_at_its_first_need_only() -> None:
    server = Cluster(orders="s3cret")
    secrets = WatchedSecrets(server, FakeClock())
    assert secrets.known(ORDERS) is None
    assert server.asked == []
    assert (await secrets.read(ORDERS)).entries == {"clientSecret": b"s3cret"}
    await secrets.read(ORDERS)
    assert value(secrets) == b"s3cret"
    assert server.asked == [("/api/v1/namespaces/shop/secrets", "metadata.name=orders")]


async def test_a_rotated_secret_counts_at_once_and_has_another_digest() -> None:
    server = Cluster(orders="s3cret")
    secrets = WatchedSecrets(server, FakeClock())
    before = await secrets.read(ORDERS)
    await server.tell("MODIFIED", ORDERS, "rotated")
    assert value(secrets) == b"rotated"
    after = await secrets.read(ORDERS)
    await server.tell("MODIFIED", ORDERS, "s3cret")
    again = await secrets.read(ORDERS)
    assert before.digest == again.digest != after.digest
    assert "s3cret" not in repr(before)


async def test_a_digest_can_be_compared_in_no_other_process() -> None:
    first, second = (WatchedSecrets(Cluster(orders="s3cret"), FakeClock()) for _ in range(2))
    assert (await first.read(ORDERS)).digest != (await second.read(ORDERS)).digest


async def test_a_secret_that_goes_is_gone_and_one_that_comes_is_there() -> None:
    server = Cluster()
    secrets = WatchedSecrets(server, FakeClock())
    with pytest.raises(NotYetKnown, match="Secret orders does not exist"):
        await secrets.read(ORDERS)
    await server.tell("ADDED", ORDERS, "new")
    assert value(secrets) == b"new"
    await server.tell("DELETED", ORDERS)
    assert value(secrets) is None
    with pytest.raises(NotYetKnown):
        await secrets.read(ORDERS)


async def test_whoever_needs_a_secret_that_does_not_exist_is_told_when_it_comes() -> None:
    server = Cluster()
    secrets = WatchedSecrets(server, FakeClock())
    with pytest.raises(NotYetKnown) as caught:
        await secrets.read(ORDERS)
    assert caught.value.comes is not None
    waiting = asyncio.ensure_future(caught.value.comes())
    await asyncio.sleep(0)
    assert not waiting.done()
    await server.tell("ADDED", ORDERS, "new")
    await waiting
    assert value(secrets) == b"new"


async def test_what_may_not_be_read_is_told_at_once_and_why_stands_in_the_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Cluster()
    server.failure = KubeError('User "nmi" cannot list secrets', status=403)
    secrets = WatchedSecrets(server, FakeClock())
    with caplog.at_level(logging.WARNING), pytest.raises(TokenSourceDown) as caught:
        await secrets.read(ORDERS)
    assert str(caught.value) == "Secret orders cannot be read at the moment"
    assert f"cannot watch secret shop/orders, and try on: {STARTING}" in caplog.text


async def test_an_api_server_that_says_nothing_is_waited_for_for_five_seconds() -> None:
    server, clock = Cluster(orders="s3cret"), FakeClock()
    server.mute = True
    secrets = WatchedSecrets(server, clock)
    reading = asyncio.ensure_future(secrets.read(ORDERS))
    await clock.somebody_sleeps()
    clock.advance(5)
    with pytest.raises(TokenSourceDown):
        await reading


async def test_a_watch_ends_a_while_after_its_last_need() -> None:
    server, clock = Cluster(orders="s3cret", other="x"), FakeClock()
    secrets = WatchedSecrets(server, clock)
    running = asyncio.ensure_future(secrets.run())
    other = ObjectRef("shop", "other")
    await secrets.read(ORDERS)
    await secrets.read(other)
    await clock.somebody_sleeps()
    clock.advance(IDLE)
    assert value(secrets) == b"s3cret"
    clock.advance(300)
    await asyncio.sleep(0)
    assert value(secrets, other) is None
    assert value(secrets) == b"s3cret"
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert value(secrets) is None


async def test_too_many_are_never_watched_and_the_namespace_with_most_gives_way() -> None:
    mine, first, second = ORDERS, ObjectRef("bank", "a"), ObjectRef("bank", "b")
    server, clock = Cluster(orders="s3cret"), FakeClock()
    server.values |= {first: "x", second: "x"}
    secrets = WatchedSecrets(server, clock, most=2)
    for ref in (mine, first, second, first):
        await secrets.read(ref)
        clock.advance(1)
    assert value(secrets, mine) == b"s3cret"
    assert (value(secrets, first), value(secrets, second)) == (b"x", None)
    assert len(server.asked) == 4
