"""The lock of the rules: only one `net` of a node repairs them, also during an update.

Two agents with different rules would undo each other's changes. So they share a lock file in a
folder of the node that only root can use; the kernel releases the lock when its holder dies. The
next agent asks for the lock only when its own `serve` accepts connections, because the rules lead
pods to where they are answered. The holder gives the lock, and takes it back when the connection of
the next agent ends: so also if that agent does not work, and ends or gives up.

`serve` cannot influence this, except that it says when it accepts connections. Then its `net` sets
its own rules. No message of `serve` makes a `net` remove rules.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from podidentity.local_sockets import Untrusted, check_folder, check_user, connect, listen

if TYPE_CHECKING:
    from podidentity.core.ports import Clock

LOCK, SOCKET = "rules.lock", "rules.sock"
GIVE, YOURS = b"give", b"yours"
ANSWER_SECONDS = 2.0
"""Timeout for the holder's answer."""
LOOK_SECONDS = 0.5
"""Between two attempts to take the lock, in case its holder has died."""
IDLE_SECONDS = 10.0
"""Time without a `serve` that accepts connections, after which the agent before gets the lock back.
A new worker needs a tenth of it to start."""

_ROOT = frozenset({0})
_log = logging.getLogger("podidentity.net")


class RulesLock:
    """Holds the lock, or waits for it; `run` it as a task."""

    def __init__(
        self,
        folder: Path | None,
        clock: Clock,
        *,
        install: Callable[[], Awaitable[None]],
        leave: Callable[[], Awaitable[None]],
    ) -> None:
        """`install` sets and guards the rules; `leave` stops that, and changes no rule.

        Without a `folder` there is no other agent, and no lock.
        """
        self._folder = folder
        self._clock = clock
        self._install = install
        self._leave = leave
        self._file = -1
        self._listening: socket.socket | None = None
        self._taker: socket.socket | None = None
        """Connection of the agent that we gave the lock to, which has it until this ends."""
        self._giver: socket.socket | None = None
        """Connection to the agent that gave us the lock, if it still lives."""
        self._giving: asyncio.Task[None] | None = None
        """Reference to a running task: the event loop keeps none."""
        self._accepting = False
        self._ends = False
        self._idle_since = 0.0
        self._changed = asyncio.Event()
        self.holds = False
        self.problem = ""
        """Why we could not get the lock; the rules of the other agent stay."""
        self.warning = ""
        """Why there is no lock file; this `net` sets the rules without it."""

    def begin(self) -> bool:
        """Take the lock if it is free; return whether this agent has it now."""
        if self._folder is not None:
            try:
                self._file = _opened(self._folder)
            except (OSError, Untrusted) as error:
                why = error.strerror if isinstance(error, OSError) else error
                self.warning = f"no lock of the rules in {self._folder}, two agents may meet: {why}"
                _log.warning("%s", self.warning)
                self._folder = None
        self.holds = self._folder is None or self._lock()
        if not self.holds:
            _log.info("the rules are those of the agent before, until this one serves")
        return self.holds

    def accepting(self, accepting: bool) -> None:
        self._accepting = accepting
        self._idle_since = self._clock.monotonic()
        self._changed.set()

    @property
    def goes_back(self) -> bool:
        """Whether the agent that gave the lock lives, and takes it back when this one ends."""
        return self._giver is not None and not _has_ended(self._giver)

    def take_no_more(self) -> None:
        """Take no lock that this agent does not have: it was told to stop."""
        self._ends = True
        if not self.holds and self._taker is not None:
            self._forget(self._taker)

    async def run(self) -> None:
        if self._folder is None:
            await asyncio.Event().wait()
        try:
            while True:
                self._changed.clear()
                await self._step()
                # Without another agent there is nothing to check.
                quiet = self.holds and self._giver is None and self._listening is not None
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if quiet else LOOK_SECONDS):
                        await self._changed.wait()
        finally:
            self.close()

    def close(self) -> None:
        """Release the lock; the agent before takes it back."""
        loop = asyncio.get_running_loop()
        for each in (self._listening, self._taker, self._giver):
            if each is not None:
                loop.remove_reader(each)
                each.close()
        self._listening = self._taker = self._giver = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    async def _step(self) -> None:
        if self.holds:
            self._publish()
            await self._give_back_if_idle()
        elif self._taker is None and not self._ends:
            await self._take()

    async def _take(self) -> None:
        if not self._lock():
            if not self._accepting:
                return
            try:
                self._giver = await self._ask()
            except (OSError, Untrusted, TimeoutError) as error:
                self.problem = f"the agent before does not leave the rules to this one: {error}"
                return
            if not self._lock():
                self._giver.close()
                self._giver = None
                self.problem = "another agent was faster in taking over the rules"
                return
        self.problem = ""
        self.holds = True
        self._idle_since = self._clock.monotonic()
        await self._install()
        _log.info("the rules are this agent's")

    async def _ask(self) -> socket.socket:
        """Ask the holder for the lock; return the connection, during which the lock is ours."""
        assert self._folder is not None  # noqa: S101 - `run` ends without one
        connection = connect(self._folder / SOCKET, uids=_ROOT)
        try:
            connection.send(GIVE)
            await _given(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _publish(self) -> None:
        assert self._folder is not None  # noqa: S101 - `run` ends without one
        if self._listening is not None:
            return
        try:
            self._listening = listen(self._folder / SOCKET, mode=0o600)
        except OSError as error:
            self.warning = f"no agent can take over the rules: {error.strerror}"
            return
        self.warning = ""
        asyncio.get_running_loop().add_reader(self._listening, self._asked, self._listening)

    def _asked(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
            connection.setblocking(False)
        except OSError:
            return
        try:
            check_user(connection, _ROOT, "the process that asks for the rules")
        except (Untrusted, OSError) as error:
            _log.warning("refused: %s", error)
            connection.close()
            return
        if self._taker is not None or not self.holds:
            connection.close()
            return
        self._taker = connection
        asyncio.get_running_loop().add_reader(connection, self._heard, connection)

    def _heard(self, connection: socket.socket) -> None:
        try:
            word = connection.recv(64)
        except BlockingIOError:
            return
        except OSError:
            word = b""
        if word == GIVE and self.holds:
            self._giving = asyncio.get_running_loop().create_task(self._give(connection))
            return
        # The connection has ended: that agent died, gave up, or gave the lock to another.
        self._forget(connection)

    def _forget(self, taker: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(taker)
        taker.close()
        self._taker = None
        self._changed.set()

    async def _give(self, connection: socket.socket) -> None:
        try:
            await self._leave()
        except Exception:  # noqa: BLE001 - any error would leave the lock with nobody
            _log.exception("this agent cannot leave the rules, so another agent may ask again")
            self._forget(connection)
            return
        self.holds = False
        self._unpublish()
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._changed.set()
        _log.info("the rules are the next agent's")
        with suppress(OSError):
            connection.send(YOURS)

    async def _give_back_if_idle(self) -> None:
        if self._giver is None:
            return
        if _has_ended(self._giver):
            self._giver.close()
            self._giver = None
        elif not self._accepting and self._clock.monotonic() - self._idle_since >= IDLE_SECONDS:
            _log.error("serve accepts no connections: the rules go back to the agent before")
            await self._leave()
            self.holds = False
            self._unpublish()
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._giver.close()
            self._giver = None

    def _unpublish(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def prepare(folder: Path, *, group: int) -> None:
    """Create the hand-over folder of `serve`, and let `group` write to it.

    If this process may not change the folder's group, `serve` says what it lacks.
    """
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, -1, group)
        folder.chmod(0o770)


def _opened(folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_folder(folder, owners=_ROOT, groups=_ROOT)
    folder.chmod(0o700)
    return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


async def _given(connection: socket.socket) -> None:
    async with asyncio.timeout(ANSWER_SECONDS):
        answer = await asyncio.get_running_loop().sock_recv(connection, 64)
    if answer != YOURS:
        raise Untrusted("it has not the lock, or gave it to another")


def _has_ended(connection: socket.socket) -> bool:
    try:
        return not connection.recv(64)
    except BlockingIOError:
        return False
    except OSError:
        return True
