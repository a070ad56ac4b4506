"""Supervisors as processes, and clients of their workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds of what must come to pass: only a test that fails uses them up."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def eventually(holds: Callable[[], Any]) -> Any:
    """Return the first true value of `holds()`."""
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.01)
    return found


class Agent:
    """One supervisor."""

    def __init__(self, folder: Path, name: str, port: int, **settings: Any) -> None:
        self.runtime = folder / name
        self.runtime.mkdir()
        if "uid" in settings:
            os.chown(self.runtime, settings["uid"], settings["uid"])
        self.name, self.port = name, port
        given = {"runtime": str(self.runtime), "name": name, "port": port, **settings}
        self._log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.supervisor.program", json.dumps(given)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._log.append(line)

    @property
    def log(self) -> str:
        return "".join(self._log)

    def says(self, words: str) -> None:
        """Return when it has logged these words."""
        eventually(lambda: words in self.log)

    def probe(self, word: str = "ready") -> str:
        """Return the answer; "" where there is no place for the question."""
        with (
            suppress(BrokenPipeError, ConnectionResetError),
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking,
        ):
            # As the probe in the manifest: it waits for a place in the backlog.
            asking.connect(str(self.runtime / "serve-probe.sock"))
            asking.settimeout(PATIENCE)
            asking.send(word.encode())
            return asking.recv(1 << 16).decode()
        return ""

    def ready(self) -> None:
        """Return when it says that it is ready."""
        eventually((self.runtime / "serve-probe.sock").exists)
        # A test may have it answer at once, before its worker could begin.
        eventually(lambda: self.probe().startswith("ok"))

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join()
        return code

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Client:
    """A connection to a worker."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._file = self.socket.makefile("rw")

    def ask(self, line: str = "hello") -> tuple[str, int, bool]:
        """Return who answers: its name, the worker's pid, whether it was its last answer."""
        self._file.write(f"{line}\n")
        self._file.flush()
        name, pid, *last = self._file.readline().split()
        return name, int(pid), bool(last)

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
        self.socket.close()


def ask(port: int, line: str = "hello") -> tuple[str, int]:
    """Ask over a new connection."""
    client = Client(port)
    try:
        return client.ask(line)[:2]
    finally:
        client.close()


def order(port: int, line: str) -> None:
    """Give an order that is not answered."""
    client = Client(port)
    with suppress(OSError, ValueError):
        client.ask(line)
    client.close()


@contextmanager
def agents(folder: Path) -> Iterator[Callable[..., Agent]]:
    """Yield what starts agents; all are ended."""
    started: list[Agent] = []
    port = free_port()

    def start(name: str, **settings: Any) -> Agent:
        started.append(Agent(folder, name, settings.pop("port", port), **settings))
        return started[-1]

    try:
        yield start
    finally:
        for each in started:
            each.close()
