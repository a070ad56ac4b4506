"""How a new agent takes the listening sockets over from the old one.

Both have the sockets for a while, and connections wait in the shared backlog until one of them
accepts, so none is refused. The old agent stops accepting when the new one says that it can serve.
If the new one then does not serve, the old one accepts again, so that a rollout of a broken version
stops at the first node.

    new   take 1 0.3.0 NS/POD HOST:PORT,…
                               at the socket of the old agent, `serve.sock` in --handover-dir, with
                               the addresses at which pods will be served
    old   listeners pods host  with the descriptors (SCM_RIGHTS), or: busy
    new   ready                its worker has read the cluster and can prove callers
    old   yours                its own worker accepts no more; who is led to an address that
                               the new agent has not waits until it serves
    new   settled              it serves pods, and `serve.sock` is its own now
    old   back                 too late: the old agent serves again
    new   bye                  it has handed over to another agent, and may end

If the connection ends without `bye`, the new agent has died. The old one ends it when it is told to
stop: then it only answers the connections that it has, and takes nothing back.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from podidentity.local_sockets import Untrusted, check_folder, check_user, connect, listen
from podidentity.supervisor.descendants import check_outsider
from podidentity.supervisor.listeners import BACKLOG, Address, from_descriptors, why_not_ours

SOCKET = "serve.sock"
PROTOCOL = b"1"
LARGEST = 512
"""Longest message, in bytes."""
_LONGEST_NAME = 480
"""Bytes that are said of an agent: its version, namespace and name of its pod, its addresses."""
MOST_SOCKETS = 16
ANSWER_SECONDS = 2.0
"""Timeout for an answer of the old agent."""
ASKING_SECONDS = 0.5
"""How long a process that connected may take to ask. The supervisor's loop waits meanwhile."""
SETTLE_SECONDS = 20.0
"""Time from `ready` in which a new agent must say `settled`."""

_CROWDED = (
    "too many descriptors of our user are on their way between processes (unix(7), ETOOMANYREFS):"
    " end the pod that runs as the same user, or delete the NMI that is to be replaced"
)
"""The kernel counts them by user, for all pods of a node that have no users of their own."""

_log = logging.getLogger("podidentity.supervisor")


class Busy(Exception):
    """The old agent is handing over to another agent, or does not serve yet."""


class Stage(Enum):
    """Progress of a hand-over."""

    OFFERED = auto()
    """The new agent has the sockets and prepares a worker."""
    GIVEN = auto()
    """The old agent accepts no more; the new one does not serve yet."""
    SETTLED = auto()
    """The new agent serves."""


@dataclass(slots=True)
class Successor:
    """The agent that takes over from this one."""

    connection: socket.socket
    version: str
    agent: str = ""
    """Namespace and name of its pod; "" if it does not say."""
    addresses: frozenset[str] = frozenset()
    """Where it listens for pods, each as HOST:PORT; none if it does not say."""
    stage: Stage = Stage.OFFERED
    deadline: float = float("inf")
    """Time by which it must serve."""
    settled: float = float("inf")
    """Since when it serves."""

    def say(self, word: bytes) -> None:
        """Send a message, unless the agent has ended."""
        with suppress(OSError):
            self.connection.send(word)


@dataclass(slots=True)
class Predecessor:
    """The agent that this one takes over from."""

    connection: socket.socket
    listeners: Mapping[str, socket.socket]
    said_ready: bool = False
    deadline: float = float("inf")
    """Time by which it must answer `ready`."""
    gave: bool = False
    settled: bool = False

    def say(self, word: bytes) -> None:
        """Send a message, unless the agent has ended."""
        with suppress(OSError):
            self.connection.send(word)


def hear(connection: socket.socket) -> bytes | None:
    """Return the next message; b"" at the connection's end, None if there is none yet."""
    try:
        return connection.recv(LARGEST)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""


