"""The pods' network namespaces, and which of them holds which address.

They are found in the folder where the container runtime mounts them (`/run/netns`). In each, two
conversations are opened once and kept. What is kept keeps its namespace alive, so namespaces whose
file has gone must be let go at once: `follow` does.

Nothing here runs at a pod's command: notices of addresses wait until a proof needs them, and a
namespace with more addresses than any pod has is given up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
from collections.abc import Collection
from pathlib import Path

from podidentity.kernel.addresses import Addresses, TooManyAddresses
from podidentity.kernel.inotify import FolderWatch
from podidentity.kernel.namespaces import NamespaceKey, entered, key_of, network_namespace
from podidentity.kernel.sock_diag import Endpoint, SockDiag, TcpSocket

_log = logging.getLogger(__name__)


class PodNetwork:
    """One namespace, opened; made inside it."""

    def __init__(self, name: str) -> None:
        self.name = name
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


class PodNetworks:
    """The namespaces of a folder; `refresh` brings it up to date."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._watch = FolderWatch(folder)
        self._unread = True
        self._device = 0
        self._networks: dict[NamespaceKey, PodNetwork] = {}
        self._holders: dict[str, dict[NamespaceKey, PodNetwork]] = {}
        self._by_notices: dict[int, NamespaceKey] = {}
        self._poll = select.epoll()
        self._crowded: set[NamespaceKey] = set()
        self._untried: set[str] = set()
        """Files where no namespace is mounted yet, or that could not be opened."""
        self._failures: dict[str, str] = {}
        """By file; under "" the folder's own."""

    def __len__(self) -> int:
        return len(self._networks)

    @property
    def failure(self) -> str:
        """What keeps namespaces from being read, with the next step; "" where nothing does."""
        return next(iter(self._failures.values()), "")

    def holders(self, address: str) -> Collection[PodNetwork]:
        """Return the namespaces that hold an IPv4 address, as of the last refresh."""
        return self._holders.get(address, {}).values()

    def refresh(self) -> bool:
        """Take in what has changed; return whether anything may have.

        Costs two system calls where nothing has; otherwise some 20 µs for each namespace whose
        addresses changed, and 2 µs for each file if one came or went.
        """
        changed = False
        if self._watch.changed() or self._unread:
            changed = self._scan()
        elif self._untried:
            changed = self._open_all([each for each in self._untried if self._is_mounted(each)])
        for fd, _ in self._poll.poll(0):
            self._reread(self._by_notices[fd])
            changed = True
        return changed

    async def follow(self) -> None:
        """Let go of namespaces as soon as their file is removed, until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._watch.fileno(), self.refresh)
        try:
            self.refresh()
            await loop.create_future()
        finally:
            loop.remove_reader(self._watch.fileno())

    def close(self) -> None:
        """Let all go."""
        for key in list(self._networks):
            self._drop(key)
        self._poll.close()
        self._watch.close()

    def _scan(self) -> bool:
        """Compare the folder with what is open; return whether that differed."""
        try:
            # Watched before it is read, so that what comes in between is noticed.
            self._watch.renew()
            self._device = self._folder.stat().st_dev
            files = {each.name: key_of(each.stat()) for each in self._folder.iterdir()}
        except OSError as error:
            self._unread = True
            self._failures[""] = (
                f"cannot read {self._folder} ({error.strerror}): mount the node's folder of "
                "network namespaces there, with propagation HostToContainer"
            )
            return False
        self._unread = False
        self._failures.clear()
        there = set(files.values())
        gone = self._networks.keys() - there
        for key in gone:
            self._drop(key)
        self._crowded &= there
        known = self._networks.keys() | self._crowded
        self._untried = {name for name, key in files.items() if key not in known}
        opened = self._open_all([each for each in self._untried if self._is_mounted(each)])
        return opened or bool(gone)

    def _is_mounted(self, name: str) -> bool:
        """Whether something is mounted there: a file that a crash has left is not looked into."""
        try:
            status = os.stat(f"{self._folder}/{name}")  # noqa: PTH116 - at each doubtful connection
        except OSError:
            return False
        return status.st_dev != self._device

    def _open_all(self, names: list[str]) -> bool:
        """Open those that can be; return whether one could. The others stay to be tried."""
        before = len(self._networks)
        for name in names:
            self._untried.discard(name)
            self._failures.pop(name, None)
            try:
                self._open(name)
            except OSError as error:
                self._untried.add(name)
                self._failures[name] = f"cannot open {self._folder / name}: {error.strerror}"
        return len(self._networks) > before

    def _open(self, name: str) -> None:
        """Open one, unless it is open under a second name; raise OSError."""
        with network_namespace(self._folder / name) as fd:
            if fd is None:
                self._untried.add(name)
                return
            key = key_of(os.fstat(fd))
            if key in self._networks or key in self._crowded:
                return
            with entered(fd):
                network = PodNetwork(name)
        self._networks[key] = network
        self._by_notices[network.notices] = key
        self._poll.register(network.notices, select.EPOLLIN)
        self._reread(key)

    def _reread(self, key: NamespaceKey) -> None:
        network = self._networks[key]
        self._let_go(key, network)
        try:
            network.reread()
        except TooManyAddresses as error:
            _log.warning("%s %s: its pod cannot be proven", network.name, error)
            self._crowded.add(key)
            self._drop(key)
        except OSError as error:
            self._untried.add(network.name)
            self._failures[network.name] = f"cannot read the addresses in {network.name}: {error}"
            self._drop(key)
        for address in network.addresses:
            self._holders.setdefault(address, {})[key] = network

    def _let_go(self, key: NamespaceKey, network: PodNetwork) -> None:
        """Take a namespace out of those that are found by an address."""
        for address in network.addresses:
            del self._holders[address][key]
            if not self._holders[address]:
                del self._holders[address]

    def _drop(self, key: NamespaceKey) -> None:
        network = self._networks.pop(key)
        self._let_go(key, network)
        self._poll.unregister(network.notices)
        del self._by_notices[network.notices]
        network.close()
