"""One worker process: started by a fork, watched by its heartbeat and its memory, ended for good.

A fork, not a new program: the next worker has all that this process has read already, and the
memory that neither changes is there once.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from podidentity.supervisor.control import LARGEST, Readiness, Report
from podidentity.supervisor.privileges import confine

HUNG_SECONDS = 4.0
"""Without a report after which a worker hangs."""
STARTING_SECONDS = 30.0
"""Until its first report, imports included."""
CANNOT_BEGIN = 1
"""Exit code of a worker that has said why it cannot begin: starting it again does not help."""

_REPORTS_AT_ONCE = 16
_PAGE = os.sysconf("SC_PAGE_SIZE")

_log = logging.getLogger("podidentity.supervisor")


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a worker is given."""

    listeners: Mapping[str, socket.socket]
    control: socket.socket
    """Packets from and to the supervisor; see `control`."""


WorkerMain = Callable[[Inherited], int]
"""What a worker does, in a process of its own; returns its exit code."""


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
    ) -> Worker:
        """Fork one; `memory` bounds its data, in bytes, 0 for none.

        `close` is called in the worker, for what is only the supervisor's.
        """
        ours, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        )
        # The worker's collector would otherwise write to each page that both share.
        gc.collect()
        gc.freeze()
        pid = os.fork()
        if not pid:
            ours.close()
            _become(main, Inherited(listeners, theirs), memory, close)
        theirs.close()
        return cls(pid, ours, now)

    @property
    def reported(self) -> bool:
        """Whether it has begun: it reported at least once."""
        return self._reported

    def tell(self, word: bytes) -> None:
        """Say a word of `control`; a worker that cannot be told hangs, or has ended."""
        with suppress(OSError):
            self.control.send(word)

    def listen(self, now: float) -> bool:
        """Read its reports; return whether it still has its end of the control socket."""
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
        """Return when it will be taken for hung unless it reports."""
        return self._heard + (HUNG_SECONDS if self._reported else STARTING_SECONDS)

    def excuse(self, now: float) -> None:
        """Begin to wait anew: this process itself did not run meanwhile."""
        self._heard = now

    def memory(self) -> int:
        """Return the bytes of memory that it has; 0 where it has ended."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; it has not been waited for, so the pid is still its own."""
        os.kill(self.pid, number)

    def close(self) -> None:
        """Close our end of the control socket, after the process has ended."""
        self.control.close()


def _become(main: WorkerMain, given: Inherited, memory: int, close: Callable[[], None]) -> NoReturn:
    """In the child: be the worker, and never return into the supervisor's loop."""
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
