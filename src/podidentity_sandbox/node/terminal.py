"""Run a command in a pod for a person, with the streams and the terminal of this process.

It loads no event loop, so that `podidentity sandbox exec` starts in no time.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from podidentity_sandbox.node.execution_requests import connect, receive, request_for
from podidentity_sandbox.plan import NodePlan, Plan


def execute_attached(  # noqa: PLR0917 - as a person says them: where, what, how
    plan: Plan,
    node: NodePlan,
    namespace: str,
    pod: str,
    container: str | None,
    command: Sequence[str],
    *,
    tty: bool,
    interactive: bool = True,
) -> int:
    """Run `command` in the pod with this process's standard streams; return its exit code.

    With `tty` it has a terminal of its own, which this process's shows. Without `interactive` it
    reads nothing. Raises ExecFailed.
    """
    request = request_for(namespace, pod, container, command, tty=tty)
    with socket.socket(socket.AF_UNIX) as connection, open(os.devnull, "rb") as null:  # noqa: PTH123
        connect(connection, plan, node)
        standard = [0 if interactive else null.fileno(), 1, 2]
        socket.send_fds(connection, [request], [] if tty else standard)
        answer, fds = receive(connection)
        if tty and fds:
            relay(fds[0], connection, read=interactive)
        # A program's end may have been told with its start.
        while "exit" not in answer:
            answer, _ = receive(connection)
        return int(answer["exit"])


# ---- A person's terminal, made to show another one: raw, and of the same size

_STDIN, _STDOUT = 0, 1


def relay(master: int, connection: socket.socket, *, read: bool) -> None:
    """Copy between this process's terminal and `master` until the program at its other end ends.

    `connection` becomes readable when it has ended. With `read` false nothing is typed into it.
    """
    try:
        with _raw(), _resizing(master):
            sources = [master, connection.fileno(), *([_STDIN] if read else [])]
            while True:
                ready, _, _ = select.select(sources, [], [])
                if master in ready and not _copy(master, _STDOUT):
                    return
                if _STDIN in ready and not _copy(_STDIN, master):
                    sources.remove(_STDIN)
                if connection.fileno() in ready and master not in ready:
                    return
    finally:
        os.close(master)


def _copy(source: int, target: int) -> bool:
    """Copy the bytes that are there; return whether there may be more."""
    try:
        data = os.read(source, 65536)
    except OSError:  # EIO: the last program has closed its terminal
        return False
    while data:
        data = data[os.write(target, data) :]
        if not data:
            return True
    return False


@contextmanager
def _raw() -> Iterator[None]:
    if not os.isatty(_STDIN):
        yield
        return
    before = termios.tcgetattr(_STDIN)
    tty.setraw(_STDIN, termios.TCSADRAIN)  # keeps what was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)


@contextmanager
def _resizing(master: int) -> Iterator[None]:
    def resize(_number: int = 0, _frame: FrameType | None = None) -> None:
        with suppress(OSError):
            size = fcntl.ioctl(_STDOUT, termios.TIOCGWINSZ, bytes(8))
            # The kernel tells the programs in that terminal with SIGWINCH.
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)

    resize()
    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
