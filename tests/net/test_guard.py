"""The rules of the node are guarded while that is wanted, by fakes of what guards them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podidentity.core.attestation import AttestationMode
from podidentity.kernel.interception import InterceptionError
from podidentity.kernel.sock_diag import Endpoint
from podidentity.net.main import (
    LISTENER_SECONDS,
    LOOK_SECONDS,
    RETRY_SECONDS,
    STRANGER_SECONDS,
    Guard,
    lacking_capabilities,
)
from tests.fakes import FakeClock


class FakeGuard:
    """Stands for the interception and for the source guard; notes what becomes of it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.begun = asyncio.Event()
        self.user: int | None = 0
        self.listener = Endpoint("169.254.25.79", 2579)

    def listener_user(self) -> int | None:
        return self.user

    def close_imds(self) -> None:
        self.events.append("imds closed")

    def install(self) -> None:
        self.events.append("installed")

    async def guard(self) -> None:
        await asyncio.Event().wait()

    def refresh(self) -> None:
        self.events.append("refreshed")

    async def run(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append("ended")

    def problems(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        self.events.append("closed")

    def yield_rules(self) -> None:
        self.events.append("yielded")

    def release(self, *, closed: bool = False) -> None:
        self.events.append("released, and closed" if closed else "released")

    def remove(self, *, closed: bool = False) -> tuple[str, ...]:
        self.events.append("removed, and closed" if closed else "removed")
        return ()


async def guarding() -> tuple[FakeGuard, Guard, asyncio.Task[None]]:
    fake: Any = FakeGuard()
    guard = Guard(fake, FakeClock())
    guard.sources = lambda: fake
    running = asyncio.create_task(guard.run())
    await guard.begin()
    await fake.begun.wait()
    return fake, guard, running


async def test_rules_that_cannot_be_set_are_told_and_tried_again() -> None:
    class Refused(FakeGuard):
        def install(self) -> None:
            super().install()
            if len(self.events) < 3:
                raise InterceptionError("cannot intercept pods' IMDS traffic: why")

    fake: Any = Refused()
    clock = FakeClock()
    guard = Guard(fake, clock)
    guard.sources = lambda: fake
    guard.install()
    assert guard.interception_problems() == ("cannot intercept pods' IMDS traffic: why",)
    running = asyncio.create_task(guard.run())
    await guard.begin()
    await clock.somebody_sleeps()
    assert guard.interception_problems()
    clock.advance(RETRY_SECONDS)
    await fake.begun.wait()
    assert guard.interception_problems() == ()
    running.cancel()
    await asyncio.wait({running})


def test_a_net_that_is_started_beside_a_serve_that_listens_sets_all_rules_at_once() -> None:
    fake: Any = FakeGuard()
    Guard(fake, FakeClock()).start()
    assert fake.events == ["installed"]


async def test_until_serve_listens_imds_is_closed_and_nobody_is_led_to_a_closed_port() -> None:
    fake: Any = FakeGuard()
    fake.user = None
    clock = FakeClock()
    guard = Guard(fake, clock)
    guard.sources = lambda: fake
    guard.start()
    running = asyncio.create_task(guard.run())
    await guard.begin()
    for looks in range(1, 4):
        await clock.somebody_slept(LOOK_SECONDS, looks)
        assert fake.events == ["imds closed"] * (looks + 1), "again, in case somebody opened it"
        assert guard.waiting
        fake.user = 0 if looks == 3 else None
        clock.advance(LOOK_SECONDS)
    await fake.begun.wait()
    assert fake.events == ["imds closed"] * 4 + ["installed", "refreshed"]
    assert not guard.waiting, "which is told at once"
    running.cancel()
    await asyncio.wait({running})


@pytest.mark.parametrize("user", [0, 64912])
async def test_pods_are_led_to_a_listener_of_root_and_of_the_user_of_serve(user: int) -> None:
    fake: Any = FakeGuard()
    fake.user = user
    Guard(fake, FakeClock(), users=frozenset({0, 64912})).start()
    assert fake.events == ["installed"]


async def test_pods_are_not_led_to_another_users_listener_that_was_there_first() -> None:
    fake: Any = FakeGuard()
    fake.user = 1234
    guard = Guard(fake, FakeClock(), users=frozenset({0, 64912}))
    guard.start()
    assert fake.events == ["released, and closed"]
    (said,) = guard.interception_problems()
    assert said.startswith("a program of user 1234 listens at 169.254.25.79:2579")
    assert "ss -ltnp 'sport = :2579'" in said


async def test_when_another_user_takes_the_port_its_rules_go_until_serve_has_it_again() -> None:
    fake: Any = FakeGuard()
    clock = FakeClock()
    guard = Guard(fake, clock)
    guard.sources = lambda: fake
    running = asyncio.create_task(guard.run())
    await guard.begin()
    await fake.begun.wait()
    await clock.somebody_sleeps()
    fake.user = 1234
    clock.advance(STRANGER_SECONDS)
    await clock.somebody_slept(LOOK_SECONDS, 1)
    assert fake.events == ["installed", "refreshed", "released, and closed"]
    assert guard.interception_problems()
    fake.user = 0
    clock.advance(LOOK_SECONDS)
    await clock.somebody_slept(STRANGER_SECONDS, 2)
    assert fake.events[3:] == ["installed"]
    assert guard.interception_problems() == ()
    running.cancel()
    await asyncio.wait({running})


async def test_where_serve_does_not_come_the_rules_are_set_and_watched_after_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake: Any = FakeGuard()
    fake.user = None
    clock = FakeClock()
    guard = Guard(fake, clock)
    guard.sources = lambda: fake
    running = asyncio.create_task(guard.run())
    await guard.begin()
    await clock.somebody_sleeps()
    clock.advance(LISTENER_SECONDS)
    await fake.begun.wait()
    assert fake.events == ["imds closed", "installed", "refreshed"]
    assert "nobody listens at 169.254.25.79:2579: pods are redirected, and refused" in caplog.text
    running.cancel()
    await asyncio.wait({running})


async def test_an_imds_that_cannot_be_closed_is_told_at_once() -> None:
    fake: Any = FakeGuard()
    fake.user = None
    fake.close_imds = refuse
    guard = Guard(fake, FakeClock())
    guard.start()
    assert guard.interception_problems() == ("cannot: why",)


@pytest.mark.parametrize(
    ("mode", "lacking"),
    [
        ("kernel", "net lacks CAP_NET_ADMIN and CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH: add "),
        ("namespace", "net lacks CAP_NET_ADMIN and CAP_SYS_ADMIN: add "),
        ("address", "net lacks CAP_NET_ADMIN: add "),
    ],
)
def test_capabilities_that_are_missing_are_named_with_the_next_step(
    mode: str, lacking: str
) -> None:
    assert lacking_capabilities(0, AttestationMode(mode)).startswith(lacking)
    everything = 1 << 12 | 1 << 21 | 1 << 2
    assert lacking_capabilities(everything, AttestationMode(mode)) == ""


async def test_until_its_guard_is_made_sources_count_as_unguarded() -> None:
    fake: Any = FakeGuard()
    guard = Guard(fake, FakeClock())
    assert guard.source_problems() == (), "where callers are not proved, there is nothing to guard"
    guard.sources = lambda: fake
    assert guard.source_problems() == ("the sources of packets are not guarded yet",)
    running = asyncio.create_task(guard.run())
    await guard.begin()
    await fake.begun.wait()
    assert guard.source_problems() == ()
    running.cancel()
    await asyncio.wait({running})


async def test_the_next_agent_does_not_know_whether_sources_are_guarded_before_it_guards_them() -> (
    None
):
    """The agent before it may be one with `--source-guard=off`."""
    fake: Any = FakeGuard()
    guard = Guard(fake, FakeClock())
    guard.sources = lambda: fake
    await guard.begin()
    assert guard.source_problems() == ("the sources of packets are not guarded yet",)
    running = asyncio.create_task(guard.run())
    await fake.begun.wait()
    assert guard.source_problems() == ()
    running.cancel()
    await asyncio.wait({running})


@pytest.mark.parametrize("problems", [(), ("--source-guard=off",)])
async def test_an_agent_that_has_left_the_rules_to_the_next_says_what_it_last_knew_of_sources(
    problems: tuple[str, ...],
) -> None:
    """Otherwise `serve` ended the connections that pods keep, or kept what must not be kept."""
    fake: Any = FakeGuard()
    fake.problems = lambda: problems
    guard = Guard(fake, FakeClock())
    guard.sources = lambda: fake
    running = asyncio.create_task(guard.run())
    await guard.begin()
    await fake.begun.wait()
    await guard.end()
    assert guard.source_problems() == problems
    await guard.begin()
    assert guard.source_problems() == problems, "when it has them again"
    running.cancel()
    await asyncio.wait({running})


async def test_a_net_that_is_started_again_guards_sources_before_it_tells_anybody_of_them() -> None:
    fake: Any = FakeGuard()
    guard = Guard(fake, FakeClock())
    guard.install()
    guard.sources = lambda: fake
    guard.guard_sources()
    assert guard.source_problems() == ()
    running = asyncio.create_task(guard.run())
    await guard.begin()
    await fake.begun.wait()
    assert fake.events == ["installed", "refreshed", "installed", "refreshed"]
    running.cancel()
    await asyncio.wait({running})


ALL = ["installed", "refreshed", "ended", "closed"]


async def test_told_to_stop_it_closes_what_talks_to_the_kernel_after_that_has_ended() -> None:
    fake, _, running = await guarding()
    running.cancel()
    await asyncio.wait({running})
    assert fake.events == ALL


async def test_rules_that_go_to_another_agent_are_guarded_no_more() -> None:
    fake, guard, running = await guarding()
    await guard.end()
    assert fake.events == [*ALL, "yielded"]
    fake.begun.clear()
    await guard.begin()
    await fake.begun.wait()
    assert fake.events == [*ALL, "yielded", "installed", "refreshed"]
    running.cancel()
    await asyncio.wait({running})
    assert fake.events == [*ALL, "yielded", *ALL]


async def test_when_it_leads_nobody_here_any_more_sources_are_guarded_to_the_end() -> None:
    """Connections that are open are proved until `serve` has ended."""
    fake, guard, running = await guarding()
    await guard.release()
    assert fake.events == ["installed", "refreshed", "released"]
    assert guard.removed
    running.cancel()
    await asyncio.wait({running})
    assert fake.events[3:] == ["ended", "closed"]


async def test_where_that_was_chosen_imds_is_closed_when_nobody_is_led_here_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake: Any = FakeGuard()
    guard = Guard(fake, FakeClock(), closes=True)
    await guard.release()
    guard.remove()
    assert fake.events == ["released, and closed", "removed, and closed"]
    assert caplog.text.count("until another NMI leads them to itself") == 1


@pytest.mark.parametrize("installs", [True, False], ids=["guarding", "trying again"])
async def test_rules_that_were_removed_are_not_set_again(*, installs: bool) -> None:
    fake: Any = FakeGuard()
    clock = FakeClock()
    if not installs:
        fake.install = refuse
    guard = Guard(fake, clock)
    running = asyncio.create_task(guard.run())
    await guard.begin()
    while installs and not fake.events:  # noqa: ASYNC110 - it is set in a thread
        await asyncio.sleep(0.001)
    if not installs:
        await clock.somebody_sleeps()
    await guard.release()
    for _ in range(10):
        await asyncio.sleep(0)
    assert fake.events[-1] == "released"
    running.cancel()
    await asyncio.wait({running})


def refuse(**_: bool) -> None:
    raise InterceptionError("cannot: why")


async def test_rules_that_cannot_be_removed_are_said_and_count_as_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake, guard, running = await guarding()
    fake.release = refuse  # type: ignore[method-assign]
    await guard.release()
    assert not guard.removed
    assert "cannot: why" in caplog.text
    running.cancel()
    await asyncio.wait({running})
