"""The ground: a node, its pods and Azure as namespaces of one process.

azure  169.254.169.254, 203.0.113.10 on lo, 10.240.0.1
node   10.240.0.4, cbr0 10.244.0.1/16, forwards; this process is in it
pods   10.244.N.M: a namespace under /run/netns and a cgroup each, nothing runs in them
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from podidentity.kernel.namespaces import entered

AZURE = "/run/azure"
GATEWAY = "10.244.0.1"
"""The node's address on the pods' bridge."""
_BUILD = f"""
mount -t tmpfs tmpfs /run; mkdir /run/netns; touch {AZURE}
unshare --net={AZURE} true
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link add eth0 type veth peer name node netns {AZURE}
ip addr add 10.240.0.4/24 dev eth0; ip link set eth0 up; ip route add default via 10.240.0.1
nsenter --net={AZURE} ip -batch - <<END
link set lo up
addr add 169.254.169.254/32 dev lo
addr add 203.0.113.10/32 dev lo
addr add 203.0.113.53/32 dev lo
addr add 203.0.113.6/32 dev lo
addr add 10.240.0.1/24 dev node
link set node up
route add 10.244.0.0/16 via 10.240.0.4
END
ip link add cbr0 type bridge; ip addr add 10.244.0.1/16 dev cbr0; ip link set cbr0 up
"""
_INSIDE = """link set lo up
addr add {address}/16 dev eth0
link set eth0 up
route add default via 10.244.0.1
"""
_IN_CGROUP = 'echo 0 > "$0/cgroup.procs" && exec "$@"'


@dataclass(frozen=True, slots=True)
class BenchPod:
    """A pod of the node, by its number; the API server gives it the uid."""

    number: int
    uid: str

    @property
    def name(self) -> str:
        """Return the name of the pod and of its namespace file."""
        return f"pod-{self.number}"

    @property
    def address(self) -> str:
        """Return its address."""
        return address_of(self.number)


def address_of(number: int) -> str:
    """Return the address of the pod of this number."""
    return f"10.244.{number // 250}.{number % 250 + 2}"


def enter(module: str) -> None:
    """Continue in namespaces of our own, as root: this program starts again as their process 1."""
    if os.getpid() == 1:
        return
    if os.geteuid() != 0:
        sys.exit("this benchmark needs root: it lays out a node in network namespaces and cgroups")
    spaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv = ["unshare", *spaces, sys.executable, "-m", module, *sys.argv[1:]]
    os.execvp("unshare", argv)  # noqa: S606 - no shell is needed


def build() -> None:
    """Make the node and Azure around this process, which must be in namespaces of its own."""
    if os.getpid() != 1:
        raise RuntimeError("a node is only laid out in a new PID namespace: call enter() first")
    subprocess.run(["sh", "-e", "-c", _BUILD], check=True)


def add_pods(pods: Sequence[BenchPod]) -> None:
    """Make the pods' namespaces and plug them in."""
    _ip(
        "".join(
            f"netns add {pod.name}\n"
            f"link add v{pod.number} type veth peer name eth0 netns {pod.name}\n"
            f"link set v{pod.number} master cbr0 up\n"
            for pod in pods
        )
    )
    for pod in pods:
        _ip(_INSIDE.format(address=pod.address), "-n", pod.name)


def remove_pods(pods: Sequence[BenchPod]) -> None:
    """Take the pods' namespaces away."""
    _ip("".join(f"link del v{pod.number}\nnetns del {pod.name}\n" for pod in pods))


def _ip(script: str, *options: str) -> None:
    subprocess.run(["ip", *options, "-batch", "-"], input=script.encode(), check=True)


def inside(netns: str, make: Callable[[], socket.socket]) -> socket.socket:
    """Return a socket made in a pod's network namespace, or in that of a path."""
    fd = os.open(netns if "/" in netns else f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(fd):
            return make()
    finally:
        os.close(fd)


class Cgroups:
    """Cgroups as a kubelet makes them, one for a container of each pod."""

    def __init__(self, root: Path, *, home: Path) -> None:
        self.root = root
        self._home = home

    @classmethod
    @contextlib.contextmanager
    def made(cls) -> Iterator[Cgroups]:
        """Yield a tree of our own; what is in it must have ended when the context does."""
        trees = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
        tree = next(path for path in trees if (path / "cgroup.controllers").exists())
        home = next(
            line.removeprefix("0::/")
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::/")
        )
        # Not named by a number of the kernel's: one that was interrupted leaves its tree behind.
        own = cls(tree / f"podidentity-bench-{secrets.token_hex(8)}", home=tree / home)
        own.root.mkdir()
        try:
            yield own
        finally:
            for folder, _, _ in os.walk(own.root, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()

    def add(self, uid: str) -> Path:
        """Make the cgroup of a pod's container, or find it."""
        path = self.root / "kubepods" / "burstable" / f"pod{uid}" / "main"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def within(self, uid: str, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` in the pod's cgroup."""
        return ["sh", "-c", _IN_CGROUP, str(self.add(uid)), *command]

    @contextlib.contextmanager
    def entered(self, uid: str) -> Iterator[None]:
        """Be in the pod's cgroup: a socket belongs for good to the one in which it was made."""
        (self.add(uid) / "cgroup.procs").write_text("0")
        try:
            yield
        finally:
            (self._home / "cgroup.procs").write_text("0")


def socket_of(cgroups: Cgroups, pod: BenchPod) -> socket.socket:
    """Return a new socket of the pod: of its network namespace and of its cgroup."""
    with cgroups.entered(pod.uid):
        return inside(pod.name, socket.socket)


def in_pod(cgroups: Cgroups, pod: BenchPod, command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` in the pod."""
    return ["nsenter", f"--net=/run/netns/{pod.name}", *cgroups.within(pod.uid, command)]
