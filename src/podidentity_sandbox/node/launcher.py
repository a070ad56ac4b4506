"""The process that starts a node's containers: it forks, and does nothing else.

A program enters namespaces between fork and exec, and only a process without threads may do that
in Python. So the kubelet, which has an event loop and a network client, starts this one first and
asks it over a socket: a StartRequest with three file descriptors (standard input, output, error).

    → a StartRequest, 3 descriptors    ← {"pid": N} | {"error": "…"}
    → {"kill": N, "signal": S, "group": bool}
    ← {"ended": N, "code": C}   C is 128 + signal for a program that a signal ended

It is the parent of every container, so it knows which pids are still theirs. When the kubelet ends
its end of the socket closes, this process ends, and the kernel ends all it started.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from podidentity_sandbox.node import rootfs, syscalls
from podidentity_sandbox.node.rootfs import Isolation

# ---- Requests: plain values that travel between the kubelet and the launcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program of a container, and the rights that it gets."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    directory: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: int = 0
    """Bit n for capability n."""
    no_new_privileges: bool = False
    cgroups: tuple[str, ...] = ()
    """Folders of its cgroups in the node's view, one in each tree that there is."""
    terminal: bool = False
    """Whether its standard input becomes its controlling terminal."""
    reaped: bool = False
    """Whether the kernel reaps its children: for a program that idles in place of an image's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """One request to the launcher, JSON: a program in new namespaces, or in those of `beside`."""

    program: Program
    isolation: Isolation | None = None
    beside: int = 0
    """A process."""


# ---- The launcher

LARGEST_REQUEST = 192 * 1024
"""Bytes; a message of a Unix socket must fit its send buffer."""


class Launcher:
    """Starts the requested programs, and reports their ends."""

    def __init__(self, kubelet: socket.socket) -> None:
        self._kubelet = kubelet
        self._alive: set[int] = set()
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def serve(self) -> None:
        """Answer until the kubelet has gone."""
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self._kubelet.fileno(), wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
                self._reap()
            if self._kubelet.fileno() in ready and not self._answer():
                self._end_all()
                return

    def _reap(self) -> None:
        while self._alive:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._alive.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            self._say({"ended": pid, "code": code if code >= 0 else 128 - code})

    def _end_all(self) -> None:
        """End what runs, and return when it has: then nothing holds its cgroups any more."""
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
        for _ in self._alive:
            os.wait()

    def _answer(self) -> bool:
        raw, fds, _, _ = socket.recv_fds(self._kubelet, LARGEST_REQUEST, 3, socket.MSG_CMSG_CLOEXEC)
        if not raw:
            return False
        try:
            message = json.loads(raw)
            if "kill" in message:
                self._kill(message)
            else:
                self._say(self._start(msgspec.json.decode(raw, type=StartRequest), fds))
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _say(self, message: dict[str, Any]) -> None:
        self._kubelet.send(json.dumps(message).encode())

    def _kill(self, message: dict[str, Any]) -> None:
        pid = message["kill"]
        if pid not in self._alive:
            return
        # Not reaped yet, so the number is still this process's.
        with suppress(ProcessLookupError):
            (os.killpg if message["group"] else os.kill)(pid, message["signal"])

    def _start(self, request: StartRequest, fds: list[int]) -> dict[str, Any]:
        if request.isolation is None and request.beside not in self._alive:
            return {"error": "the container is not running"}
        try:
            pid, failure = self._spawn(request, fds)
        except OSError as error:
            return {"error": f"cannot start a process: {error.strerror}"}
        self._alive.add(pid)
        return {"error": failure} if failure else {"pid": pid}

    def _spawn(self, request: StartRequest, fds: list[int]) -> tuple[int, str]:
        if request.isolation is not None:
            syscalls.unshare(syscalls.NEW_PIDS)
            try:
                return self._fork(request, fds, -1)
            finally:
                self._come_home()
        target = os.pidfd_open(request.beside)
        try:
            syscalls.enter(target, syscalls.NEW_PIDS)
            return self._fork(request, fds, target)
        finally:
            self._come_home()
            os.close(target)

    def _come_home(self) -> None:
        """Let the next child be this process's neighbour again, not the last container's."""
        try:
            syscalls.enter(self._own_pids, syscalls.NEW_PIDS)
        except OSError as error:
            sys.exit(f"cannot return to the node's own pid namespace: {error}")

    def _fork(self, request: StartRequest, fds: list[int], target: int) -> tuple[int, str]:
        """Start the child; return its pid, and what kept it from running its program if so."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if not pid:
            _become(request, fds, target, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            return pid, pipe.read().decode()


def _become(request: StartRequest, fds: list[int], target: int, failure: int) -> NoReturn:
    """In the child: enter the namespaces and run the program, or write why not and end."""
    try:
        _reset_signals(request.program)
        os.umask(0o022)
        os.setsid()
        for folder in request.program.cgroups:
            Path(folder, "cgroup.procs").write_text("0")
        if (isolation := request.isolation) is not None:
            if isolation.network:
                network = os.open(isolation.network, os.O_RDONLY | os.O_CLOEXEC)
                syscalls.enter(network, syscalls.NEW_NET)
            syscalls.unshare(syscalls.NEW_MOUNTS | syscalls.NEW_UTS | syscalls.NEW_IPC)
            socket.sethostname(isolation.hostname)
            rootfs.build(isolation)
        else:
            kinds = syscalls.NEW_MOUNTS | syscalls.NEW_UTS | syscalls.NEW_IPC | syscalls.NEW_NET
            syscalls.enter(target, kinds)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        if request.program.terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.chdir(request.program.directory)
        _drop_rights(request.program)
        _execute(request.program)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        os.write(failure, f"{error.strerror or error}{where}".encode())
    except BaseException as error:  # noqa: BLE001 - nothing may return into the launcher's loop
        os.write(failure, f"{type(error).__name__}: {error}".encode())
    os._exit(128)


def _reset_signals(program: Program) -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError):  # the C library keeps two for itself
            signal.signal(number, signal.SIG_DFL)
    if program.reaped:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _drop_rights(program: Program) -> None:
    syscalls.bound_capabilities(program.capabilities)
    if program.uid or program.gid or program.groups:
        os.setgroups(program.groups)
        os.setresgid(program.gid, program.gid, program.gid)
        os.setresuid(program.uid, program.uid, program.uid)
    if program.no_new_privileges:
        syscalls.forbid_new_privileges()
    syscalls.die_with_parent(signal.SIGKILL)


def _execute(program: Program) -> NoReturn:
    environment = dict(program.environment)
    try:
        os.execvpe(program.argv[0], program.argv, environment)  # noqa: S606 - no shell is meant
    except FileNotFoundError:
        where = (
            "no such file or directory"
            if "/" in program.argv[0]
            else ("executable file not found in $PATH")
        )
        raise FileNotFoundError(0, f'exec: "{program.argv[0]}": {where}') from None


def main() -> None:
    """Serve the kubelet at the other end of the socket whose number is the one argument."""
    with socket.socket(fileno=int(sys.argv[1])) as kubelet:
        syscalls.die_with_parent(signal.SIGKILL)
        Launcher(kubelet).serve()


if __name__ == "__main__":
    main()
