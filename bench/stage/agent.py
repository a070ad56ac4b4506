"""The servers under test: this agent, an earlier one, and nginx as the control.

Each runs on a core of its own, in a pod's cgroup as on a node. An agent may be several processes:
CPU time and memory are those of the process that was started and of all below it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from bench.stage.ground import GATEWAY, Cgroups
from bench.stage.hands import send

CORE, OTHER_CORE = "0", "1"
UID = "00000000-0000-4000-8000-0000000000aa"
EARLIER = "ba97e96"
"""The commit of the agent that later ones are compared with: one process, before the split."""
PROBE_PORT = 8085
_NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE"}
_SERVE_RIGHTS = ("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")
_NET_RIGHTS = ("--bounding-set=-all,+net_admin,+sys_admin,+dac_read_search",)
READY = "requests can be decided"
_REACHED = "net is reached"
_START_SECONDS = 120.0
ROOT = Path(__file__).parents[2]

_NGINX_PORT = 8181
_NGINX_INTERCEPTED = 8080
"""Port of 169.254.169.254 that leads to nginx, by the same kind of rule as port 80 to the agent."""
_NGINX = """
user root; worker_processes 1; daemon off;
pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 75s;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen {address}:{port} backlog=1024;
    location / {{ default_type application/json; return 200 '{{"access_token":"{token}"}}'; }}
  }}
}}
"""
_NGINX_RULE = f"""
table ip bench {{
  chain to_nginx {{
    type nat hook prerouting priority -110; policy accept;
    ip daddr 169.254.169.254 tcp dport {_NGINX_INTERCEPTED} counter dnat to {GATEWAY}:{_NGINX_PORT}
  }}
}}
"""
_ANSWER_BYTES = 1700
"""Of a token's answer, about."""


class Server:
    """A running server, asked by pods at `url`."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], url: str) -> None:
        self.processes = processes
        self.url = url

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The first process that was started."""
        return self.processes[0]

    def pids(self) -> list[int]:
        """Return the processes that were started and all below them."""
        return self.pids_below(*(each.pid for each in self.processes))

    @staticmethod
    def pids_below(*pids: int) -> list[int]:
        """Return processes and all below them."""
        children, found = _children(), list(pids)
        for pid in found:
            found += children.get(pid, [])
        return found

    def pss(self) -> float:
        """Return the proportional set size of all its processes, in MB."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found = re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE)
                total += int(found[1]) / 1024 if found else 0.0
        return total

    def cpu(self) -> float:
        """Return the seconds of CPU time that its processes have used."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                    total += int(task.read_text().split()[0])
        return total / 1e9


class Agent(Server):
    """A running NMI."""

    def __init__(
        self, programs: Sequence[Callable[[], subprocess.Popen[bytes]]], log: Path
    ) -> None:
        self._began = time.perf_counter()
        super().__init__([start() for start in programs], "http://169.254.169.254")
        self._programs = programs
        self.log = log
        self.start_seconds = 0.0
        """From its start to the moment at which requests can be decided, imports included."""

    @classmethod
    def start(
        cls,
        folder: Path,
        cgroups: Cgroups,
        *,
        node: str,
        kubeconfig: Path,
        flags: Sequence[str],
        source: Path | None = None,
        log: str = "nmi.log",
    ) -> Self:
        """Start it and return at once; its log is `folder`/`log`.

        This agent runs as in its manifest: `net` with three capabilities, `serve` with none; not as
        a user of its own, who may be unable to read this interpreter. The tree of another commit
        (`source`) is `podidentity nmi`, run as root.
        """
        path = folder / log
        path.unlink(missing_ok=True)
        shared = [
            *(f"--node={node}", f"--kubeconfig={kubeconfig}", f"--http-probe-port={PROBE_PORT}"),
            *flags,
        ]
        if source is not None:
            commands = [[*_program(), "nmi", *shared]]
        else:
            runtime = runtime_of(path)
            runtime.mkdir(mode=0o700, exist_ok=True)
            shared.append(f"--runtime-dir={runtime}")
            commands = [
                ["setpriv", *_NET_RIGHTS, *_program(), "net", *shared],
                ["setpriv", *_SERVE_RIGHTS, *_program(), "serve", *shared],
            ]
        environment = {
            **{name: value for name, value in os.environ.items() if name not in _NO_BYTECODE},
            # As with an installed package: compiling at each start costs megabytes.
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
            "SSL_CERT_FILE": str(folder / "ca.crt"),
            "PYTHONPATH": str((source or ROOT) / "src"),
        }

        def program(command: Sequence[str]) -> subprocess.Popen[bytes]:
            with path.open("ab") as stderr:
                return subprocess.Popen(
                    cgroups.within(UID, command), stderr=stderr, env=environment
                )

        return cls([partial(program, each) for each in commands], path)

    def start_what_ended(self) -> list[str]:
        """Start each of its two programs that has ended anew, as the kubelet does; name them."""
        found = []
        for number, name in enumerate(("net", "serve")):
            if self.processes[number].poll() is not None:
                self.processes[number] = self._programs[number]()
                found.append(name)
        return found

    def await_ready(self) -> None:
        """Return when it has logged that it is ready; end the program if it never does."""
        while not self.has_logged(READY):
            time.sleep(0.002)
        # Among a thousand pods `net` may be the later one; meanwhile requests get a 503.
        while "net cannot be reached" in self.log.read_text() and not self.has_logged(_REACHED):
            time.sleep(0.002)
        self.start_seconds = time.perf_counter() - self._began

    def has_logged(self, line: str) -> bool:
        """Return whether the line is in its log; end the program if it cannot come any more."""
        log = self.log.read_text()
        ended = any(each.poll() is not None for each in self.processes)
        if ended or time.perf_counter() - self._began > _START_SECONDS:
            sys.exit(f"NMI did not start:\n{log[-3000:]}")
        return line in log

    def worker(self) -> int:
        """Return the process that answers: the last of supervisor and worker."""
        return max(self.pids(), key=_depth)

    def roles(self) -> dict[str, int]:
        """Return the processes `net`, `supervisor` and `worker`, those that run just now."""
        named = zip(("net", "supervisor"), self.processes, strict=False)
        found = {name: each.pid for name, each in named if each.poll() is None}
        # Its last child accepts; others answer what they have, and end.
        if workers := _children().get(found.get("supervisor", -1)):
            found["worker"] = workers[-1]
        return found

    def stop(self, *, kill: bool = False) -> None:
        """Stop it as the kubelet does, or `kill` it with all that runs in it; wait for its end."""
        if kill:
            for pid in self.pids():
                send(pid, signal.SIGKILL)
        for each in self.processes:
            each.terminate()
        for each in self.processes:
            each.wait()


