"""Redirects the pods' IMDS traffic to NMI, and repairs the rules whenever others change them.

The agent closes IMDS first of all and leaves the rules when it stops: without them a pod reaches
the real IMDS, and with it every identity of the node. Notifications of the kernel report each
change, and one transaction repairs it. Connections that are redirected already stay so when the
rules are removed: conntrack is not touched.

The interception consists of table `ip podid` (`rules`), routing rules and an address (`routing`),
and a copy of the table that this process owns. `nft flush ruleset` skips the copy. Without the
copy, a flush also breaks connections: an answer under way leaves with the source address
169.254.25.79, the pod's kernel resets it, and the client waits for its own time-out. The kernel
removes the copy when the process ends, so it cannot replace the table.

One thread of our own makes all changes, because a change can wait 60 ms for another process that
holds the kernel's lock, and because libnftables is not thread-safe.

We tried another way in network namespaces and rejected it: a routing rule to a table with `local
169.254.169.254 dev lo`, and a listener with IP_TRANSPARENT. It needs no nf_tables, handles
fragments, and a new connection with its answer takes 278 µs (with the redirection 305 µs). But it
cannot share port 80 with a program of the node that listens on all addresses, such as an ingress
controller (EADDRINUSE for whichever comes second), and it needs CAP_NET_ADMIN or CAP_NET_RAW.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

from podidentity.kernel import drift, rules, sock_diag
from podidentity.kernel.closing_rules import closing
from podidentity.kernel.nftables import Nftables, NftablesError, RulesRefused
from podidentity.kernel.routing import Routing
from podidentity.kernel.rules import Redirect, RedirectTable

if TYPE_CHECKING:
    from podidentity.core.ports import Clock

__all__ = ["Interception", "InterceptionError", "Redirect"]

_log = logging.getLogger(__name__)

_CHECK_EVERY = 60.0
"""Seconds between two checks without a notification; the archived agent's default."""
_TRIES_AT_ONCE = 10
"""Repairs in a row, one after the other, that are found undone when they are read back: somebody
takes more away just then, and part of the rules may open or close too much."""
_RETRY_AFTER = 1.0
"""Seconds between later ones: the kernel, or libnftables, understands us otherwise."""
_MOST_REPAIRS, _MOST_OF_THE_TIME = 50, 0.25
"""If the last repairs, so many, took more than this part of the time in which they fell, another
program undoes each of them, however fast the machine is. Then we repair once a second only."""
_QUIET = 0.1
"""Shortest time between two log lines about repairs, in seconds."""
_MOST_SAID = 3
_NOT_INSTALLED = "the interception is not installed"
_UNOWNED = (
    "a flush of all rules by another program interrupts requests: {why}; take Linux 5.12 and a"
    " libnftables after 1.0.6 (Debian 12), which keeps the flag `owner` of a table"
)
_UNSHARED = (
    "one pod can hold up the connections of others: {why}; load nf_tables' expressions connlimit"
    " and limit (CONFIG_NFT_CONNLIMIT, CONFIG_NFT_LIMIT) and restart NMI"
)
_REFUSED = (
    "the node refuses NMI's rules, and takes requests by Cilium's local redirect policy all the "
    "same: routing rules close IMDS, but one pod can hold up the connections of others, each "
    "connection ends after one answer, and other machines can connect to port {port} and get "
    "nothing"
)


class InterceptionError(Exception):
    """The kernel, or libnftables, refused; the message names the cause and the next step."""


