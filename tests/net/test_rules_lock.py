"""Of two agents on a node one repairs the rules: in a user namespace root is this process."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from podidentity import local_sockets
from podidentity.adapters.clock import SystemClock
from podidentity.net import rules_lock
from podidentity.net.rules_lock import RulesLock, prepare

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the folder must be root's")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_lock, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(rules_lock, "ANSWER_SECONDS", 60.0)


async def eventually(holds: Callable[[], bool]) -> None:
    """Return once it holds."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - a lock of the kernel has no event
            await asyncio.sleep(0.005)


class Agent:
    """A lock, and whether the rules are being guarded."""

    def __init__(self, folder: Path | None) -> None:
        self.guards = False
        self.changes: list[bool] = []
        self.lock = RulesLock(folder, SystemClock(), install=self._begin, leave=self._end)
        self._task: asyncio.Task[None] | None = None

    async def _begin(self) -> None:
        self._set(guards=True)

    async def _end(self) -> None:
        self._set(guards=False)

    def _set(self, *, guards: bool) -> None:
        self.guards = guards
        self.changes.append(guards)

    def start(self) -> None:
        if self.lock.begin():
            self._set(guards=True)
        self._task = asyncio.create_task(self.lock.run())

    async def die(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self.guards = False

    async def until(self, *, guards: bool) -> None:
        await eventually(lambda: self.guards is guards and self.lock.holds is guards)


@asynccontextmanager
async def agents(folder: Path | None, count: int = 2) -> AsyncIterator[list[Agent]]:
    made = [Agent(folder) for _ in range(count)]
    try:
        for each in made:
            each.start()
            # Its socket is there: as of the first turn of its task.
            await asyncio.sleep(0.03)
        yield made
    finally:
        for each in made:
            await each.die()


async def test_the_first_agent_guards_and_the_second_leaves_the_rules_alone(
    tmp_path: Path,
) -> None:
    async with agents(tmp_path / "net") as (first, second):
        await asyncio.sleep(0.1)
        assert (first.guards, second.guards, second.changes) == (True, False, [])
        assert second.lock.problem == ""


async def test_the_rules_pass_when_the_new_agent_serves(tmp_path: Path) -> None:
    async with agents(tmp_path / "net") as (first, second):
        second.lock.accepting(True)
        await second.until(guards=True)
        await first.until(guards=False)
        assert (first.changes, second.changes) == ([True, False], [True])


async def test_an_agent_that_fails_to_leave_the_rules_gives_them_when_it_is_asked_again(
    tmp_path: Path,
) -> None:
    async with agents(tmp_path) as (first, second):
        leave, failures = first.lock._leave, iter([OSError("no memory")])

        async def failing() -> None:
            for failure in failures:
                raise failure
            await leave()

        first.lock._leave = failing
        second.lock.accepting(accepting=True)
        await second.until(guards=True)
        assert not first.lock.holds


async def test_they_go_back_when_the_new_agent_dies(tmp_path: Path) -> None:
    async with agents(tmp_path / "net") as (first, second):
        second.lock.accepting(True)
        await second.until(guards=True)
        await second.die()
        await first.until(guards=True)
        # And to a third that comes.
        third = Agent(tmp_path / "net")
        third.start()
        third.lock.accepting(True)
        await third.until(guards=True)
        await first.until(guards=False)
        await third.die()


async def test_they_go_back_when_its_serve_accepts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules_lock, "IDLE_SECONDS", 0.1)
    async with agents(tmp_path / "net") as (first, second):
        first.lock.accepting(True)
        second.lock.accepting(True)
        await second.until(guards=True)
        # A worker that is started again is back in time.
        second.lock.accepting(False)
        second.lock.accepting(True)
        await asyncio.sleep(0.15)
        assert second.guards
        second.lock.accepting(False)
        await first.until(guards=True)
        await second.until(guards=False)


async def test_an_agent_alone_keeps_them_whether_its_serve_accepts_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules_lock, "IDLE_SECONDS", 0.01)
    async with agents(tmp_path / "net", 1) as (only,):
        only.lock.accepting(True)
        only.lock.accepting(False)
        await asyncio.sleep(0.1)
        assert only.changes == [True]


