"""A node, its pods and a real IMDS behind it, in namespaces of one process: packets are real.

    azure  169.254.169.254/32 on lo, 10.240.0.1   its IMDS writes down every request that reaches it
      │
    node   10.240.0.4, cbr0 10.244.0.1/24, forwards; this process is in it
      │
    pods   p1, p2, p3: 10.244.0.11, .12, .13, each a namespace under /run/netns

On routed links there is no cbr0: each pod has a link and a route of /32, and knows no neighbour.

`run` starts a scenario in such a world, as root or in a user namespace; when its process ends,
nothing of the world remains. Behind the node is a real IMDS so that a leak is seen, not a time-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from podidentity.kernel.namespaces import entered

Made = TypeVar("Made")

_TREES = count()
"""A fixture of a module may keep its cgroups while a test makes its own."""

IMDS = ("169.254.169.254", 80)
PODS = {"p1": "10.244.0.11", "p2": "10.244.0.12", "p3": "10.244.0.13"}
GATEWAY = "10.244.0.1"
ROOT = Path(__file__).parents[2]

AZURE_NETNS = "/run/azure"
_BUILD = f"""
set -e
mount -t tmpfs tmpfs /run
mkdir /run/netns; touch {AZURE_NETNS}
unshare --net={AZURE_NETNS} true
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link add eth0 type veth peer name node netns {AZURE_NETNS}
ip addr add 10.240.0.4/24 dev eth0; ip link set eth0 up; ip route add default via 10.240.0.1
nsenter --net={AZURE_NETNS} sh -e <<END
ip link set lo up; ip addr add {IMDS[0]}/32 dev lo
ip addr add 10.240.0.1/24 dev node; ip link set node up; ip route add 10.244.0.0/24 via 10.240.0.4
END
"""
_BRIDGE = f"""
ip link add cbr0 address 0a:58:0a:f4:00:01 type bridge
ip addr add {GATEWAY}/24 dev cbr0; ip link set cbr0 up
"""
_POD = """
ip netns add {name}
ip link add v-{name} type veth peer name eth0 netns {name}
ip link set v-{name} master cbr0 up
ip -n {name} -batch - <<END
link set lo up
addr add {address}/24 dev eth0
link set eth0 up
route add default via 10.244.0.1
END
"""

_ROUTED_POD = """
ip netns add {name}
ip link add v-{name} type veth peer name eth0 netns {name}
ip link set v-{name} up
echo 1 >/proc/sys/net/ipv4/conf/v-{name}/proxy_arp
late=/proc/sys/net/ipv4/neigh/v-{name}/proxy_delay  # old kernels hide it from user namespaces
[ ! -e $late ] || echo 0 >$late
ip route add {address}/32 dev v-{name}
ip -n {name} -batch - <<END
link set lo up
addr add {address}/32 dev eth0
link set eth0 up
route add 169.254.1.1 dev eth0
route add default via 169.254.1.1 dev eth0
END
"""


def run(
    scenario: str,
    *,
    rootless: bool = False,
    routed: bool = False,
    **settings: object,
) -> Any:
    """Run a function of `scenarios` in a new world and return what it returns (JSON).

    The limit of the test ends it, which is longer in an emulated machine.
    """
    user = ["--user", "--map-root-user"] if rootless else []
    world = [
        "unshare",
        *user,
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    network = "routed" if routed else "bridge"
    words = (network, scenario, json.dumps(settings))
    program = [sys.executable, "-m", "tests.kernel.scenarios", *words]
    done = subprocess.run([*world, *program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@contextlib.contextmanager
def pod_cgroups(uids: Sequence[str]) -> Iterator[Path]:
    """Make, as a kubelet does, a cgroup for a container of each pod; yield their root."""
    trees = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
    tree = next(path for path in trees if (path / "cgroup.controllers").exists())
    root = tree / f"podidentity-test-{os.getpid()}-{next(_TREES)}"
    made = [root / "kubepods" / "burstable" / f"pod{uid}" / "main" for uid in uids]
    try:
        for path in made:
            path.mkdir(parents=True)
        yield root
    finally:
        for folder, _, _ in os.walk(root, topdown=False):
            Path(folder).rmdir()


def build(network: str) -> None:
    """Make the world around this process; it must be in namespaces of its own."""
    if os.getpid() != 1:
        raise RuntimeError("a world is only made in a new PID namespace: use topology.run")
    bridge, pod = (_BRIDGE, _POD) if network == "bridge" else ("", _ROUTED_POD)
    pods = "".join(pod.format(name=name, address=PODS[name]) for name in PODS)
    subprocess.run(["sh", "-c", _BUILD + bridge + pods], check=True)


async def add_pod(name: str, address: str) -> None:
    """Make one more pod on the bridge, as a network plugin does."""
    await command("sh", "-e", "-c", _POD.format(name=name, address=address))


async def remove_pod(name: str) -> None:
    """Remove a pod, as a network plugin does: its link first."""
    await command("ip", "link", "del", f"v-{name}")
    await command("ip", "netns", "del", name)


def inside(netns: str, make: Callable[[], Made]) -> Made:
    """Return a socket, or what holds one, made in a pod's network namespace or that of a path."""
    fd = os.open(netns if "/" in netns else f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(fd):
            return make()
    finally:
        os.close(fd)


@dataclass
class Imds:
    """The real IMDS: answers everybody, and writes down what reached it."""

    seen: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve in the Azure namespace."""
        listening = inside(AZURE_NETNS, lambda: socket.create_server(IMDS, backlog=512))
        server = await serve(listening, self._answer)
        try:
            yield
        finally:
            server.close()  # connections may stay: whoever keeps one open is not waited for

    def _answer(self, _peer: tuple[str, int], path: str) -> dict[str, object]:
        self.seen.append(path)
        return {"who": "imds"}


async def serve(
    listening: socket.socket, answer: Callable[[tuple[str, int], str], dict[str, object]]
) -> asyncio.Server:
    """Serve just enough HTTP to answer each GET with a JSON object of one line."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = json.dumps(
                    answer(writer.get_extra_info("peername"), head.split()[1].decode())
                )
                writer.write(
                    f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                )
        writer.close()

    return await asyncio.start_server(talk, sock=listening)