class Interception:
    """Installs, watches and repairs the rules of the network namespace that this process is in.

    Raises InterceptionError, the constructor too (libnftables missing), with the cause and the next
    step in its message.
    """

    def __init__(self, redirect: Redirect, clock: Clock, *, copy: bool = True) -> None:
        """Without `copy` the table has no copy, as on kernels before 5.12."""
        self._clock = clock
        self._redirect = redirect
        self._table = RedirectTable(redirect)
        name = f"{rules.TABLE}-{os.urandom(4).hex()}"
        self._copy = RedirectTable(redirect, name, owned=True) if copy else None
        try:
            self._nft = Nftables()
            self._routing = Routing(redirect)
        except (NftablesError, OSError) as error:
            raise InterceptionError(str(error)) from error
        self._thread = ThreadPoolExecutor(1, "interception")
        self._problems: tuple[str, ...] = (_NOT_INSTALLED,)
        self._complained: tuple[str, ...] = ()
        self._unshared: tuple[str, ...] = ()
        self._unowned: tuple[str, ...] = ()
        self._refused: tuple[str, ...] = ()
        """That there is no table, and need not be one."""
        self._cause = ""
        self._recent: deque[tuple[float, float]] = deque(maxlen=_MOST_REPAIRS)
        """When each of the last repairs began and ended."""
        self._disputed = False
        self._reported, self._unreported = float("-inf"), 0
        self.repairs = 0
        """Number of repairs."""
        self.dropped_resets = 0
        """Resets of pods that the rules had dropped when they were last looked at."""
        self._counted: dict[str, int] = {}
        """What each table said of them."""
        self.closed_by: tuple[str, ...] = ()
        """What else closes IMDS to pods, when it was last looked at."""

    @property
    def listener(self) -> sock_diag.Endpoint:
        return self._redirect.listener

    def close_imds(self) -> None:
        """Close the way to the real IMDS and redirect nothing yet; safe to repeat."""
        self._do(self._close_imds, "cannot close IMDS to pods")

    def listener_user(self) -> int | None:
        """Return the user of the program that listens where connections are led; None: nobody does.

        Returns root if that is unknown.
        """
        try:
            return sock_diag.listener_user(self._redirect.listener)
        except OSError:
            return 0

    def install(self) -> None:
        """Close the way to the real IMDS, then redirect, in one transaction; safe to repeat.

        Blocks while another process holds the kernel's lock of rules. Reads all rules back:
        `problems` returns what differs, and `guard` tries again.
        """
        self._problems = tuple(self._do(self._install, "cannot intercept pods' IMDS traffic"))
        self._complain()

    def release(self, *, closed: bool = False) -> None:
        """Lead no more connections here; those that are open go on. End `guard` first.

        Pods reach the real IMDS afterwards. With `closed` the routing rules stay: pods reach nobody
        until the rules of another redirect them, which come before routing.
        """
        self._do(partial(self._release, closed=closed), "cannot remove the interception")
        self._problems = (_NOT_INSTALLED,)

    def yield_rules(self) -> None:
        """Leave the rules to another agent, which may remove its own; returns at once.

        Our copy would lead pods here as long as this process lives. `install` makes it again.
        """
        self._thread.submit(self._remove_copy)

    def remove(self, *, closed: bool = False) -> tuple[str, ...]:
        """Remove our rules and nothing else; return what is left to do. End `guard` first.

        `closed` is as of `release`.
        """
        self._do(partial(self._remove, closed=closed), "cannot remove the interception")
        self._problems = (_NOT_INSTALLED,)
        if not self._redirect.owns_target:
            return ()
        address = f"{self._redirect.target}/32 dev lo"
        return (f"when the last connections have ended: ip address delete {address}",)

    def problems(self) -> tuple[str, ...]:
        return self._problems

    def warnings(self) -> tuple[str, ...]:
        return (*self._unshared, *self._unowned, *self._refused)

    async def check(self) -> bool:
        """Repair the rules; return whether there was something to repair, and it succeeded."""
        loop = asyncio.get_running_loop()
        cause, self._cause = self._cause or "an unknown process", ""
        began = self._clock.monotonic()
        try:
            found, left = await loop.run_in_executor(self._thread, self._repair)
        except InterceptionError as error:
            self._problems = (str(error),)
            return False
        if left:
            self._problems = tuple(left)
            return False
        self._problems = tuple(self._dispute(found, cause, began))
        if found:
            self.repairs += 1
            self._report(_some(found), cause)
        return bool(found)

    async def guard(self) -> None:
        """Repair all changes of others, until cancelled; the rules stay."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        with drift.subscribe() as of_table, drift.subscribe_routing() as of_routing:
            loop.add_reader(of_table, self._table_changed, of_table, changed)
            loop.add_reader(of_routing, self._routing_changed, of_routing, changed)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._tick(changed))
                    group.create_task(self._repair_whenever(changed))
            finally:
                loop.remove_reader(of_table)
                loop.remove_reader(of_routing)

    def close(self) -> None:
        """Close the connections to the kernel, after `guard` has ended; the rules stay."""
        self._thread.shutdown()
        self._nft.close()
        self._routing.close()

    def _do(self, action: Callable[[], list[str]], failed: str) -> list[str]:
        try:
            return self._thread.submit(action).result()
        except InterceptionError as error:
            raise InterceptionError(f"{failed}: {error}") from error

    # In our thread:

    def _close_imds(self) -> list[str]:
        with _explained():
            self._routing.repair()
        return []

    def _install(self) -> list[str]:
        """Set all rules; return a description of each that does not read back as it was set.

        The redirection comes last: it needs the address, and other ways to IMDS closed.
        """
        self._warn_of_release_0_1()
        with _explained():
            self._routing.repair()
            self._name_uplink()
            with self._tables_may_be_refused():
                self._unshared = self._replace()
                self._make_copy()
            self._look_beside()
            return self._left()

    def _name_uplink(self) -> None:
        uplink = self._routing.uplink()
        self._table = replace(self._table, uplink=uplink)
        self._copy = self._copy and replace(self._copy, uplink=uplink)

    @contextlib.contextmanager
    def _tables_may_be_refused(self) -> Iterator[None]:
        """Do without tables where the node refuses them, and requests need none to come to us."""
        try:
            yield
        except RulesRefused as error:
            if not self._redirect.node_address:
                raise
            said = _REFUSED.format(port=self._redirect.listen_port)
            if not self._refused:
                _log.warning("%s (%s)", said, error)
            self._refused = (said,)
        else:
            self._refused = ()

    def _replace(self) -> tuple[str, ...]:
        """Replace the table of our name; return a warning for each feature that it lacks.

        Leaves the shares out if the kernel does not support them: pods are still served safely.
        """
        shared, unshared = (replace(self._table, shares=each) for each in (True, False))
        try:
            self._nft.run(shared.replacement())
            why = _some(self._listed(shared))
        except NftablesError as error:
            why = str(error)
        self._table = shared
        if not why:
            return ()
        self._nft.run(unshared.replacement())
        if self._listed(unshared):
            return ()  # another program changes it, with shares or without
        self._table = unshared
        said = _UNSHARED.format(why=why)
        _log.warning("%s", said)
        return (said,)

    def _look_beside(self) -> None:
        imds = self._redirect.imds
        self.closed_by = closing(self._nft, imds.address, imds.port)

    def _release(self, *, closed: bool) -> list[str]:
        with _explained():
            if closed:
                self._routing.repair()
            with self._tables_may_be_refused():
                self._nft.run(self._table.release())
                if self._copy:
                    self._nft.run(self._copy.deletion())
            if not closed:
                self._routing.remove()
        return []

    def _remove(self, *, closed: bool) -> list[str]:
        with _explained():
            if closed:
                self._routing.repair()
            for table in filter(None, (self._copy, self._table)):
                self._nft.run(table.deletion())
            if not closed:
                self._routing.remove()
        return []

    def _remove_copy(self) -> None:
        if self._copy is None or self._refused:
            return
        try:
            self._nft.run(self._copy.deletion())
        except (NftablesError, OSError) as error:
            _log.warning("pods may be led here until this process ends: %s", error)

    def _repair(self) -> tuple[list[str], list[str]]:
        with _explained():
            self._name_uplink()
            of_routing, of_table = self._routing.differences(), self._listed(self._table)
            if of_routing:
                self._routing.repair()
            with self._tables_may_be_refused():
                if of_table:
                    self._nft.run(self._table.replacement())
                if self._copy and self._listed(self._copy):
                    self._make_copy()
            found = [*of_routing, *(() if self._refused else of_table)]
            return found, self._left() if found else []

    def _left(self) -> list[str]:
        tables = () if self._refused else self._listed(self._table)
        differences = [*self._routing.differences(), *tables]
        return [f"set, and not as it was set: {_some(differences)}"] if differences else []

    def _make_copy(self) -> None:
        """Make our own copy of the table, or none ever if tables cannot have an owner here."""
        if not self._copy:
            return
        self._copy = replace(self._copy, shares=self._table.shares)
        with contextlib.suppress(NftablesError):
            self._nft.run(self._copy.replacement())
        if left := self._listed(self._copy):
            said = _UNOWNED.format(why=_some(left))
            _log.warning("%s", said)
            self._unowned = (said,)
            with contextlib.suppress(NftablesError):
                self._nft.run(self._copy.deletion())
            self._copy = None

    def _listed(self, table: RedirectTable) -> list[str]:
        try:
            listed = self._nft.run(table.listing())
        except NftablesError as error:
            return [f"table ip {table.name}: {error}"]
        self._count(table.name, table.dropped_resets(listed))
        return table.differences(listed)

    def _count(self, table: str, dropped: int) -> None:
        """Add what was dropped since the last look; a table that is set anew begins at 0."""
        before = self._counted.get(table, 0)
        self._counted[table] = dropped
        self.dropped_resets += dropped - before if dropped >= before else dropped

    def _warn_of_release_0_1(self) -> None:
        """Log that the sysctl of podidentity 0.1 is still set, though we need it no more."""
        with contextlib.suppress(NftablesError, OSError):
            if (
                rules.redirects_to_loopback(self._nft.run(self._table.listing()))
                and Path("/proc/sys/net/ipv4/conf/all/route_localnet").read_text().strip() == "1"
            ):
                _log.warning(
                    "podidentity 0.1 needed net.ipv4.conf.all.route_localnet=1 on this node; set "
                    "it to 0 unless something else needs it, such as kube-proxy for node ports on "
                    "localhost"
                )

    # In the thread of the event loop:

    async def _repair_whenever(self, changed: asyncio.Event) -> None:
        """Check at the start and after each change; a change during a check causes another."""
        tries = 0
        while True:
            changed.clear()
            await self.check()
            tries = tries + 1 if self._problems else 0
            if not tries:
                self._complain()
                await changed.wait()
            elif self._disputed or tries >= _TRIES_AT_ONCE:
                self._complain()
                await self._clock.sleep(_RETRY_AFTER)

    async def _tick(self, changed: asyncio.Event) -> None:
        while True:
            await self._clock.sleep(_CHECK_EVERY)
            changed.set()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._look_beside)

    def _table_changed(self, notices: socket, changed: asyncio.Event) -> None:
        """Have the rules checked if a notification names our table, also after our own changes."""
        notice = drift.pending(notices, rules.TABLE)
        if notice.touched:
            self._cause = notice.cause
            changed.set()

    def _routing_changed(self, notices: socket, changed: asyncio.Event) -> None:
        if drift.routing_touched(notices, self._redirect.metadata_ip):
            changed.set()

    def _complain(self) -> None:
        """Log what is wrong, unless it was the last that was logged."""
        if self._problems and self._problems != self._complained:
            what = _some(self._problems)
            _log.error("pods' IMDS traffic is not intercepted as it must be: %s", what)
        self._complained = self._problems

    def _dispute(self, repaired: list[str], cause: str, began: float) -> list[str]:
        """Return the problem that another program undoes each repair at once; [] if none does."""
        if not repaired:
            self._disputed = False
            return []
        now = self._clock.monotonic()
        self._recent.append((began, now))
        spent = sum(ended - begun for begun, ended in self._recent)
        often = spent >= _MOST_OF_THE_TIME * (now - self._recent[0][0])
        self._disputed = self._disputed or (often and len(self._recent) == _MOST_REPAIRS)
        if not self._disputed:
            return []
        return [f"each repair is undone again, by {cause}; last: {_some(repaired)}"]

    def _report(self, what: str, cause: str) -> None:
        now = self._clock.monotonic()
        if now - self._reported < _QUIET:
            self._unreported += 1
            return
        more = f" ({self._unreported} more just before)" if self._unreported else ""
        _log.warning("interception repaired: %s; by %s%s", what, cause, more)
        self._reported, self._unreported = now, 0


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raise errors of the kernel and of libnftables as InterceptionError."""
    try:
        yield
    except (NftablesError, OSError) as error:
        raise InterceptionError(getattr(error, "strerror", None) or str(error)) from error


def _some(differences: Sequence[str]) -> str:
    more = len(differences) - _MOST_SAID
    shown = " and ".join(differences[:_MOST_SAID])
    return f"{shown} and {more} more" if more > 0 else shown
