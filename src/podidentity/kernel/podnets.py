"""The pods' network namespaces, and the addresses of each.

Container runtimes mount the namespaces in folders (`/run/netns`). Two netlink sockets are opened in
each namespace and kept. An open socket keeps its namespace alive, so `follow` closes the sockets as
soon as the namespace's file is deleted.

A pod can change its addresses at any rate, and reading them again costs 20 µs. So each namespace
has a budget of reads. A namespace that exceeds it, or that has more addresses than any pod needs,
counts as one without addresses until it is read again. This refuses that pod alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import select
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path

from podidentity.core.rate_limits import TokenBucket
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

_READS_A_SECOND, _READS_AT_ONCE = 1.0, 10.0
"""Reads of one namespace's addresses."""
_LISTS_A_SECOND, _LISTS_AT_ONCE = 0.5, 10.0
"""Lists of one namespace's clients, for each of which the kernel walks all connections."""
_MOST_CLIENTS = 1000
_CROWDED_FOR = 5.0
"""Seconds after which a namespace with too many addresses is tried again."""
_LOOK_EVERY = 1.0
"""Seconds between looks at folders that the kernel does not watch; a proof looks at them, too."""
_SAY_EVERY = 60.0
"""Seconds between two log lines about one namespace."""


class PodNetwork:
    """One open namespace; create this object inside it."""

    def __init__(self, name: str, key: NamespaceKey, number: int | None) -> None:
        self.name = name
        self.key = key
        self.number = number
        """Its number (nsid) within the node's namespace; None if it has none."""
        self._sockets = SockDiag()
        self._addresses = Addresses()
        self._lists = TokenBucket(_LISTS_A_SECOND, _LISTS_AT_ONCE, 0)
        self.addresses: dict[str, int] = {}
        """IPv4 addresses with the interface of each, as of the last `reread`."""

    @property
    def notices(self) -> int:
        return self._addresses.notices.fileno()

    def reread(self) -> None:
        """Read the addresses again; they are none if this raises TooManyAddresses or OSError."""
        self.addresses = {}
        self.addresses = self._addresses.read()

    def find(self, local: Endpoint, remote: Endpoint) -> TcpSocket | None:
        """Return the socket at the `local` end of a connection, or None; raise OSError."""
        return self._sockets.find(local, remote, interface=self.addresses.get(local.address, 0))

    def clients_of(self, remote: Endpoint, now: float) -> list[TcpSocket]:
        """Return the open sockets that are connected to `remote`; raise OSError.

        A namespace with many is not listed, nor one for which this is asked all the time: this
        refuses that pod alone.
        """
        if self._lists.take(now):
            raise OSError(errno.EBUSY, f"the clients in {self.name} are asked for too often")
        namespace = self._sockets.namespace()
        try:
            with entered(namespace):
                asking = SockDiag()
        finally:
            os.close(namespace)
        with contextlib.closing(asking):
            return asking.clients_of(remote, most=_MOST_CLIENTS)

    def close(self) -> None:
        self._sockets.close()
        self._addresses.close()