async def test_a_holder_that_dies_is_followed_though_nobody_serves_yet(tmp_path: Path) -> None:
    async with agents(tmp_path / "net") as (first, second):
        await first.die()
        await second.until(guards=True)


async def test_a_holder_that_does_not_answer_keeps_them_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules_lock, "ANSWER_SECONDS", 0.05)
    async with agents(tmp_path / "net") as (first, second):
        monkeypatch.setattr(first.lock, "_give", lambda _: asyncio.sleep(0))
        second.lock.accepting(True)
        await eventually(lambda: bool(second.lock.problem))
        assert first.guards
        assert not second.guards
        assert "does not leave the rules to this one" in second.lock.problem


async def test_an_agent_that_ends_knows_whether_the_one_before_takes_the_rules_back(
    tmp_path: Path,
) -> None:
    async with agents(tmp_path / "net") as (first, second):
        assert not first.lock.goes_back
        second.lock.accepting(True)
        await second.until(guards=True)
        assert second.lock.goes_back
        first.lock.take_no_more()
        await eventually(lambda: not second.lock.goes_back)


async def test_an_agent_that_was_told_to_stop_takes_no_rules_back(tmp_path: Path) -> None:
    """Else the rules that the next one removes at its end were set again, for nobody."""
    async with agents(tmp_path / "net") as (first, second):
        second.lock.accepting(True)
        await second.until(guards=True)
        first.lock.take_no_more()
        third = Agent(tmp_path / "net")
        third.start()
        await second.die()
        await third.until(guards=True)
        assert first.changes == [True, False]
        await third.die()


async def test_who_is_given_the_rules_and_finds_another_faster_leaves_no_connection_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before would wait for its end."""
    connections = []

    def connect(path: Path, *, uids: frozenset[int]) -> socket.socket:
        connections.append(local_sockets.connect(path, uids=uids))
        return connections[-1]

    monkeypatch.setattr(rules_lock, "connect", connect)
    async with agents(tmp_path / "net", 3) as (first, second, third):
        real, faster = fcntl.flock, asyncio.Event()

        def flock(descriptor: int, operation: int) -> None:
            given = len(first.changes) > 1
            if given and (first.lock.holds or third.lock.holds):
                faster.set()
            late = given and not faster.is_set() and operation & fcntl.LOCK_EX
            if late and descriptor == second.lock._file:
                raise BlockingIOError
            real(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", flock)
        second.lock.accepting(True)
        await second.until(guards=True)
        assert faster.is_set()
        assert len(connections) > 1
        assert sum(each.fileno() >= 0 for each in connections) <= 1


async def test_of_three_one_guards_at_any_time(tmp_path: Path) -> None:
    async with agents(tmp_path / "net", 3) as made:
        for _ in range(3):
            for each in made:
                for other in made:
                    other.lock.accepting(other is each)
                await eventually(lambda: any(other.guards for other in made))
                assert sum(other.guards for other in made) == 1
                assert sum(other.lock.holds for other in made) == 1


@pytest.mark.parametrize("what", ["a file", "of another user", "open to all", "no lock in it"])
async def test_a_folder_that_is_not_roots_is_said_and_the_rules_are_set_all_the_same(
    tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "net"
    if what == "a file":
        folder.write_text("")
    else:
        folder.mkdir(mode=0o700)
    if what == "of another user":
        os.chown(folder, 64_912, 64_912)
    elif what == "open to all":
        folder.chmod(0o777)
    elif what == "no lock in it":
        (folder / rules_lock.LOCK).symlink_to("/dev/null")
    async with agents(folder, 1) as (only,):
        assert only.guards
        assert only.lock.warning.startswith(f"no lock of the rules in {folder}")


async def test_without_a_folder_there_is_no_lock_and_nothing_to_say() -> None:
    async with agents(None, 1) as (only,):
        assert only.guards
        assert only.lock.warning == ""


def test_serve_may_write_into_its_own_folder_and_into_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "serve"
    prepare(folder, group=64_912)
    status = folder.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, 64_912, 0o770)
    lock = RulesLock(tmp_path / "net", SystemClock(), install=_nothing, leave=_nothing)
    assert lock.begin()
    assert (tmp_path / "net").stat().st_mode & 0o777 == 0o700


async def _nothing() -> None:
    pass