def runtime_of(log: Path) -> Path:
    """Return the folder that the two programs of an agent share, by its log."""
    return log.parent / f"run-{log.stem}"


def _program() -> list[str]:
    return ["taskset", "-c", CORE, sys.executable, "-m", "podidentity"]


def _children() -> dict[int, list[int]]:
    """Return the living children of each process, in the order in which they were started."""
    found: dict[int, list[tuple[int, int]]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, *rest = stat.read_text().rpartition(")")[2].split()
            if state not in "ZX":
                found.setdefault(int(parent), []).append((int(rest[17]), int(stat.parent.name)))
    return {parent: [pid for _, pid in sorted(each)] for parent, each in found.items()}


def _depth(pid: int) -> int:
    """Return how many processes are above it."""
    depth = 0
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        depth += 1
    return depth


@contextlib.contextmanager
def nginx(folder: Path, cgroups: Cgroups) -> Iterator[Server]:
    """Run nginx with a fixed answer of a token's size, reached over the pods' way to IMDS."""
    settings = folder / "nginx.conf"
    token = "x" * _ANSWER_BYTES
    settings.write_text(
        _NGINX.format(folder=folder, address=GATEWAY, port=_NGINX_PORT, token=token)
    )
    subprocess.run(["nft", "-f", "-"], input=_NGINX_RULE.encode(), check=True)
    command = ["taskset", "-c", CORE, "nginx", "-c", str(settings), "-e", f"{folder}/nginx.log"]
    process = subprocess.Popen(cgroups.within(UID, command))
    try:
        _await_port(GATEWAY, _NGINX_PORT)
        yield Server([process], f"http://169.254.169.254:{_NGINX_INTERCEPTED}")
    finally:
        process.terminate()
        process.wait()
        subprocess.run(["nft", "delete", "table", "ip", "bench"], check=True)


def _await_port(address: str, port: int) -> None:
    deadline = time.perf_counter() + _START_SECONDS
    while time.perf_counter() < deadline:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((address, port)):
            return
        time.sleep(0.01)
    sys.exit(f"nothing listens on {address}:{port}")


def earlier_source(folder: Path) -> Path:
    """Unpack the tree of the commit EARLIER; end the program if git does not have it."""
    packed = subprocess.run(
        ["git", "-C", ROOT, "archive", EARLIER, "src"], capture_output=True, check=False
    )
    if packed.returncode:
        sys.exit(f"this benchmark compares with commit {EARLIER}: fetch the whole history first")
    where = folder / EARLIER
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tree:
        tree.extractall(where, filter="data")
    return where


def on_other_core() -> None:
    """Put this process, and all that it starts but the servers, on the load's core."""
    os.sched_setaffinity(0, {int(OTHER_CORE)})
