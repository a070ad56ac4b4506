"""The pods' network namespaces, and which of them holds which address.

They are found in the folders where container runtimes mount them (`/run/netns`). In each, two
netlink sockets are opened once and kept. An open socket keeps its namespace alive, so a namespace
is let go as soon as its file has gone: `follow` does that.

A pod may change its addresses as often as it likes. Reading them anew costs 20 µs, and each
namespace has a budget for that: one that exceeds it, or has more addresses than any pod, holds no
address until it has been read again. That refuses this pod alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from podidentity.kernel.addresses import Addresses, TooManyAddresses
from podidentity.kernel.links import NamespaceNumbers
from podidentity.kernel.namespaces import (
    FolderWatch,
    NamespaceKey,
    entered,
    key_of,
    network_namespace,
)
from podidentity.kernel.sock_diag import Endpoint, SockDiag, TcpSocket

_log = logging.getLogger(__name__)

_READS_AT_ONCE = 10
_READS_A_SECOND = 1.0
_CROWDED_FOR = 5.0
"""Seconds after which a namespace with too many addresses is tried again."""
_SAY_EVERY = 60.0
"""Seconds between two log lines about one namespace."""


class PodNetwork:
    """One namespace, opened; made inside it."""

    def __init__(self, name: str, key: NamespaceKey, number: int | None) -> None:
        self.name = name
        self.key = key
        self.number = number
        """What the node's namespace calls it (nsid); None where it was given no number."""
        self._sockets = SockDiag()
        self._addresses = Addresses()
        self.addresses: dict[str, int] = {}
        """Each IPv4 address with its interface, as of the last `reread`."""

    @property
    def notices(self) -> int:
        """File descriptor that is readable when the addresses have changed."""
        return self._addresses.notices.fileno()

    def reread(self) -> None:
        """Read the addresses anew; raise TooManyAddresses or OSError, and then it holds none."""
        self.addresses = {}
        self.addresses = self._addresses.read()

    def find(self, local: Endpoint, remote: Endpoint) -> TcpSocket | None:
        """Return the socket at the `local` end of a connection, if one is here; raise OSError."""
        return self._sockets.find(local, remote, interface=self.addresses.get(local.address, 0))

    def close(self) -> None:
        """Let the namespace go."""
        self._sockets.close()
        self._addresses.close()


