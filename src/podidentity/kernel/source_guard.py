"""Ties each source address to the port of the pod that has it, so that no other can speak with it.

The kernel's word on a socket proves a caller only where nobody else can hold that socket's
conversation. On a shared bridge a pod with NET_RAW can: it poisons the node's ARP entry, has the
bridge learn its neighbour's MAC address, or sends one segment into a connection that is open. So a
filter of the bridge drops what does not come from where it claims (`source_rules`), and knows what
comes from where by the node's end of each link (`links`, `source_bindings`).

A kernel that cannot filter so is told in `problems`, and `guarded` is False then: connections must
not be kept beyond one answer.
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
"""Seconds; for what sends no notice."""
_RETRY_AFTER = 1.0
_LINKS_EVERY = 0.25
_SETTLES = 0.02
"""Seconds: a network plugin makes a link and its addresses in a burst, and then starts the pod."""

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
_NOBODY = (
    "{ports} ports of bridges lead to other network namespaces, and none of these is in the folder"
    " of the container runtime: name that folder with --netns-dir"
)


class SourceGuard:
    """Installs, watches and repairs the source rules of the namespace that this process is in.

    Raises NftablesError where libnftables is missing, and OSError where the node's links cannot be
    read. Its methods belong to one thread; `run` leaves to another what may wait for the kernel's
    lock of rules.
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
        """`copy` False: none is made, as on kernels before 5.12.

        `bridges` False: bridges are not filtered, and what an earlier agent has set there goes.
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
        """That belongs to this process, so that others' `nft flush ruleset` passes it over."""
        self._bindings: dict[int, Binding] = {}
        """By port, in the order in which they were first seen."""
        self._looks, self._applied = 0, 0
        self._turn = threading.Lock()
        self._said: dict[int, str] = {}
        """What was last logged of a port."""
        self._filtered: set[int] = set()
        """Bridges that learned from link-local frames before this object ended it."""
        self._changed = asyncio.Event()
        self._revision, self._incomplete = -1, False
        """Of the last look: revision of the namespaces, and whether a port of theirs is unbound."""
        self._reading: asyncio.TimerHandle | None = None
        """Until the links' notices are waited for again."""
        self._unverified, self._cause = True, ""
        """Whether, and by whom, the rules may have been changed since the last look."""
        self._problems: tuple[str, ...] = (NOT_GUARDED_YET,)
        self._warnings: tuple[str, ...] = ()
        self._alone: Mapping[str, NamespaceKey] = {}
        """By address, as of the rules that are in force."""
        self.repairs = 0
        """How often something was found changed and put right."""
        networks.listen(self._networks_changed)
        self._adopt()

    @property
    def guarded(self) -> bool:
        """Whether no pod can speak with an address that is another's."""
        return not self._problems

    def problems(self) -> tuple[str, ...]:
        """Return what leaves sources unguarded, each with the next step; () where all is well.

        Nothing that a pod does is a problem of the node: that is in the log.
        """
        return self._problems

    def warnings(self) -> tuple[str, ...]:
        """Return what the kernel, or the library, cannot do for us."""
        return self._warnings

    def bound_to(self, address: str) -> NamespaceKey | None:
        """Return the namespace that alone can send with an address; None if that is not known.

        On a bridge it is that of the port which is bound to the address. A routed link has the
        addresses that the node routes there, for packets of others are dropped (`source_rules`);
        that takes a question of 30 µs, and is asked only if several namespaces have the address.
        """
        found = self._alone.get(address)
        if found is not None or self._problems or len(self._networks.holders(address)) < 2:
            return found
        link = self._links.towards(address)
        if link is None or link.namespace is None or link.kind == "bridge":
            return None
        network = self._networks.numbered(link.namespace)
        return None if network is None else network.key

    @property
    def bound(self) -> int:
        """How many ports are bound to a MAC address and to addresses."""
        return len(self._bindings)

    def refresh(self) -> None:
        """Bring the rules up to date; failures are in `problems`.

        Blocks for as long as others hold the kernel's lock of rules.
        """
        self._unverified = True
        look = self._look()
        if look is not None:
            self._apply(look)

    async def run(self) -> None:
        """Bind new ports, and repair whatever others change, until cancelled; the rules stay."""
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
        """Take exactly our rules away; raise NftablesError or OSError."""
        for index in self._filtered & self._links.all.keys():
            self._links.set_link_local_learning(index, on=True)
        self._filtered.clear()
        self._alone = {}
        self._drop_copy()
        self._bridge.remove()
        self._routes.remove()

    def close(self) -> None:
        """Free what talks to the kernel, after `run` has ended; the rules stay."""
        self._networks.stop_listening(self._networks_changed)
        self._links.close()
        self._drop_copy()
        self._bridge.close()
        self._routes.close()

    async def _refresh_whenever(self) -> None:
        """Refresh at the start and after each change; changes meanwhile make one more."""
        while True:
            self._changed.clear()
            look = self._look()
            if look is not None:
                # In a thread: requests go on while others hold the lock. And to its end: what the
                # thread uses must not be closed under it.
                applied = asyncio.create_task(asyncio.to_thread(self._apply, look))
                try:
                    await asyncio.shield(applied)
                finally:
                    await applied
            if self._problems:
                await self._clock.sleep(_RETRY_AFTER)
            else:
                await self._changed.wait()
                await self._clock.sleep(_SETTLES)

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
        """Have the links looked at, four times a second at most: a pod can set its end up and down.

        The look takes in all notices that wait.
        """
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._links)
        self._reading = loop.call_later(
            _LINKS_EVERY, loop.add_reader, self._links, self._links_changed
        )
        self._changed.set()

    def _networks_changed(self) -> None:
        """Look again if that can bind a port: addresses of a pod that is bound bind it no more."""
        if self._incomplete or self._networks.revision != self._revision:
            self._changed.set()

    def _adopt(self) -> None:
        """Take over what an earlier run has bound: its first holders stay the first."""
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
        """Return how the node is and what the rules are to hold; None where it cannot be read."""
        self._looks += 1
        try:
            self._networks.refresh()
            self._links.refresh()
            ports = list(self._links.ports())
            problems = tuple(self._unlearn(ports)) if self._bridges else ()
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
            uplinks={each.index for each in ports if each.is_uplink},
            reserved=self._links.addresses(),
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

    def _unlearn(self, ports: list[Link]) -> Iterator[str]:
        """End what bridges of pods learn without the filter; yield why that fails."""
        for index in {each.master for each in ports if each.namespace is not None}:
            bridge = self._links.all[index]
            if bridge.learns_link_local:
                try:
                    self._links.set_link_local_learning(index, on=False)
                    self._filtered.add(index)
                except OSError as error:
                    yield _LEARNS.format(name=bridge.name, why=error.strerror)

    def _forget(self, pods: Mapping[int, Link]) -> None:
        """Let go of bindings whose port, or whose namespace, has gone."""
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
        """Bind a port to what its other end has now, unless it is bound; return whether it is."""
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
            return False  # moved, or not made to its end: another notice is on its way
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
        """Write the rules as they are to be, unless a later look has been written already."""
        with self._turn:
            if look.number <= self._applied:
                return
            self._applied = look.number
            # Until the rules are in force, an address whose namespace changes is nobody's alone.
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
        """Keep our own copy; do without it for good where the kernel gives nobody ownership."""
        if self._copy is None:
            return
        try:
            self._copy.write(look.elements, look.names, verify=False)  # nobody else may change it
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
        """Log which pods have changed what they are bound to: their packets are dropped."""
        for index, binding in self._bindings.items():
            port = self._links.all.get(index)
            if port is None:
                continue  # it goes with the next look
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
        """Log a line about a pod's port, once until another is due."""
        if self._said.get(port.index) != what:
            self._said[port.index] = what
            _log.warning("port %s of a bridge: %s", port.name, what)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """How the node was at one moment."""

    number: int
    elements: Elements
    alone: Mapping[str, NamespaceKey]
    """By address, the namespace that alone can send with it."""
    names: Mapping[str, int]
    """The node's links, name to index."""
    problems: tuple[str, ...]
    verify: bool
    """Whether the rules may have been changed by another."""
    bridged: bool
    """Whether there is a port of a bridge that leads to another namespace."""


