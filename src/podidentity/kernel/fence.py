"""All that the interception is made of in the kernel, as one thing to install, check and repair.

Synchronous: changing rules may have to wait for whoever holds the kernel's lock of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from podidentity.kernel import rules
from podidentity.kernel.backstop import Backstop
from podidentity.kernel.drift import TableInquiry
from podidentity.kernel.nftables import Nftables, NftablesError
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sysctl import RouteLocalnet, SysctlError


class InterceptionError(Exception):
    """The kernel, or libnftables, refused; the message names the cause and the next step."""


_CAUSES = (NftablesError, SysctlError, OSError)


class Fence:
    """The rules of the network namespace that this process is in; threads take turns.

    Every method raises InterceptionError, the constructor too (libnftables missing).
    """

    def __init__(self, redirect: Redirect, proc_sys_net: Path) -> None:
        try:
            self._nft = Nftables()
        except NftablesError as error:
            raise InterceptionError(str(error)) from error
        self._turn = threading.Lock()
        self._redirect = redirect
        self._replacement = rules.replacement(redirect)
        self._table = TableInquiry(rules.TABLE)
        self._backstop = Backstop(redirect.metadata_ip, redirect.metadata_port)
        self._localnet = RouteLocalnet(proc_sys_net)

    def install(self) -> None:
        """Close the way to the real IMDS, then redirect in one transaction; safe to repeat.

        The sysctl comes last, because without the loopback guard it would open the node.
        """
        try:
            with self._turn:
                self._backstop.repair()
                self._nft.run(self._replacement)
                self._repair_sysctl()
        except _CAUSES as error:
            raise InterceptionError(f"cannot intercept pods' IMDS traffic: {error}") from error

    def remove(self) -> bool:
        """Take exactly our rules away, and the sysctl if this object set it; return if it is off.

        From here on pods reach the real IMDS.
        """
        try:
            with self._turn:
                off = self._localnet.restore()
                self._nft.run(rules.deletion())
                self._backstop.remove()
        except _CAUSES as error:
            raise InterceptionError(f"cannot remove the rules: {error}") from error
        return off or not self._redirect.needs_localnet

    def repair(self) -> list[str]:
        """Put right what is not as wanted; return what was not."""
        try:
            with self._turn:
                return [*self._repair_routing(), *self._repair_table(), *self._repair_sysctl()]
        except _CAUSES as error:
            raise InterceptionError(str(error)) from error

    def problems(self) -> list[str]:
        """Return what is not as wanted; changes nothing and waits for nobody."""
        try:
            with self._turn:
                return list(self._found_wrong())
        except _CAUSES as error:
            raise InterceptionError(f"the interception cannot be checked: {error}") from error

    def close(self) -> None:
        """Free what talks to the kernel; the rules stay."""
        with self._turn:
            self._nft.close()
            self._table.close()
            self._backstop.close()

    def _found_wrong(self) -> Iterator[str]:
        if self._backstop.missing():
            yield "the rules of routing that close the way to the real IMDS are gone"
        if not self._is_table_as_wanted():
            yield f"table ip {rules.TABLE} is not as it was installed"
        if self._redirect.needs_localnet and not self._localnet.is_enabled():
            yield "net.ipv4.conf.all.route_localnet is 0"

    def _repair_routing(self) -> list[str]:
        return ["rules of routing were gone"] if self._backstop.repair() else []

    def _repair_table(self) -> list[str]:
        if self._is_table_as_wanted():
            return []
        self._nft.run(self._replacement)
        return [f"table ip {rules.TABLE} was gone or changed"]

    def _repair_sysctl(self) -> list[str]:
        changed = self._redirect.needs_localnet and self._localnet.enable()
        return ["route_localnet was off"] if changed else []

    def _is_table_as_wanted(self) -> bool:
        return self._table.exists() and rules.is_as_wanted(
            self._redirect, self._nft.run(rules.listing())
        )
