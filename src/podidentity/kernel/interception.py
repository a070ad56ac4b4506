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
from podidentity.kernel import backstop, drift, rules
from podidentity.kernel.fence import Fence, InterceptionError
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sysctl import PROC_SYS_NET

__all__ = ["Interception", "InterceptionError", "Redirect"]

_log = logging.getLogger(__name__)

_CHECK_EVERY = 60.0
"""Seconds; for what sends no notice: the sysctl. As the archived agent's default."""
_RETRY_AFTER = 1.0
_QUIET = 0.1
"""Seconds between two log lines of repairs: a storm of them must not become a storm of lines."""


class Interception:
    """Installs, watches and repairs the rules of the network namespace that this process is in.

    Implements `core.ports.Interception`. Raises InterceptionError, here where libnftables is
    missing, with the cause and the next step in its message.
    """

    def __init__(
        self, redirect: Redirect, clock: Clock, *, proc_sys_net: Path = PROC_SYS_NET
    ) -> None:
        self._clock = clock
        self._fence = Fence(redirect, proc_sys_net)
        self._seen = Fence(redirect, proc_sys_net)
        """The same, to look at while the other one is being repaired by a thread."""
        self._cause = ""
        self._reported, self._unreported = float("-inf"), 0
        self.repairs = 0
        """How often something was found changed and put right."""
        self.failure = ""
        """Why the last repair failed; "" where it did not."""

    def install(self) -> None:
        """Close the way to the real IMDS, then redirect in one transaction; safe to repeat."""
        self._fence.install()

    def remove(self) -> tuple[str, ...]:
        """Take exactly our rules away, end `guard` first; return what is left to do.

        From here on pods reach the real IMDS.
        """
        if self._fence.remove():
            return ()
        return ("net.ipv4.conf.all.route_localnet is still 1: clear it unless kube-proxy needs it",)

    def problems(self) -> tuple[str, ...]:
        """Return what keeps pods' IMDS traffic from being intercepted; () where all is well."""
        try:
            return tuple(self._seen.problems())
        except InterceptionError as error:
            return (str(error),)

    def check(self) -> bool:
        """Repair what is not as wanted; return whether something was not and now is.

        Blocks for as long as others hold the kernel's lock of rules.
        """
        try:
            repaired = self._fence.repair()
        except InterceptionError as error:
            if str(error) != self.failure:
                _log.error("cannot repair the interception, will try again: %s", error)
            self.failure = str(error)
            return False
        self.failure = ""
        if repaired:
            self.repairs += 1
            self._report(" and ".join(repaired))
        return bool(repaired)

    async def guard(self) -> None:
        """Repair whatever others change, until cancelled; the rules stay when it ends."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        with drift.subscribe() as of_table, backstop.subscribe() as of_routing:
            loop.add_reader(of_table, self._table_changed, of_table, changed)
            loop.add_reader(of_routing, _routing_changed, of_routing, changed)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._tick(changed))
                    group.create_task(self._repair_whenever(changed))
            finally:
                loop.remove_reader(of_table)
                loop.remove_reader(of_routing)

    def close(self) -> None:
        """Free what talks to the kernel, after `guard` has ended; the rules stay."""
        self._fence.close()
        self._seen.close()

    async def _repair_whenever(self, changed: asyncio.Event) -> None:
        """Check at the start and after each change; changes during a check make one more."""
        while True:
            changed.clear()
            # In a thread: requests go on while others hold the lock. And to its end: what the
            # thread uses must not be closed under it.
            check = asyncio.create_task(asyncio.to_thread(self.check))
            try:
                await asyncio.shield(check)
            finally:
                await check
            if self.failure:
                await self._clock.sleep(_RETRY_AFTER)
            else:
                await changed.wait()

    async def _tick(self, changed: asyncio.Event) -> None:
        while True:
            await self._clock.sleep(_CHECK_EVERY)
            changed.set()

    def _table_changed(self, notices: socket, changed: asyncio.Event) -> None:
        """Have our table looked after if a notice names it: our own changes are found as wanted."""
        notice = drift.pending(notices, rules.TABLE)
        if notice.touched:
            self._cause = notice.cause
            changed.set()

    def _report(self, what: str) -> None:
        cause, self._cause = self._cause or "an unknown hand", ""
        now = self._clock.monotonic()
        if now - self._reported < _QUIET:
            self._unreported += 1
            return
        more = f" ({self._unreported} more just before)" if self._unreported else ""
        _log.warning("interception repaired: %s; by %s%s", what, cause, more)
        self._reported, self._unreported = now, 0


def _routing_changed(notices: socket, changed: asyncio.Event) -> None:
    backstop.forget(notices)
    changed.set()