class PodNetworks:
    """The namespaces in some folders; `refresh` applies changes."""

    def __init__(self, *folders: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folders = folders
        self._monotonic = monotonic
        self._watch = FolderWatch()
        self._numbers = NamespaceNumbers()
        self._unread = True
        self._devices: frozenset[int] = frozenset()
        """Devices of the folders. A file on one of these has no namespace mounted on it."""
        self._mounted: dict[NamespaceKey, str] = {}
        """The file of each namespace, open or not, as of the last scan."""
        self._networks: dict[NamespaceKey, PodNetwork] = {}
        self._holders: dict[str, dict[NamespaceKey, PodNetwork]] = {}
        self._by_notices: dict[int, NamespaceKey] = {}
        self._poll = select.epoll()
        """Tells of the folders and of all namespaces at once: each proof asks it."""
        if self._watch.fileno() >= 0:
            self._poll.register(self._watch.fileno(), select.EPOLLIN)
        self._budgets: dict[NamespaceKey, TokenBucket] = {}
        self._over_budget: dict[NamespaceKey, float] = {}
        """Time of the next read of each; until then it counts as one without addresses."""
        self._crowded: dict[NamespaceKey, float] = {}
        """Time at which each is opened again."""
        self._said: dict[NamespaceKey, float] = {}
        self._untried: set[str] = set()
        """Files without a namespace so far, and those that could not be opened."""
        self._failures: dict[str, str] = {}
        """Error by file or folder."""
        self._listeners: list[Callable[[], None]] = []
        self.revision = 0
        """Grows when a namespace is opened or closed."""

    def __len__(self) -> int:
        return len(self._networks)

    @property
    def failure(self) -> str:
        """Why a namespace or a folder cannot be read, with the next step; "" if all can."""
        return next(iter(self._failures.values()), "")

    def holders(self, address: str) -> Collection[PodNetwork]:
        return self._holders.get(address, {}).values()

    def by_number(self) -> dict[int, PodNetwork]:
        """Return the open namespaces by their number (nsid), oldest first."""
        return {each.number: each for each in self._networks.values() if each.number is not None}

    def numbered(self, number: int) -> PodNetwork | None:
        """Return the open namespace with this number (nsid), or None."""
        return next((each for each in self._networks.values() if each.number == number), None)

    def bare(self) -> list[Path]:
        return [Path(each) for each in sorted(self._untried) if self._is_bare(each)]

    def is_mounted(self, key: NamespaceKey) -> bool:
        """Whether the namespace still has a file in one of the folders: its pod has not ended."""
        return key in self._mounted

    def tcp_socket(self, network: PodNetwork) -> socket.socket:
        """Return a new socket, not connected, of a pod's namespace; raise OSError."""
        with network_namespace(Path(self._mounted[network.key])) as fd:
            if fd is None or key_of(os.fstat(fd)) != network.key:
                raise OSError(errno.ESTALE, f"the namespace {network.name} has just ended")
            with entered(fd):
                return socket.socket(
                    socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
                )

    def listen(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each refresh that found a change."""
        self._listeners.append(changed)

    def stop_listening(self, changed: Callable[[], None]) -> None:
        self._listeners.remove(changed)

    def refresh(self) -> bool:
        """Apply changes of folders and addresses; return whether there may have been one.

        Costs one system call without a change, else about 20 µs for each namespace with changed
        addresses, and 2 µs for each file of a changed folder.
        """
        changed = False
        # Each whose addresses changed; None for the folders.
        told = [self._by_notices.get(fd) for fd, _ in self._poll.poll(0, len(self._networks) + 1)]
        asked = None in told or self._watch.looks
        if (asked and self._watch.changed()) or self._unread:
            changed = self._scan()
        elif self._untried:
            changed = self._open_all([each for each in self._untried if self._is_ready(each)])
        if self._over_budget:
            changed = self._read_after_rest() or changed
        for key in told:
            # It may have been closed above.
            if key is not None and key in self._networks:
                self._reread(key)
                changed = True
        if changed:
            for listener in self._listeners:
                listener()
        return changed

    async def follow(self) -> None:
        """Apply each change as soon as it happens, until cancelled."""
        loop = asyncio.get_running_loop()
        followed = self._poll.fileno()
        loop.add_reader(followed, self.refresh)
        try:
            self.refresh()
            while True:
                await asyncio.sleep(_LOOK_EVERY)
                if self._watch.looks:
                    self.refresh()
        finally:
            loop.remove_reader(followed)

    def close(self) -> None:
        """Close all descriptors, after `follow` has ended: the next file has their numbers."""
        for key in list(self._networks):
            self._drop(key)
        self._poll.close()
        self._watch.close()
        self._numbers.close()

    def _scan(self) -> bool:
        """Open new namespaces, close those without a file; return whether there were any."""
        files: dict[str, NamespaceKey] = {}
        devices = set()
        for folder in self._folders:
            try:
                # Watch first, so that a file that is created during the scan is noticed.
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
        """Whether a namespace is mounted on this file, and may be opened now.

        A crash of a runtime leaves files without a namespace. A crowded namespace must wait.
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
        fresh = TokenBucket(_READS_A_SECOND, _READS_AT_ONCE, now)
        if self._budgets.setdefault(key, fresh).take(now):
            network.addresses = {}
            self._over_budget[key] = now + 1 / _READS_A_SECOND
            self._poll.unregister(network.notices)
            self._say(key, f"{network.name} changes its addresses all the time: refused meanwhile")
            return
        try:
            network.reread()
        except TooManyAddresses as error:
            # Closing the socket also drops the rest of the answer.
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
        """Read the namespaces that have waited long enough; return whether there were any."""
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
        for address in network.addresses:
            del self._holders[address][key]
            if not self._holders[address]:
                del self._holders[address]

    def _drop(self, key: NamespaceKey) -> None:
        """Close a namespace, which may be opened again."""
        self.revision += 1
        network = self._networks.pop(key)
        self._let_go(key, network)
        if self._over_budget.pop(key, None) is None:
            self._poll.unregister(network.notices)
        del self._by_notices[network.notices]
        network.close()

    def _forget(self, key: NamespaceKey) -> None:
        if key in self._networks:
            self._drop(key)
        for each in (self._budgets, self._crowded, self._said):
            each.pop(key, None)


def _files(folder: Path) -> dict[str, NamespaceKey]:
    """Return the folder's files by path, without those deleted meanwhile; raise OSError."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found[entry.path] = key_of(os.stat(entry.path))  # noqa: PTH116 - a path as text
            except FileNotFoundError:
                continue
    return found