ANSWERED = 60.0
"""Seconds after which a program does not answer any more: only a failing test waits so long."""


async def connected(client: socket.socket, to: tuple[str, int], seconds: float) -> None:
    """Connect; raise TimeoutError where nothing has come back in time, or what came instead.

    The kernel is asked at the end once more: that this process stood still meanwhile is no answer.
    """
    client.setblocking(False)
    code = client.connect_ex(to)
    if code == errno.EINPROGRESS:
        poll = select.poll()
        poll.register(client, select.POLLOUT)
        if not (poll.poll(0) or await asyncio.to_thread(poll.poll, seconds * 1000)):
            raise TimeoutError
        code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


@dataclass
class Client:
    """A connection from a pod to IMDS, which may be kept."""

    pod: str
    seconds: float = 3
    """That it waits for a connection, which the kernel makes at once or drops."""
    patience: float = ANSWERED
    """Seconds that it waits for the answer of a program."""
    _socket: socket.socket | None = None

    async def get(self, path: str) -> dict[str, Any]:
        """Return the answer, or `{"who": "nobody", "why": …}`."""
        loop = asyncio.get_running_loop()
        try:
            if self._socket is None:
                self._socket = inside(self.pod, socket.socket)
                await connected(self._socket, IMDS, self.seconds)
            async with asyncio.timeout(self.patience):
                await loop.sock_sendall(self._socket, f"GET {path} HTTP/1.1\r\n\r\n".encode())
                got = await loop.sock_recv(self._socket, 4096)
        except (OSError, TimeoutError) as error:
            self.close()
            return {"who": "nobody", "why": type(error).__name__}
        found: dict[str, Any] = json.loads(got.partition(b"\r\n\r\n")[2])
        return found

    @property
    def port(self) -> int:
        """The port of the open connection."""
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


async def ask(
    pod: str, path: str, seconds: float = 3, patience: float = ANSWERED
) -> dict[str, Any]:
    """Ask once, over a connection of its own."""
    client = Client(pod, seconds, patience)
    try:
        return await client.get(path)
    finally:
        client.close()


@dataclass
class Agent:
    """`tests.kernel.agent`, the stand-in for NMI, as a process of the node."""

    process: asyncio.subprocess.Process

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, **settings: object) -> AsyncIterator[Agent]:
        """Start it and return once it serves; at the end it is stopped if it still runs."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.kernel.agent",
            json.dumps(settings),
            stdin=pipe,
            stdout=pipe,
        )
        assert process.stdout is not None
        agent = cls(process)
        try:
            assert await process.stdout.readline() == b"ready\n"
            yield agent
        finally:
            if process.returncode is None:
                await agent.kill()

    async def tell(self, command: str) -> Any:
        """Give it a command of `agent.py` and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n".encode())
        return json.loads(await self.process.stdout.readline())

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Return once the kernel has come to a state that it tells nobody of."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.02)


async def command(*arguments: str, netns: str = "") -> str:
    """Run a program, in a pod's network namespace if one is named, and return its output."""
    entry = ("nsenter", f"--net=/run/netns/{netns}") if netns else ()
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*entry, *arguments, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {output!r} {errors!r}")
    return output.decode()