@dataclass(slots=True)
class _Budget:
    """Reads of one namespace's addresses: ten at once, then one a second."""

    tokens: float
    since: float

    def take(self, now: float) -> bool:
        """Whether one more read is allowed now; if so it is counted."""
        filled = self.tokens + (now - self.since) * _READS_A_SECOND
        self.tokens, self.since = min(filled, float(_READS_AT_ONCE)), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class PodNetworks:
    """The namespaces of some folders; `refresh` brings them up to date."""

    def __init__(self, *folders: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folders = folders
        self._monotonic = monotonic
        self._watch = FolderWatch()
        self._numbers = NamespaceNumbers()
        self._unread = True
        self._devices: frozenset[int] = frozenset()
        """Of the folders themselves: a file on one of them has no namespace mounted on it."""
        self._mounted: dict[NamespaceKey, str] = {}
        """The namespaces of the folders as of the last scan, opened or not, with a file of each."""
        self._networks: dict[NamespaceKey, PodNetwork] = {}
        self._holders: dict[str, dict[NamespaceKey, PodNetwork]] = {}
        self._by_notices: dict[int, NamespaceKey] = {}
        self._poll = select.epoll()
        self._budgets: dict[NamespaceKey, _Budget] = {}
        self._over_budget: dict[NamespaceKey, float] = {}
        """When the addresses of each may be read again; until then it holds none."""
        self._crowded: dict[NamespaceKey, float] = {}
        """When each is opened again."""
        self._said: dict[NamespaceKey, float] = {}
        self._untried: set[str] = set()
        """Files where no namespace is mounted yet, or that could not be opened."""
        self._failures: dict[str, str] = {}
        """By file or folder."""
        self._listeners: list[Callable[[], None]] = []
        self.revision = 0
        """Grows when a namespace is opened or let go."""

    def __len__(self) -> int:
        return len(self._networks)

    @property
    def failure(self) -> str:
        """What keeps namespaces from being read, with the next step; "" where nothing does."""
        return next(iter(self._failures.values()), "")

    def holders(self, address: str) -> Collection[PodNetwork]:
        """Return the namespaces that hold an IPv4 address, as of the last refresh."""
        return self._holders.get(address, {}).values()

    def by_number(self) -> dict[int, PodNetwork]:
        """Return the open namespaces by the node's number of each, oldest first."""
        return {each.number: each for each in self._networks.values() if each.number is not None}

    def numbered(self, number: int) -> PodNetwork | None:
        """Return the open namespace that the node calls by this number (nsid), if there is one."""
        return next((each for each in self._networks.values() if each.number == number), None)

    def bare(self) -> list[Path]:
        """Return the files of the folders that have no namespace on them."""
        return [Path(each) for each in sorted(self._untried) if self._is_bare(each)]

    def is_mounted(self, key: NamespaceKey) -> bool:
        """Whether the namespace has a file in one of the folders: its pod has not ended."""
        return key in self._mounted

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called after each refresh that has found something."""
        self._listeners.append(changed)

    def stop_listening(self, changed: Callable[[], None]) -> None:
        """Undo `listen`."""
        self._listeners.remove(changed)

    def refresh(self) -> bool:
        """Take in what has changed; return whether anything may have.

        Costs two system calls where nothing has; otherwise some 20 µs for each namespace whose
        addresses changed, and 2 µs for each file if one came or went.
        """
        changed = False
        if self._watch.changed() or self._unread:
            changed = self._scan()
        elif self._untried:
            changed = self._open_all([each for each in self._untried if self._is_ready(each)])
        if self._over_budget:
            changed = self._read_after_rest() or changed
        for fd, _ in self._poll.poll(0):
            self._reread(self._by_notices[fd])
            changed = True
        if changed:
            for listener in self._listeners:
                listener()
        return changed

    async def follow(self) -> None:
        """Take in what changes as soon as it does, until cancelled."""
        loop = asyncio.get_running_loop()
        followed = (self._watch.fileno(), self._poll.fileno())
        for each in followed:
            loop.add_reader(each, self.refresh)
        try:
            self.refresh()
            await loop.create_future()
        finally:
            for each in followed:
                loop.remove_reader(each)

    def close(self) -> None:
        """Let all go."""
        for key in list(self._networks):
            self._drop(key)
        self._poll.close()
        self._watch.close()
        self._numbers.close()

    def _scan(self) -> bool:
        """Compare the folders with what is open; return whether that differed."""
        files: dict[str, NamespaceKey] = {}
        devices = set()
        for folder in self._folders:
            try:
                # Watched before it is read, so that what comes in between is noticed.
                self._watch.renew(folder)
                devices.add(folder.stat().st_dev)
                files |= _files(folder)
            except OSError as error:
                self._unread = True
                self._failures[str(folder)] = (
                    f"cannot read {folder} ({error.strerror}): mount the node's folder of "
                    "network namespaces there, with propagation HostToContainer"
                )
                return False
        self._devices = frozenset(devices)
        self._unread = False
        self._failures.clear()
        before, self._mounted = self._mounted, {key: name for name, key in files.items()}
        gone = before.keys() - self._mounted.keys()
        for key in gone:
            self._forget(key)
        self._untried = {name for name, key in files.items() if key not in self._networks}
        opened = self._open_all([each for each in self._untried if self._is_ready(each)])
        return opened or bool(gone)

    def _is_ready(self, path: str) -> bool:
        """Whether a namespace to be opened is mounted there.

        A file that a crash has left is not looked into, nor is a crowded namespace before its time.
        """
        try:
            status = os.stat(path)  # noqa: PTH116 - at each doubtful connection
        except OSError:
            return False
        if status.st_dev in self._devices:
            return False
        return self._monotonic() >= self._crowded.get(key_of(status), 0.0)

    def _is_bare(self, path: str) -> bool:
        try:
            return os.stat(path).st_dev in self._devices  # noqa: PTH116 - as above
        except OSError:
            return False

    def _open_all(self, paths: list[str]) -> bool:
        """Open those that can be; return whether one could. The others stay to be tried."""
        before = len(self._networks)
        for path in paths:
            self._untried.discard(path)
            self._failures.pop(path, None)
            try:
                self._open(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._untried.add(path)
                self._failures[path] = f"cannot open {path}: {error.strerror}"
        return len(self._networks) > before

    def _open(self, path: str) -> None:
        """Open one, unless it is open under a second name; raise OSError."""
        with network_namespace(Path(path)) as fd:
            if fd is None:
                self._untried.add(path)
                return
            key = key_of(os.fstat(fd))
            if key in self._networks:
                return
            number = self._numbers.number(fd)
            with entered(fd):
                network = PodNetwork(Path(path).name, key, number)
        self.revision += 1
        self._mounted[key] = path
        self._networks[key] = network
        self._by_notices[network.notices] = key
        self._poll.register(network.notices, select.EPOLLIN)
        self._reread(key)

    def _reread(self, key: NamespaceKey) -> None:
        network = self._networks[key]
        self._let_go(key, network)
        now = self._monotonic()
        if not self._budgets.setdefault(key, _Budget(_READS_AT_ONCE, now)).take(now):
            network.addresses = {}
            self._over_budget[key] = now + 1 / _READS_A_SECOND
            self._poll.unregister(network.notices)
            self._say(key, f"{network.name} changes its addresses all the time: refused meanwhile")
            return
        try:
            network.reread()
        except TooManyAddresses as error:
            # What is left of the answer goes with the socket.
            self._say(key, f"{network.name} {error}: refused until it holds fewer")
            self._crowded[key] = now + _CROWDED_FOR
            self._untried.add(self._mounted[key])
            self._drop(key)
        except OSError as error:
            path = self._mounted[key]
            self._untried.add(path)
            self._failures[path] = f"cannot read the addresses in {path}: {error}"
            self._drop(key)
        for address in network.addresses:
            self._holders.setdefault(address, {})[key] = network

    def _read_after_rest(self) -> bool:
        """Read those again whose time has come; return whether there were any."""
        now = self._monotonic()
        due = [key for key, when in self._over_budget.items() if when <= now]
        for key in due:
            del self._over_budget[key]
            self._poll.register(self._networks[key].notices, select.EPOLLIN)
            self._reread(key)
        return bool(due)

    def _say(self, key: NamespaceKey, what: str) -> None:
        now = self._monotonic()
        if now >= self._said.get(key, now):
            self._said[key] = now + _SAY_EVERY
            _log.warning("%s", what)

    def _let_go(self, key: NamespaceKey, network: PodNetwork) -> None:
        """Take a namespace out of those that are found by an address."""
        for address in network.addresses:
            del self._holders[address][key]
            if not self._holders[address]:
                del self._holders[address]

    def _drop(self, key: NamespaceKey) -> None:
        """Close a namespace; it may be opened again."""
        self.revision += 1
        network = self._networks.pop(key)
        self._let_go(key, network)
        if self._over_budget.pop(key, None) is None:
            self._poll.unregister(network.notices)
        del self._by_notices[network.notices]
        network.close()

    def _forget(self, key: NamespaceKey) -> None:
        """Close a namespace whose file has gone, for good."""
        if key in self._networks:
            self._drop(key)
        for each in (self._budgets, self._crowded, self._said):
            each.pop(key, None)


def _files(folder: Path) -> dict[str, NamespaceKey]:
    """Return the folder's files by path; raise OSError. One that vanishes meanwhile is left out."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found[entry.path] = key_of(os.stat(entry.path))  # noqa: PTH116 - a path as text
            except FileNotFoundError:
                continue
    return found
