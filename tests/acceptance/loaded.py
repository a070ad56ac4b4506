"""Processes that have loaded a program, and fork themselves for each command of it.

The acceptance tests run hundreds of commands as programs. Each would load the same modules: half a
second of a processor on the machines that run these tests, and with az a whole one. Here a client
passes its arguments, environment, folder and files on, and ends as the command did; the command
runs in a process of its own, from its first line to its exit code, with what would be loaded
loaded. That each command of ours starts from nothing as well is shown where programs are the
subject: tests/cli/test_programs.py and test_main.py, the walkthrough, and the tests of the image;
and so does az in pods and in the walkthrough.

    python -P loaded.py SOCKET_FD MODULE  the server; it ends with its standard input
    python -IS client.py SOCKET WORD...   a command
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import os
import pkgutil
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

CLIENT = """\
# Only what is compiled into the interpreter: it starts for each command.
import _socket, posix, sys
files = []
for number in range(3):
    try:
        posix.fstat(number)
        files.append(number)
    except OSError:
        pass  # it is closed, and so it will be there
conn = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
conn.connect(sys.argv[1])
given = b"\\0".join([
    posix.getcwd().encode(), bytes(map(ord, map(str, files))), b"%d" % (len(sys.argv) - 2),
    *(word.encode("utf-8", "surrogateescape") for word in sys.argv[2:]),
    *(name + b"=" + value for name, value in posix.environ.items()),
])
conn.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, len(given) + 4096)
passed = b"".join(each.to_bytes(4, sys.byteorder) for each in files)
conn.sendmsg([given], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)] if files else [])
said = conn.recv(8)
sys.exit(int(said) if said else 70)
"""
_LARGEST = 1 << 20
_AT_ONCE = 4096
"""PIPE_BUF: pipe(7)."""
_KNOWN = {
    "podidentity": (
        "podidentity.cli",
        "podidentity.cli.commands",
        "podidentity.cli.checks",
        "podidentity_sandbox.cli",
    )
}
"""Packages of which all modules are loaded at once. What else a command loads, later ones have."""


@cache
def command() -> tuple[str, ...]:
    """Return how a command of ours begins."""
    return serve(sys.executable, "podidentity")


def serve(
    python: str, module: str, environment: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Start a server of a module that is a program; return how a command begins.

    It ends with this process. `environment` is for modules that look at it when they are loaded.
    """
    folder = Path(tempfile.mkdtemp(prefix="podidentity-commands-"))
    path, program = folder / "socket", folder / "client.py"
    program.write_text(CLIENT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(64)
        server = subprocess.Popen(
            [python, "-P", __file__, str(listener.fileno()), module],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            cwd="/",
            env=environment,
        )

    def end() -> None:
        assert server.stdin is not None
        server.stdin.close()
        server.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    return sys.executable, "-IS", str(program), str(path)


# ---- The server


def main() -> None:
    """Load, and fork for each client until standard input ends."""
    listener, module = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    for package in _KNOWN.get(module, ()):
        folder = importlib.import_module(package).__path__
        _load(each.name for each in pkgutil.iter_modules(folder, f"{package}."))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that mind commands
    hearing, saying = os.pipe()
    while (first := _first(listener.fileno(), hearing, 0)) != 0:
        if first == hearing:
            _load(os.read(hearing, _LARGEST).decode().split())
            continue
        client, _ = listener.accept()
        if not os.fork():
            listener.close()
            os.close(hearing)
            _mind(client, module, saying)
        client.close()


def _load(names: Iterable[str]) -> None:
    gc.disable()
    for each in names:
        # What a command makes at run time, or finds on a path of its own, is not there.
        with suppress(ImportError):
            importlib.import_module(each)
    gc.freeze()  # no command writes to what all share
    gc.enable()


def _first(*files: int) -> int:
    """Wait for one of these; return the last that is readable, or has ended."""
    waiting = select.poll()
    for each in files:
        waiting.register(each, select.POLLIN)
    ready = [number for number, _ in waiting.poll()]
    return [each for each in files if each in ready][-1]


def _mind(client: socket.socket, module: str, saying: int) -> NoReturn:
    """Run the client's command in a child, which ends with the client; tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    given, control, _, _ = client.recvmsg(_LARGEST, socket.CMSG_SPACE(12))
    files = array.array("i", control[0][2] if control else b"")
    child = os.fork()
    if not child:
        client.close()
        _become(module, given.split(b"\0"), files, saying)
    for each in (0, 1, 2, saying, *files):
        os.close(each)
    ended = os.pidfd_open(child)
    if _first(client.fileno(), ended) != ended:
        os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    try:
        client.send(b"%d" % (code if code >= 0 else 128 - code))
    finally:
        os._exit(0)


def _become(module: str, given: Sequence[bytes], files: Sequence[int], saying: int) -> NoReturn:
    folder, numbers, count, *rest = given
    words, variables = rest[: int(count)], rest[int(count) :]
    passed = dict(zip(map(int, numbers.decode()), files, strict=True))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.close(number)
        if number not in passed:
            setattr(sys, name, None)
            continue
        os.dup2(passed[number], number)
        os.close(passed[number])
        if number == 0:
            sys.stdin = open(0)  # noqa: SIM115 - for good
    os.chdir(folder)
    os.environb.clear()
    os.environb.update(dict(each.split(b"=", 1) for each in variables))
    sys.argv = [module, *map(os.fsdecode, words)]
    known = set(sys.modules)
    code = _run(module)
    # As much as a pipe takes at once: of more, later commands tell the rest.
    new = "".join(f"{name}\n" for name in sys.modules if name not in known)[:_AT_ONCE]
    os.write(saying, new[: new.rfind("\n") + 1].encode())
    os._exit(code)


def _run(module: str) -> int:
    """Run a module as the interpreter would; return the exit code."""
    code: object = 0
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)  # noqa: T201 - as the interpreter does
        code = 1
    for each in (sys.stdout, sys.stderr):
        if each is not None:
            each.flush()
    return int(code or 0)  # type: ignore[call-overload,no-any-return]


if __name__ == "__main__":
    main()
