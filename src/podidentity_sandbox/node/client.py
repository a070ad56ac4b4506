"""Run a command in a pod, from outside: the client of a node's Unix socket.

`execute` is for programs, `execute_attached` for a person at a terminal.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import socket
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Self

from podidentity_sandbox.plan import NodePlan, Plan


class ExecFailed(Exception):
    """The command did not run; the text says why."""


class PodNotHere(ExecFailed):
    """The node has no such pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """The result of a command."""

    exit: int
    """128 + signal where a signal ended it."""
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)


async def execute(
    plan: Plan,
    namespace: str,
    pod: str,
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    container: str | None = None,
    timeout: float = 60.0,  # noqa: ASYNC109 - callers in a row of one line each
) -> ExecResult:
    """Run `command` in the pod, on whichever node it is, and return what it wrote.

    Raises ExecFailed, and TimeoutError after `timeout` seconds; the command is ended then.
    """
    request = _request(namespace, pod, container, command, tty=False)
    async with asyncio.timeout(timeout):
        for node in plan.nodes:
            try:
                return await _execute_on(plan, node, request, stdin)
            except PodNotHere:
                continue
    raise ExecFailed(f'pods "{pod}" not found in namespace {namespace} on any node')


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
    request = _request(namespace, pod, container, command, tty=tty)
    with socket.socket(socket.AF_UNIX) as connection, open(os.devnull, "rb") as null:  # noqa: PTH123
        _connect(connection, plan, node)
        standard = [0 if interactive else null.fileno(), 1, 2]
        socket.send_fds(connection, [request], [] if tty else standard)
        answer, fds = _receive(connection)
        if tty and fds:
            relay(fds[0], connection, read=interactive)
        # A program's end may have been told with its start.
        while "exit" not in answer:
            answer, _ = _receive(connection)
        return int(answer["exit"])


async def _execute_on(plan: Plan, node: NodePlan, request: bytes, stdin: bytes) -> ExecResult:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as connection, _Pipe() as out, _Pipe() as err:
        _connect(connection, plan, node)
        connection.setblocking(False)
        given = os.memfd_create("stdin")
        try:
            with os.fdopen(os.dup(given), "wb") as file:
                file.write(stdin)
            os.lseek(given, 0, os.SEEK_SET)
            socket.send_fds(connection, [request], [given, out.write, err.write])
        finally:
            os.close(given)
        raw = b""
        while chunk := await loop.sock_recv(connection, 65536):
            raw += chunk
        return ExecResult(exit=_exit_code(raw), stdout=out.drain(), stderr=err.drain())


class _Pipe:
    """Collects what a program writes, until it has ended.

    Not until the pipe is closed: a program that it left behind may hold it open for ever.
    """

    def __init__(self) -> None:
        self._read, self.write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._chunks: list[bytes] = []

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._read, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._read)
        os.close(self._read)
        os.close(self.write)

    def _take(self) -> bool:
        try:
            chunk = os.read(self._read, 65536)
        except BlockingIOError:
            return False
        self._chunks.append(chunk)
        return bool(chunk)

    def drain(self) -> bytes:
        """Return all that was written."""
        while self._take():
            pass
        return b"".join(self._chunks)


def _request(
    namespace: str, pod: str, container: str | None, command: Sequence[str], *, tty: bool
) -> bytes:
    request = {
        "op": "exec",
        "namespace": namespace,
        "pod": pod,
        "container": container,
        "command": list(command),
        "tty": tty,
    }
    return json.dumps(request).encode() + b"\n"


def _connect(connection: socket.socket, plan: Plan, node: NodePlan) -> None:
    try:
        connection.connect(str(plan.path / node.socket))
    except OSError as error:
        raise ExecFailed(f"node {node.name} does not answer: {error.strerror}") from error


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Read what has come, at least one line; return the last, and any descriptor."""
    raw, fds = b"", []
    while not raw.endswith(b"\n"):
        chunk, got, _, _ = socket.recv_fds(connection, 65536, 1)
        fds.extend(got)
        raw += chunk
        if not chunk:
            break
    return _last(raw), fds


def _exit_code(raw: bytes) -> int:
    return int(_last(raw).get("exit", 0))


def _last(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        raise ExecFailed("the node went away")
    answer: dict[str, Any] = json.loads(raw.splitlines()[-1])
    if "error" in answer:
        raise (PodNotHere if answer.get("code") == "NotFound" else ExecFailed)(answer["error"])
    return answer


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
