"""Scenario: sockets of other kinds, and sockets that pass from one pod to another.

A pod that shares a folder with another can hand it an open socket (SCM_RIGHTS, unix(7)). The kernel
keeps the cgroup in which a socket was made. So it stays the maker's, whoever holds it: nobody gets
a socket of another pod but from that pod, and by taking one he becomes nobody else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from podidentity.core.attestation import AttestationMode, judge
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.interception import Interception
from podidentity.kernel.rules import Redirect
from tests.kernel.agent import WallClock, pod, uid
from tests.kernel.rings import ASYNC, NoRings, Ring
from tests.kernel.topology import IMDS, PODS, command, inside

_MPTCP = 262  # IPPROTO_MPTCP
_MSG_FASTOPEN = 0x20000000
_REQUEST = b"GET / HTTP/1.1\r\n\r\n"
_BOTH_ENDS, _NO_COOKIE_SENT, _NONE_NEEDED = 0x3, 0x4, 0x200
"""Of net.ipv4.tcp_fastopen: https://docs.kernel.org/networking/ip-sysctl.html."""


class _Pods:
    """Puts this process into the cgroup of a pod, as which it then makes sockets."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def become(self, name: str) -> None:
        self._of(name).joinpath("main/cgroup.procs").write_text("0")

    def end(self, name: str) -> None:
        """Remove the cgroups of a pod, as a kubelet does; this process leaves them first."""
        self._root.joinpath("cgroup.procs").write_text("0")
        self._of(name).joinpath("main").rmdir()
        self._of(name).rmdir()

    def _of(self, name: str) -> Path:
        return self._root / f"kubepods/burstable/pod{uid(name)}"


class _Prover:
    """Accepts what p1's network connects to, and says whose it is."""

    def __init__(self, cgroups: str) -> None:
        redirect, names = Redirect(), PodCgroups(Path(cgroups))
        Interception(redirect, WallClock()).install()
        assert names.check() == ""
        self.listening = socket.create_server(redirect.listener)
        self.found: dict[str, Any] = {}
        self._inspector = ConnectionInspector(
            netns_dirs=[Path("/run/netns")], cgroups=names, listener=redirect.listener
        )

    def prove(self, what: str) -> bytes:
        """Note whose the next connection is; return what has come on it."""
        accepted, peer = self.listening.accept()
        with accepted:
            proof = judge(self._inspector.facts(*peer), [pod("p1")], AttestationMode.KERNEL)
            self.found[what] = [proof.verdict, _name_of(proof.pod_uid)]
            with contextlib.suppress(BlockingIOError):
                return accepted.recv(100, socket.MSG_DONTWAIT)
        return b""

    def close(self) -> None:
        self.listening.close()
        self._inspector.close()


async def handing(*, cgroups: str) -> dict[str, Any]:
    """Return for each socket in p1's network what a proof says of it."""
    pods = _Pods(cgroups)
    pods.become("p1")
    with contextlib.closing(_Prover(cgroups)) as prover:
        await _of_other_kinds(prover)
        _by_rings(prover, pods)
        _handed_over(prover, pods)
    return prover.found


async def _of_other_kinds(prover: _Prover) -> None:
    if os.path.exists("/proc/sys/net/mptcp"):  # noqa: ASYNC240, PTH110 - of memory, not of a disk
        with _connected(_MPTCP):
            prover.prove("MPTCP")
    await _open_fast()
    prover.listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 1)
    with inside("p1", socket.socket) as fast:
        fast.sendto(_REQUEST, _MSG_FASTOPEN, IMDS)
        assert prover.prove("a request in its SYN") == _REQUEST


def _by_rings(prover: _Prover, pods: _Pods) -> None:
    """Processes of p1 and p2 share a ring of io_uring, which one of p1 has made.

    What is put into it is done by who enters the kernel with it, or by a thread of the maker's.
    """
    try:
        with contextlib.closing(inside("p1", lambda: Ring(polled=False))) as ring:
            with inside("p1", lambda: _connected_by(ring, ASYNC)):
                prover.prove("by a worker of a ring")
            with _another(lambda: _connect_as("p2", pods, ring)):
                prover.prove("by p2 on p1's ring")
        with (
            contextlib.closing(inside("p1", lambda: Ring(polled=True))) as polled,
            _another(lambda: _connect_as("p2", pods, polled)),
        ):
            prover.prove("by a thread of p1's ring, for p2")
    except NoRings as error:
        prover.found["no rings"] = str(error)


def _connect_as(name: str, pods: _Pods, ring: Ring) -> None:
    pods.become(name)
    inside("p1", lambda: ring.connect(ring.socket(), IMDS))


def _connected_by(ring: Ring, flags: int) -> socket.socket:
    made = ring.socket(flags)
    ring.connect(made, IMDS, flags)
    return socket.socket(fileno=made)


@contextlib.contextmanager
def _another(act: Callable[[], None]) -> Iterator[None]:
    """Have another process do something, and stay until the end; raise NoRings if it cannot."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        _do(act, there)
    os.close(there)
    try:
        said = os.read(here, 100).decode()
        assert said, "it has failed"
        if said != "done":
            raise NoRings(0, said)
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(here)


def _do(act: Callable[[], None], told: int) -> NoReturn:
    try:
        act()
        os.write(told, b"done")
        signal.pause()
    except NoRings as error:
        os.write(told, str(error).encode())
    finally:
        os._exit(1)


def _handed_over(prover: _Prover, pods: _Pods) -> None:
    here, there = socket.socketpair()
    with here, there, _connected() as made:
        socket.send_fds(here, [b"."], [made.fileno()])
        made.close()
        prover.prove("on its way to p2")
    with inside("p1", socket.socket) as made:
        pods.become("p2")
        made.connect(IMDS)
        prover.prove("made by p1, connected by p2")
    with _connected():
        prover.prove("made by p2 in p1's network")
    pods.become("p1")
    with _connected():
        pods.end("p1")
        pods.become("p2")
        prover.prove("of p1 that has ended, held by p2")


def _connected(protocol: int = 0) -> socket.socket:
    made = inside("p1", lambda: socket.socket(proto=protocol))
    made.connect(IMDS)
    return made


async def _open_fast() -> None:
    """Let the node take a request in a SYN from whoever sends one."""
    for netns, value in (
        ("", _BOTH_ENDS | _NONE_NEEDED),
        ("p1", _BOTH_ENDS | _NO_COOKIE_SENT),
    ):
        await command("sh", "-c", f"echo {value} >/proc/sys/net/ipv4/tcp_fastopen", netns=netns)


def _name_of(found: str) -> str:
    return next((name for name in PODS if uid(name) == found), found)