@dataclass(frozen=True, slots=True)
class HandoverFolder:
    """The folder of the node in which agents find each other."""

    path: Path
    users: frozenset[int] = frozenset()
    """Users that other agents may run as, each with a group of the same number."""

    @property
    def uids(self) -> frozenset[int]:
        return self.users | {0, os.geteuid()}

    @property
    def groups(self) -> frozenset[int]:
        return self.users | {0, os.getegid(), *os.getgroups()}

    def take(self, version: str, agent: str, wanted: Sequence[Address]) -> Predecessor | None:
        """Return the agent that listens already, with its sockets; None if there is none.

        `version` and `agent` are what that one is told of this. Raises Busy, or Untrusted if folder
        or agent are not ours.
        """
        check_folder(self.path, owners=self.uids, groups=self.groups)
        try:
            connection = connect(self.path / SOCKET, uids=self.uids)
        except OSError:
            return None  # There is no socket, or an agent that has ended left it.
        try:
            for_pods = ",".join(str(each) for each in wanted if not each.late)
            said = f"{version} {agent} {for_pods}".encode()[:_LONGEST_NAME]
            connection.send(b"take %s %s" % (PROTOCOL, said))
            listeners = _received(connection, wanted)
        except (OSError, Busy, Untrusted) as error:
            connection.close()
            if isinstance(error, OSError):
                raise Busy(f"the agent before does not answer: {error.strerror}") from error
            raise
        return Predecessor(connection, listeners)

    def publish(self) -> socket.socket:
        """Listen for the next agent; raise OSError or Untrusted."""
        check_folder(self.path, owners=self.uids, groups=self.groups)
        return listen(self.path / SOCKET, mode=0o600)

    def accept(
        self, listening: socket.socket, sockets: Mapping[str, socket.socket], *, serving: bool
    ) -> Successor | None:
        """Give the sockets to the agent that asks; return it, or None if it is refused.

        Args:
            listening: the socket that `publish` returned.
            sockets: the sockets to give, by name.
            serving: whether this agent serves, and is not handing over yet.
        """
        try:
            connection, _ = listening.accept()
        except OSError:
            return None
        connection.setblocking(False)
        try:
            version, agent, addresses = _asked(connection, self.uids)
            if serving:
                names = " ".join(["listeners", *sockets]).encode()
                descriptors = [each.fileno() for each in sockets.values()]
                socket.send_fds(connection, [names], descriptors)
                return Successor(connection, version, agent, addresses)
            connection.send(b"busy")
            why = "another agent takes over, or this one does not serve yet"
        except (Untrusted, OSError) as error:
            why = _CROWDED if getattr(error, "errno", 0) == errno.ETOOMANYREFS else str(error)
        _log.warning("the listeners are not handed over: %s", why)
        connection.close()
        return None


def _asked(connection: socket.socket, uids: frozenset[int]) -> tuple[str, str, frozenset[str]]:
    """Return version, pod and addresses of the agent that connected; raise Untrusted or OSError."""
    who = "the process that asks for them"
    check_outsider(check_user(connection, uids, who).pid, who)
    if not select.select([connection], [], [], ASKING_SECONDS)[0]:
        raise Untrusted("the process that connected asks for nothing")
    word, _, rest = connection.recv(LARGEST).partition(b" ")
    protocol, _, named = rest.partition(b" ")
    if word != b"take" or protocol != PROTOCOL:
        raise Untrusted("the process that connected speaks another protocol")
    version, agent, for_pods, *_ = [*named.decode(errors="replace").split(" "), "", ""]
    return version, agent, frozenset(filter(None, for_pods.split(",")))


def _received(connection: socket.socket, wanted: Iterable[Address]) -> dict[str, socket.socket]:
    """Return the received sockets that fit their names; raise Busy or OSError."""
    if not select.select([connection], [], [], ANSWER_SECONDS)[0]:
        raise Busy(f"the agent before does not answer within {ANSWER_SECONDS:g} s")
    packet, descriptors, _, _ = socket.recv_fds(connection, LARGEST, MOST_SOCKETS)
    word, *names = packet.decode(errors="replace").split(" ")
    given = from_descriptors(descriptors)
    kept = _fitting(zip(names, given, strict=False), wanted) if word == "listeners" else {}
    for each in given:
        if each is not None and each not in kept.values():
            each.close()
    if word != "listeners":
        raise Busy("the agent before hands over to another, or does not serve yet")
    return kept


def _fitting(
    given: Iterable[tuple[str, socket.socket | None]], wanted: Iterable[Address]
) -> dict[str, socket.socket]:
    """Return the sockets that listen at the address of their name."""
    addresses = {each.name: each for each in wanted}
    kept: dict[str, socket.socket] = {}
    for name, each in given:
        if each is None or name not in addresses or name in kept:
            continue
        why = why_not_ours(each, addresses[name])
        if why:
            _log.warning("the socket %r of the agent before is not taken over: %s", name, why)
        else:
            each.setblocking(False)
            # An earlier version may have set a shorter backlog.
            each.listen(BACKLOG)
            kept[name] = each
    return kept
