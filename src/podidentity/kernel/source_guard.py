"""Binds each source address to the port of the pod that has it, so that no other pod can use it.

A socket proves a caller only if nobody else can send packets of its connection. On a shared bridge
a pod with NET_RAW can: it poisons the node's ARP entry, makes the bridge learn its neighbour's MAC
address, or sends a segment into an open connection. So a filter of the bridge drops packets with a
source that does not belong to their port (`source_rules`). The node's end of each link tells which
port belongs to which pod (`links`, `source_bindings`).

If the kernel cannot filter so, `problems` says it and `guarded` is False: then each connection must
end after one answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from socket import socket
from typing import TYPE_CHECKING, Any

from podidentity.kernel import drift, source_bindings
from podidentity.kernel.links import Link, Links
from podidentity.kernel.namespaces import NamespaceKey
from podidentity.kernel.nftables import Nftables, NftablesError
from podidentity.kernel.podnets import PodNetwork, PodNetworks
from podidentity.kernel.rules import Redirect
from podidentity.kernel.source_bindings import Binding, Since, disputed, usable
from podidentity.kernel.source_rules import (
    TABLE,
    Elements,
    Table,
    bound_ports,
    bridge_table,
    closed,
    reverse_path_table,
)

if TYPE_CHECKING:
    from podidentity.core.ports import Clock

_log = logging.getLogger(__name__)

_CHECK_EVERY = 60.0
"""Seconds between two checks without a notification."""
_TRIES_AT_ONCE = 10
"""Attempts in a row, one after the other, that leave something wrong: somebody changes the rules
just then, and a new pod gets no packet through until its port is bound."""
_RETRY_AFTER = 1.0
"""Seconds between later ones, unless a link or a namespace comes: the kernel cannot do it."""
_LINKS_EVERY = 0.25
_SETTLES = 0.02
"""Seconds to wait for more changes: a network plugin creates link and addresses in a burst."""

NOT_GUARDED_YET = "the sources of packets are not guarded yet"
_BRIDGE_UNGUARDED = (
    "a pod on a bridge can speak with its neighbour's address: {why}; load nf_tables' bridge family"
    " (CONFIG_NF_TABLES_BRIDGE), or use a network plugin with routed links"
)
_ROUTES_UNGUARDED = (
    "a pod can send to IMDS with an address that is not its own: {why}; load nf_tables' fib"
    " expression (CONFIG_NFT_FIB_IPV4)"
)
_UNOWNED = (
    "a flush of all rules by another program interrupts the guard of sources: {why}; take Linux"
    " 5.12 and a libnftables after 1.0.6 (Debian 12), which keeps the flag `owner` of a table"
)
_SWITCHED_OFF = (
    "a pod on a bridge can speak with its neighbour's address: --source-guard=off; use"
    " --source-guard=on unless pods need addresses of others (a VPN that does not masquerade, a"
    " virtual IP)"
)
_LEARNS = (
    "bridge {name} learns MAC addresses from frames that pass no filter: {why}; it takes kernel 5.0"
    " (ip link set {name} type bridge no_linklocal_learn 1)"
)
_SPANS = (
    "bridge {name} speaks the spanning tree protocol: a pod can take part, and have the bridge"
    " forget where its neighbours are, so that their answers go to all ports; switch it off, as"
    " network plugins have it (ip link set {name} type bridge stp_state 0)"
)
_NOBODY = (
    "{ports} ports of bridges lead to other network namespaces, and none of these is in the folder"
    " of the container runtime: name that folder with --netns-dir"
)


class SourceGuard:
    """Installs, watches and repairs the source rules of the namespace that this process is in.

    Raises NftablesError if libnftables is missing, and OSError if the node's links cannot be read.
    Call all methods from one thread; `run` uses another for changes, which may wait for the
    kernel's lock of rules.
    """

    def __init__(
        self,
        networks: PodNetworks,
        redirect: Redirect,
        clock: Clock,
        *,
        copy: bool = True,
        bridges: bool = True,
    ) -> None:
        """Without `copy` the table has no copy, as on kernels before 5.12.

        Without `bridges` bridges are not filtered, and the rules of an earlier agent are deleted.
        """
        self._networks, self._clock, self._bridges = networks, clock, bridges
        self._closed = frozenset(closed(redirect))
        self._links = Links()
        self._bridge, self._routes = map(
            _InstalledTable, (bridge_table(redirect), reverse_path_table(redirect))
        )
        self._copy = (
            _InstalledTable(bridge_table(redirect, f"{TABLE}-{os.urandom(4).hex()}", owned=True))
            if copy and bridges
            else None
        )
        """Copy of the table that this process owns: `nft flush ruleset` of others skips it."""
        self._bindings: dict[int, Binding] = {}
        """Bindings by port, in the order in which the ports were first seen."""
        self._looks, self._applied = 0, 0
        self._turn = threading.Lock()
        self._said: dict[int, str] = {}
        """The last log line about each port."""
        self._filtered: set[int] = set()
        """Bridges that learned from link-local frames until we switched it off."""
        # The second is set where it is no rule that has changed: rules change by our own hand.
        self._changed, self._moved = asyncio.Event(), asyncio.Event()
        self._revision, self._incomplete = -1, False
        """State of the last look: revision of the namespaces, and whether a port was unbound."""
        self._reading: asyncio.TimerHandle | None = None
        """Timer until we wait for notifications about links again."""
        self._unverified, self._cause = True, ""
        """Whether the rules may have changed since the last look, and which process did it."""
        self._problems: tuple[str, ...] = (NOT_GUARDED_YET,)
        self._warnings: tuple[str, ...] = ()
        self._alone: Mapping[str, NamespaceKey] = {}
        """The only namespace that can send from each address, by the rules now in force."""
        self.repairs = self.moves = 0
        """Numbers of repairs, and of changes of links that were noticed."""
        networks.listen(self._networks_changed)
        self._adopt()

    @property
    def guarded(self) -> bool:
        return not self._problems

    def problems(self) -> tuple[str, ...]:
        """Return the reasons why sources are not guarded, each with the next step.

        Actions of a pod are no problem of the node; they are only logged.
        """
        return self._problems

    def warnings(self) -> tuple[str, ...]:
        return self._warnings

    def bound_to(self, address: str) -> NamespaceKey | None:
        """Return the only namespace that can send from an address; None if it is not known.

        On a bridge this is the namespace of the port that is bound to the address. On routed links
        it is the one to which the node routes the address, because packets from elsewhere are
        dropped (`source_rules`). The route is looked up (30 µs) only if several namespaces have the
        address.
        """
        found = self._alone.get(address)
        if found is not None or self._problems or len(self._networks.holders(address)) < 2:
            return found
        link = self._links.towards(address)
        if link is None or link.namespace is None or link.kind == "bridge":
            return None
        network = self._networks.numbered(link.namespace)
        return None if network is None else network.key

    def plane_of(self, address: str) -> str:
        """Return how the pod of an address is connected: `bridge` or `routed`; "" if not at all."""
        link = self._links.towards(address)
        if link is None:
            return ""
        return "bridge" if link.kind == "bridge" else "routed"

    @property
    def bound(self) -> int:
        return len(self._bindings)

    def refresh(self) -> None:
        """Update the rules; `problems` returns the errors.

        Blocks while another process holds the kernel's lock of rules.
        """
        self._unverified = True
        look = self._look()
        if look is not None:
            self._apply(look)

    async def run(self) -> None:
        """Bind new ports and repair all changes of others, until cancelled; the rules stay."""
        loop = asyncio.get_running_loop()
        with drift.subscribe() as notices:
            loop.add_reader(notices, self._rules_changed, notices)
            loop.add_reader(self._links, self._links_changed)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._tick())
                    group.create_task(self._refresh_whenever())
            finally:
                loop.remove_reader(notices)
                if self._reading is not None:
                    self._reading.cancel()
                loop.remove_reader(self._links)

    def remove(self) -> None:
        """Remove our rules and nothing else; raise NftablesError or OSError."""
        for index in self._filtered & self._links.all.keys():
            self._links.set_link_local_learning(index, on=True)
        self._filtered.clear()
        self._alone = {}
        self._drop_copy()
        self._bridge.remove()
        self._routes.remove()

    def close(self) -> None:
        self._networks.stop_listening(self._networks_changed)
        self._links.close()
        self._drop_copy()
        self._bridge.close()
        self._routes.close()

    async def _refresh_whenever(self) -> None:
        """Refresh at the start and after each change; a change meanwhile causes another."""
        tries = 0
        while True:
            self._changed.clear()
            self._moved.clear()
            look = self._look()
            if look is not None:
                # In a thread, so that requests go on during a wait for the lock. Wait for its end
                # also when cancelled, because `close` must not close the files that it uses.
                applied = asyncio.create_task(asyncio.to_thread(self._apply, look))
                try:
                    await asyncio.shield(applied)
                finally:
                    await applied
            tries = tries + 1 if self._problems else 0
            if not tries:
                await self._changed.wait()
                await self._clock.sleep(_SETTLES)
            elif tries >= _TRIES_AT_ONCE:
                await self._pause()

    async def _pause(self) -> None:
        """Return before the next attempt: sooner if there may be a new port to bind."""
        waits = {
            asyncio.ensure_future(self._moved.wait()),
            asyncio.ensure_future(self._clock.sleep(_RETRY_AFTER)),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._moved.is_set():
            # A pod can change its addresses at any rate, and each attempt writes all rules.
            await self._clock.sleep(_LINKS_EVERY)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(_CHECK_EVERY)
            try:
                self._links.reload()
            except OSError as error:
                _log.warning("the node's links cannot be read: %s", error)
            self._tell_of_changed_pods()
            self._unverified = True
            self._changed.set()

    def _rules_changed(self, notices: socket) -> None:
        notice = drift.pending(notices, TABLE)
        if notice.touched:
            self._cause = notice.cause
            self._unverified = True
            self._changed.set()

    def _links_changed(self) -> None:
        """Refresh after a change of links, but only four times a second.

        A pod can cause notifications at any rate by setting its end up and down. Each refresh
        reads all that are pending.
        """
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._links)
        self._reading = loop.call_later(
            _LINKS_EVERY, loop.add_reader, self._links, self._links_changed
        )
        self.moves += 1
        self._changed.set()
        self._moved.set()

    def _networks_changed(self) -> None:
        """Refresh if a port may be bound now. New addresses of a bound pod change nothing."""
        if self._incomplete or self._networks.revision != self._revision:
            self._changed.set()
            self._moved.set()

    def _adopt(self) -> None:
        """Take over the bindings of an earlier run, so that addresses keep their holders."""
        if not self._bridges:
            return
        found = self._bridge.bound_ports(_names(self._links))
        macs = dict(found.macs)
        for port in self._links.ports():
            held = {each: Since(0, 0) for of, each in found.addresses if of == port.index}
            if held and port.index in macs and port.namespace is not None:
                self._bindings[port.index] = Binding(
                    port=port.index,
                    bridge=port.master,
                    mac=macs[port.index],
                    addresses=held,
                    namespace=None,
                )

    def _look(self) -> _Look | None:
        """Return the state of the node and the wanted elements; None if it cannot be read."""
        self._looks += 1
        try:
            self._networks.refresh()
            self._links.refresh()
            ports = list(self._links.ports())
            problems = (*self._spanning(ports), *self._unlearn(ports)) if self._bridges else ()
        except OSError as error:
            self._problems = (f"the node's links cannot be read: {error}",)
            self._alone = {}
            return None
        pods = [each for each in ports if each.namespace is not None]
        self._forget({each.index: each for each in pods})
        networks = self._networks.by_number()
        self._revision, self._incomplete = self._networks.revision, False
        if pods and not self._bridges:
            problems += (_SWITCHED_OFF,)
        elif pods and not networks:
            problems += (_NOBODY.format(ports=len(pods)),)
        for port in pods if self._bridges else ():
            network = networks.get(-1 if port.namespace is None else port.namespace)
            if network is not None and not self._bind(port, network):
                self._incomplete = True
        elements = source_bindings.elements(
            self._bindings.values(),
            uplinks={each.index: each.master for each in ports if each.is_uplink},
            own=self._links.addresses(),
            closed=self._closed,
        )
        self._tell_of_disputes(elements)
        verify, self._unverified = self._unverified, False
        return _Look(
            number=self._looks,
            elements=elements,
            alone=source_bindings.namespaces(self._bindings.values(), elements),
            names=_names(self._links),
            problems=problems,
            verify=verify,
            bridged=bool(pods),
        )

    def _spanning(self, ports: list[Link]) -> Iterator[str]:
        for index in sorted({each.master for each in ports if each.namespace is not None}):
            bridge = self._links.all[index]
            if bridge.spans:
                yield _SPANS.format(name=bridge.name)

    def _unlearn(self, ports: list[Link]) -> Iterator[str]:
        """Stop the pods' bridges from learning unfiltered frames; yield why that fails."""
        for index in {each.master for each in ports if each.namespace is not None}:
            bridge = self._links.all[index]
            if bridge.learns_link_local:
                try:
                    self._links.set_link_local_learning(index, on=False)
                    self._filtered.add(index)
                except OSError as error:
                    yield _LEARNS.format(name=bridge.name, why=error.strerror)

    def _forget(self, pods: Mapping[int, Link]) -> None:
        for index, binding in list(self._bindings.items()):
            port = pods.get(index)
            moved = port is None or port.master != binding.bridge
            ended = binding.namespace is not None and not self._networks.is_mounted(
                binding.namespace
            )
            if moved or ended:
                del self._bindings[index]
                self._said.pop(index, None)

    def _bind(self, port: Link, network: PodNetwork) -> bool:
        """Bind a port to the addresses at its other end, unless it is bound.

        Returns whether it is bound now.
        """
        known = self._bindings.get(port.index)
        if known is not None:
            if known.namespace is None:
                self._bindings[port.index] = replace(known, namespace=network.key)
            return True
        try:
            end = self._links.far_end(port.index)
        except OSError as error:
            if error.errno == errno.EPERM:
                self._tell(port, f"{error.strerror}: give the process CAP_NET_ADMIN")
            return False
        since = {each: Since(self._looks, created) for each, created in end.addresses.items()}
        addresses = usable(since)
        same_mac = (
            each
            for each in self._bindings.values()
            if each.mac == end.mac and each.bridge == port.master
        )
        if end.namespace != network.number or not since:
            return False  # The link was moved or is unfinished: a notification will follow.
        if not addresses:
            self._tell(port, "its pod has no address that a pod can have, or too many")
            return False
        if any(same_mac):
            self._tell(port, f"its pod has the MAC address of another, {end.mac}")
            return False
        self._bindings[port.index] = Binding(
            port=port.index,
            bridge=port.master,
            mac=end.mac,
            addresses=addresses,
            namespace=network.key,
        )
        return True

    def _apply(self, look: _Look) -> None:
        """Write the rules of a look, unless those of a later look are written already."""
        with self._turn:
            if look.number <= self._applied:
                return
            self._applied = look.number
            # Until the new rules are in force, an address that changes its namespace has none.
            self._alone = dict(self._alone.items() & look.alone.items())
            problems, repaired = list(look.problems), []
            for table, elements, unguarded in (
                (self._routes, Elements(), _ROUTES_UNGUARDED),
                (self._bridge, look.elements, _BRIDGE_UNGUARDED),
            ):
                try:
                    if table is self._routes or self._bridges:
                        repaired += table.write(elements, look.names, verify=look.verify)
                    elif look.verify:
                        table.remove_if_there()
                except NftablesError as error:
                    if table is self._routes or look.bridged:
                        problems.append(unguarded.format(why=error))
            self._write_copy(look)
            self._alone = {} if problems else look.alone
            self._report(problems, repaired)

    def _write_copy(self, look: _Look) -> None:
        """Update our own copy, or have none ever if tables cannot have an owner here."""
        if self._copy is None:
            return
        try:
            self._copy.write(look.elements, look.names, verify=False)  # Only we can change it.
        except NftablesError as error:
            said = _UNOWNED.format(why=error)
            _log.warning("%s", said)
            self._warnings = (said,)
            self._drop_copy()

    def _drop_copy(self) -> None:
        if self._copy is not None:
            copy, self._copy = self._copy, None
            with contextlib.suppress(NftablesError):
                copy.remove()
            copy.close()

    def _report(self, problems: list[str], repaired: list[str]) -> None:
        for each in problems:
            if each not in self._problems:
                _log.error("%s", each)
        self._problems = tuple(problems)
        if repaired:
            self.repairs += 1
            cause, self._cause = self._cause or "an unknown hand", ""
            _log.warning("source rules repaired: %s; by %s", " and ".join(repaired), cause)

    def _tell_of_disputes(self, granted: Elements) -> None:
        for index, addresses in disputed(self._bindings.values(), granted).items():
            others = ", ".join(sorted(addresses))
            self._tell(self._links.all[index], f"its pod may not use {others}: another has it")

    def _tell_of_changed_pods(self) -> None:
        """Log which pods have other addresses than those bound, because that is dropped."""
        for index, binding in self._bindings.items():
            port = self._links.all.get(index)
            if port is None:
                continue  # The next look removes it.
            try:
                end = self._links.far_end(index)
            except OSError:
                continue
            more = sorted(usable({each: Since(0, 0) for each in end.addresses}).keys())
            more = [each for each in more if each not in binding.addresses]
            if end.mac != binding.mac:
                more.append(end.mac)
            if more:
                was = "its pod was not seen with it at first, and what it sends with it is dropped"
                self._tell(port, f"{', '.join(more)}: {was}")

    def _tell(self, port: Link, what: str) -> None:
        """Log a line about a pod's port, unless it was the last line about it."""
        if self._said.get(port.index) != what:
            self._said[port.index] = what
            _log.warning("port %s of a bridge: %s", port.name, what)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """State of the node at one moment."""

    number: int
    elements: Elements
    alone: Mapping[str, NamespaceKey]
    """By address, the only namespace that can send from it."""
    names: Mapping[str, int]
    """The node's links, name to index."""
    problems: tuple[str, ...]
    verify: bool
    """Whether another process may have changed the rules."""
    bridged: bool
    """Whether a port of a bridge leads to another namespace."""


