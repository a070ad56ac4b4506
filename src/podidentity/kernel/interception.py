"""The guard of a node: pods' IMDS traffic is led to us, and stays so whoever changes the rules.

Installing is NMI's first act and stopping it changes nothing: without our rules a pod would reach
the real IMDS, and with it every identity of the node. Whatever becomes of the rules is seen by the
kernel's own notices and repaired in one transaction. Connections that are already redirected stay
so when the rules are removed, until they end: conntrack is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from socket import socket

from podidentity.core.ports import Clock
from podidentity.kernel import drift, rules
from podidentity.kernel.nftables import Nftables, NftablesError
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sysctl import PROC_SYS_NET, RouteLocalnet, SysctlError

_log = logging.getLogger(__name__)

_CHECK_EVERY = 60.0
"""Seconds; for what sends no notice: the sysctl. As the archived agent's default."""
_RETRY_AFTER = 1.0
_QUIET = 0.1
"""Seconds between two log lines of repairs: a storm of them must not become a storm of lines."""


class InterceptionError(Exception):
    """The rules cannot be installed or removed; the message names the cause and the next step."""


class Interception:
    """Installs, watches and repairs the rules of the network namespace that this process is in.

    Implements `core.ports.Interception`. Raises InterceptionError where libnftables is missing.
    """

    def __init__(
        self, redirect: Redirect, clock: Clock, *, proc_sys_net: Path = PROC_SYS_NET
    ) -> None:
        try:
            self._nft = Nftables()
        except NftablesError as error:
            raise InterceptionError(str(error)) from error
        self._table = drift.TableInquiry(rules.TABLE)
        self._redirect = redirect
        self._clock = clock
        self._localnet = RouteLocalnet(proc_sys_net)
        self._replacement = rules.replacement(redirect)
        self._reported, self._unreported = float("-inf"), 0
        self.repairs = 0
        """How often the rules or the sysctl were found changed and put right."""
        self.failure = ""
        """Why the last repair failed; "" where it did not."""

    def install(self) -> None:
        """Put the rules in place in one transaction, then set the sysctl; safe to repeat.

        In this order, because the sysctl without the loopback guard would open the node.
        """
        try:
            self._nft.run(self._replacement)
            self._repair_sysctl()
        except (NftablesError, SysctlError) as error:
            raise InterceptionError(f"cannot intercept pods' IMDS traffic: {error}") from error

    def remove(self) -> tuple[str, ...]:
        """Take exactly our table away, and the sysctl if this object set it; return what is left.

        From here on pods reach the real IMDS.
        """
        try:
            off = self._localnet.restore()
            self._nft.run(rules.deletion())
        except (NftablesError, SysctlError) as error:
            raise InterceptionError(f"cannot remove the rules: {error}") from error
        if off or not self._redirect.needs_localnet:
            return ()
        return ("net.ipv4.conf.all.route_localnet is still 1: clear it unless kube-proxy needs it",)

    def problems(self) -> tuple[str, ...]:
        """Return what keeps pods' IMDS traffic from being intercepted; () where all is well."""
        found = []
        try:
            if not rules.is_as_wanted(self._redirect, self._nft.run(rules.listing())):
                found.append(f"table ip {rules.TABLE} is not as it was installed")
        except NftablesError as error:
            found.append(f"table ip {rules.TABLE} cannot be listed: {error}")
        try:
            if self._redirect.needs_localnet and not self._localnet.is_enabled():
                found.append("net.ipv4.conf.all.route_localnet is 0")
        except SysctlError as error:
            found.append(str(error))
        return tuple(found)

    async def guard(self) -> None:
        """Repair whatever others change, until cancelled; the rules stay when it ends."""
        loop = asyncio.get_running_loop()
        with drift.subscribe() as notices:
            loop.add_reader(notices, self._noticed, notices)
            try:
                while True:
                    self.check()
                    await self._clock.sleep(_RETRY_AFTER if self.failure else _CHECK_EVERY)
            finally:
                loop.remove_reader(notices)

    def check(self, cause: str = "") -> bool:
        """Repair what is not as wanted; return whether something was, whatever `cause` says."""
        try:
            repaired = [*self._repair_rules(), *self._repair_sysctl()]
        except (NftablesError, SysctlError, OSError) as error:
            if str(error) != self.failure:
                _log.error("cannot repair the interception, will try again: %s", error)
            self.failure = str(error)
            return False
        self.failure = ""
        if repaired:
            self._report(" and ".join(repaired), cause)
        return bool(repaired)

    def close(self) -> None:
        """Free libnftables; the rules stay."""
        self._nft.close()
        self._table.close()

    def _noticed(self, notices: socket) -> None:
        """Look after our table if a notice names it: our own changes are found as wanted."""
        notice = drift.pending(notices, rules.TABLE)
        if notice.touched:
            self.check(notice.cause)

    def _repair_rules(self) -> list[str]:
        # A hole is closed first and understood later: no listing where there is nothing to list.
        if not self._table.exists():
            self._nft.run(self._replacement)
            return ["the table was gone"]
        if rules.is_as_wanted(self._redirect, self._nft.run(rules.listing())):
            return []
        self._nft.run(self._replacement)
        return ["the table was changed"]

    def _repair_sysctl(self) -> list[str]:
        changed = self._redirect.needs_localnet and self._localnet.enable()
        return ["route_localnet was off"] if changed else []

    def _report(self, what: str, cause: str) -> None:
        self.repairs += 1
        now = self._clock.monotonic()
        if now - self._reported < _QUIET:
            self._unreported += 1
            return
        more = f" ({self._unreported} more just before)" if self._unreported else ""
        _log.warning("interception repaired: %s; by %s%s", what, cause or "an unknown hand", more)
        self._reported, self._unreported = now, 0
