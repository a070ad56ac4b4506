"""An API server in front of the sandbox's that holds one request: a command is stopped at a step.

It hands on what it gets, as the administrator, and keeps the request that a test names: before the
server has it, or the answer of what the server has done. So a test knows where a command stands,
and waits for no time.
"""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.cli.conftest import Ran
from tests.cli.world import World

LONG = 60.0
"""Seconds that only a failing test waits."""


@dataclass(frozen=True)
class Step:
    """A request at which a command is held."""

    method: str
    path: str
    """A part of the path with its query."""
    done: bool = False
    """Whether the server does it, and only its answer is held."""


@dataclass
class Holding:
    """That server, and what it does with the request that it holds."""

    kubeconfig: Path
    environment: Mapping[str, str]
    step: Step | None = None
    held: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the request any more."""

    def takes(self, method: str, path: str) -> Step | None:
        """Return the step if this is the request to hold; it is held once."""
        step = self.step
        if step is None or method != step.method or step.path not in path:
            return None
        self.step = None
        return step

    def hold(self) -> None:
        """Return when the command has ended."""
        self.held.set()
        assert self.over.wait(2 * LONG)

    def interrupted(self, step: Step, *words: str) -> Ran:
        """Run a command in a process of its own, send it SIGINT at a step, and wait for its end."""
        self.held.clear()
        self.over.clear()
        self.step = step
        with self._begun(words) as process:
            while not self.held.wait(0.1):
                assert process.poll() is None, process.communicate()
            return _ended(process)

    def interrupted_when(self, text: str, *words: str) -> Ran:
        """Run a command in a process of its own, send it SIGINT when it has printed `text`."""
        with self._begun(words) as process:
            assert process.stdout is not None
            said = ""
            while text not in said:
                more = process.stdout.read(1)
                assert more, said
                said += more
            return _ended(process)

    @contextmanager
    def _begun(self, words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        environment = {**os.environ, **self.environment, "KUBECONFIG": str(self.kubeconfig)}
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            try:
                yield process
            finally:
                process.kill()
                self.over.set()


PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from podidentity.__main__ import main; main()"
)
"""`podidentity`. What a shell starts in the background ignores the signal, and would go on so."""


def _ended(process: subprocess.Popen[str]) -> Ran:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LONG)
    return Ran(process.returncode, out, err)


class Handler(BaseHTTPRequestHandler):
    """One connection of a command, and one behind it to the API server."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: HoldingServer

    def setup(self) -> None:
        super().setup()
        self.behind = http.client.HTTPSConnection(
            "127.0.0.1",
            self.server.world.plan.apiserver_port,
            timeout=LONG,
            context=self.server.trusted,
        )

    def finish(self) -> None:
        self.behind.close()
        super().finish()

    def hand_on(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        step = self.server.gate.takes(self.command, self.path)
        if step is None or step.done:
            status, kind, body = self.ask(sent)
        if step is not None:
            self.server.gate.hold()
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def ask(self, sent: bytes) -> tuple[int, str, bytes]:
        headers = {"Authorization": f"Bearer {self.server.world.plan.admin_token}"}
        if kind := self.headers.get("Content-Type"):
            headers["Content-Type"] = kind
        self.behind.request(self.command, self.path, sent or None, headers)
        with self.behind.getresponse() as answer:
            return answer.status, answer.getheader("Content-Type", ""), answer.read()

    def log_message(self, *_: object) -> None:
        pass


for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
    setattr(Handler, f"do_{method}", Handler.hand_on)


class HoldingServer(ThreadingHTTPServer):
    """Listens at a free port of the loopback."""

    daemon_threads = True

    def __init__(self, world: World, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.world = world
        self.trusted = ssl.create_default_context(cafile=str(world.plan.ca_certificate))
        kubeconfig = folder / "held"
        kubeconfig.write_text(
            "{current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: "
            f"[{{name: c, cluster: {{server: 'http://127.0.0.1:{self.server_port}'}}}}]}}"
        )
        self.gate = Holding(kubeconfig, world.environment)


@contextmanager
def holding(world: World, folder: Path) -> Iterator[Holding]:
    """Yield a server that hands on to the world's API server."""
    with HoldingServer(world, folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.gate
        finally:
            server.gate.over.set()
            server.shutdown()
            thread.join()