class _InstalledTable:
    """One table of ours in the kernel; raises NftablesError."""

    def __init__(self, table: Table) -> None:
        self._nft = Nftables()
        self._table = table
        self._written: Elements | None = None
        """The elements last written; None before that, and after an error."""

    def bound_ports(self, links: Mapping[str, int]) -> Elements:
        """Return the addresses that its ports are bound to; none if there is no table."""
        return bound_ports(self._listed(), links)

    def write(self, elements: Elements, links: Mapping[str, int], *, verify: bool) -> list[str]:
        """Write `elements`; with `verify`, return what another process had changed.

        A replacement is read back at once. A change is read back after its own notification.
        """
        before, self._written = self._written, None
        found = ""
        if before is None or verify:
            listed = self._listed()
            if not self._table.difference(elements, listed, links):
                before = elements  # Written by an earlier run, or by another agent in an update.
            elif before is not None:
                found = self._table.difference(before, listed, links)
        if before is None or found or not self._change(before, elements):
            self._nft.run(self._table.replacement(elements))
            left = self._table.difference(elements, self._listed(), links)
            if left:
                raise NftablesError(f"the kernel does not hold the rules that were set: {left}")
        self._written = elements
        return [f"table {self._table.family} {TABLE}: {found}"] if found else []

    def _change(self, before: Elements, elements: Elements) -> bool:
        """Change the elements that differ; return whether the kernel accepted it.

        It refuses if another process has made the change already.
        """
        try:
            if before != elements:
                self._nft.run(self._table.change(before, elements))
        except NftablesError:
            return False
        return True

    def remove_if_there(self) -> None:
        if self._listed():
            self.remove()

    def remove(self) -> None:
        self._written = None
        self._nft.run(self._table.deletion())

    def close(self) -> None:
        self._nft.close()

    def _listed(self) -> Mapping[str, Any]:
        """Return the listing; {} if there is no such table, or it cannot be read."""
        try:
            return self._nft.run(self._table.listing())
        except NftablesError:
            return {}


def _names(links: Links) -> dict[str, int]:
    return {each.name: each.index for each in links.all.values()}
