"""Runs `net` and `serve` from one command, and restarts either when it ends.

This is for manifests with one container, and for nodes without Kubernetes. It has no thread and no
event loop: it starts processes, waits, and passes signals on.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from podidentity.backoff import backoff
from podidentity.supervisor.main import DRAIN_SECONDS, FIRST_PAUSE, LONGEST_PAUSE, SHORT_LIFE
from podidentity.supervisor.worker import CANNOT_BEGIN

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_STOP_SECONDS = DRAIN_SECONDS + 5.0

_log = logging.getLogger("podidentity.supervisor")

Ready = Callable[[], None]
Program = Callable[[Ready], int]
"""Main function of a process: calls its argument when it has begun, and returns the exit code."""


@dataclass(slots=True)
class _Process:
    """One program and its process."""

    name: str
    program: Program
    pid: int = 0
    """0 while it does not run."""
    began: float = 0.0
    next_start: float = 0.0
    crashes: int = 0
    has_begun: bool = False


def run_both(net: Program, serve: Program) -> int:
    """Run `net`, then `serve`, until told to stop; return the exit code.

    The code is 1 if either cannot begin; it has logged why.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    guard, server = _Process("net", net), _Process("serve", serve)
    _start(guard)
    if not guard.has_begun:
        return _wait(guard)
    _start(server)
    while True:
        number = _next_signal([guard, server])
        if number in (signal.SIGTERM, signal.SIGINT):
            return _stop(server, guard)
        if number == signal.SIGHUP:
            _send(server, signal.SIGHUP)
        code = _look_after(guard, server)
        if code:
            _stop(server, guard)
            return code


def _look_after(guard: _Process, server: _Process) -> int:
    """Restart processes that have ended; return the exit code of one that cannot begin."""
    for each in (guard, server):
        # `net` could begin once, so that its error may be temporary.
        if _ended(each) == CANNOT_BEGIN and each is server:
            return CANNOT_BEGIN
        if not each.pid and time.monotonic() >= each.next_start:
            _start(each)
    return 0


def _start(process: _Process) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    process.began = time.monotonic()
    process.pid = os.fork()
    if not process.pid:
        os.close(reading)
        _become(process.program, writing)
    os.close(writing)
    if os.read(reading, 1):
        process.has_begun = True
    os.close(reading)


def _become(program: Program, begun: int) -> NoReturn:
    code = 70  # EX_SOFTWARE
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        code = program(lambda: _tell(begun))
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's loop
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _tell(begun: int) -> None:
    os.write(begun, b"1")
    os.close(begun)


def _next_signal(processes: list[_Process]) -> int:
    due = min((each.next_start for each in processes if not each.pid), default=None)
    if due is None:
        return signal.sigwait(_SIGNALS)
    found = signal.sigtimedwait(_SIGNALS, max(0.0, due - time.monotonic()))
    return 0 if found is None else found.si_signo


def _ended(process: _Process) -> int | None:
    """Return the exit code if a process has ended, and plan its next start; else None."""
    if not process.pid:
        return None
    pid, status = os.waitpid(process.pid, os.WNOHANG)
    if not pid:
        return None
    now = time.monotonic()
    code = os.waitstatus_to_exitcode(status)
    process.pid = 0
    process.crashes = process.crashes + 1 if now - process.began < SHORT_LIFE else 0
    pause = 0.0
    if process.crashes > 1:
        pause = backoff(FIRST_PAUSE, process.crashes - 1, LONGEST_PAUSE)
    process.next_start = now + pause
    _log.error("%s ended with code %s", process.name, code)
    return code


def _stop(server: _Process, guard: _Process) -> int:
    """End both, which agree on who goes first, as in two containers; return the exit code."""
    for each in (server, guard):
        _send(each, signal.SIGTERM)
    for each in (server, guard):
        if not each.pid:
            continue
        if not _ends_within(each, _STOP_SECONDS):
            _send(each, signal.SIGKILL)
            os.waitpid(each.pid, 0)
        each.pid = 0
    return 0


def _ends_within(process: _Process, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not os.waitpid(process.pid, os.WNOHANG)[0]:
        left = end - time.monotonic()
        if left <= 0 or signal.sigtimedwait({signal.SIGCHLD}, left) is None:
            return bool(os.waitpid(process.pid, os.WNOHANG)[0])
    return True


def _wait(process: _Process) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])


def _send(process: _Process, number: signal.Signals) -> None:
    if process.pid:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
