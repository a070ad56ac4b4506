"""One worker process: its start by a fork, its limits and its reports.

A fork needs less memory and time than a new program: it shares all that this process has loaded.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from podidentity.supervisor.control import LARGEST, LISTEN, Readiness, Report
from podidentity.supervisor.privileges import confine

HUNG_SECONDS = 4.0
"""A worker that sends no report for this time hangs."""
STARTING_SECONDS = 30.0
"""The same before its first report, because it has to import modules."""
CANNOT_BEGIN = 1
"""Exit code of a worker that has said why it cannot begin: starting it again does not help."""

_REPORTS_AT_ONCE = 16
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Inherited:
    """Sockets that a worker inherits."""

    listeners: Mapping[str, socket.socket]
    control: socket.socket
    """Packets from and to the supervisor; see `control`."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Addresses that other programs have, by the names of their sockets: those come later."""


WorkerMain = Callable[[Inherited], int]
"""Main function of a worker process; returns the exit code."""


class Worker:
    """A running worker."""

    def __init__(self, pid: int, control: socket.socket, now: float) -> None:
        self.pid = pid
        self.control = control
        self.began = now
        self.report = Report(Readiness.UNREADY, '{"ready":false,"checks":{"worker":"starting"}}')
        self._heard = now
        self._reported = False

    @classmethod
    def start(
        cls,
        main: WorkerMain,
        listeners: Mapping[str, socket.socket],
        *,
        now: float,
        memory: int,
        close: Callable[[], None],
        missing: Mapping[str, str] | None = None,
    ) -> Worker:
        """Fork a worker; `memory` limits its data, in bytes (0: no limit).

        `missing` are the addresses at which nobody listens yet. The worker calls `close`, which
        closes the files of the supervisor.
        """
        ours, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        )
        # Or else the worker's garbage collector would write to each shared page.
        gc.collect()
        gc.freeze()
        pid = os.fork()
        if not pid:
            ours.close()
            _become(main, Inherited(listeners, theirs, dict(missing or {})), memory, close)
        theirs.close()
        return cls(pid, ours, now)

    @property
    def reported(self) -> bool:
        return self._reported

    def tell(self, word: bytes) -> None:
        """Send a message of `control`, unless the worker hangs or has ended."""
        with suppress(OSError):
            self.control.send(word)

    def give(self, name: str, listening: socket.socket) -> bool:
        """Give it one more socket to accept from; return whether it could be sent."""
        try:
            socket.send_fds(self.control, [LISTEN + name.encode()], [listening.fileno()])
        except OSError:
            return False
        return True

    def listen(self, now: float) -> bool:
        for _ in range(_REPORTS_AT_ONCE):
            try:
                packet = self.control.recv(LARGEST)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not packet:
                return False
            self._heard = now
            self._reported = True
            self.report = Report.parse(packet)
        return True

    def hangs_at(self) -> float:
        return self._heard + (HUNG_SECONDS if self._reported else STARTING_SECONDS)

    def excuse(self, now: float) -> None:
        self._heard = now

    def memory(self) -> int:
        """Return its resident memory in bytes; 0 if it has ended."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; the pid is its own until it has been waited for."""
        os.kill(self.pid, number)

    def close(self) -> None:
        """Close our end of the control socket, after the process has ended."""
        self.control.close()


def _become(main: WorkerMain, given: Inherited, memory: int, close: Callable[[], None]) -> NoReturn:
    code = 70  # EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        close()
        confine()
        if memory:
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        code = main(given)
    except BaseException:  # noqa: BLE001 - a defect ends this process and no other
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