class _InstalledTable:
    """One table of ours in the kernel; raises NftablesError."""

    def __init__(self, table: Table) -> None:
        self._nft = Nftables()
        self._table = table
        self._written: Elements | None = None
        """What it was last made to hold; None where that failed, or was not tried."""

    def bound_ports(self, links: Mapping[str, int]) -> Elements:
        """Return which addresses its ports are bound to; none where it is not there."""
        return bound_ports(self._listed(), links)

    def write(self, elements: Elements, links: Mapping[str, int], *, verify: bool) -> list[str]:
        """Make it hold `elements`; return what another had changed, as far as `verify` tells.

        What is set anew is read back; a change is, by the notice that it sends.
        """
        before, self._written = self._written, None
        found = ""
        if before is None or verify:
            listed = self._listed()
            if not self._table.difference(elements, listed, links):
                before = elements  # of an earlier run, or of another agent in an update
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
        """Change what differs; return whether that could be: another may have done it already."""
        try:
            if before != elements:
                self._nft.run(self._table.change(before, elements))
        except NftablesError:
            return False
        return True

    def remove_if_there(self) -> None:
        """Take away what an earlier run has left."""
        if self._listed():
            self.remove()

    def remove(self) -> None:
        """Take it away, also where there is none."""
        self._written = None
        self._nft.run(self._table.deletion())

    def close(self) -> None:
        """Free the context; the rules stay."""
        self._nft.close()

    def _listed(self) -> Mapping[str, Any]:
        """Return the listing; {} where there is no such table, or it cannot be read."""
        try:
            return self._nft.run(self._table.listing())
        except NftablesError:
            return {}


def _names(links: Links) -> dict[str, int]:
    return {each.name: each.index for each in links.all.values()}
