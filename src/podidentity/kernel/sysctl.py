"""The one sysctl that redirection to a loopback address needs.

Without `route_localnet` the kernel drops the redirected packets as martians: pods time out, with
no word in any log. The value for `all` is OR-ed with each interface's, and so holds for interfaces
yet to come (https://docs.kernel.org/networking/ip-sysctl.html).
"""

from __future__ import annotations

from pathlib import Path

PROC_SYS_NET = Path("/proc/sys/net")


class SysctlError(Exception):
    """The sysctl cannot be read or set; the message says what to do."""


class RouteLocalnet:
    """`net.ipv4.conf.all.route_localnet` of the network namespace that this process is in."""

    def __init__(self, proc_sys_net: Path = PROC_SYS_NET) -> None:
        self._path = proc_sys_net / "ipv4/conf/all/route_localnet"
        self._set_by_us = False

    def is_enabled(self) -> bool:
        """Whether it is set; raises SysctlError."""
        try:
            return self._path.read_text().strip() == "1"
        except OSError as error:
            raise SysctlError(self._failure("read", error)) from error

    def enable(self) -> bool:
        """Set it where it is not set, and read it back; return whether it was changed."""
        if self.is_enabled():
            return False
        self._write("1")
        self._set_by_us = True
        if not self.is_enabled():
            raise SysctlError(f"{self._path} is still 0 after 1 was written: set it on the node")
        return True

    def restore(self) -> bool:
        """Clear it if this object has set it; return whether it is off now.

        Another may rely on it (kube-proxy does, and brings a guard of its own), so it is never
        cleared on suspicion.
        """
        if self._set_by_us:
            self._write("0")
            self._set_by_us = False
        return not self.is_enabled()

    def _write(self, value: str) -> None:
        try:
            self._path.write_text(value)
        except OSError as error:
            raise SysctlError(self._failure("write", error)) from error

    def _failure(self, what: str, error: OSError) -> str:
        return (
            f"cannot {what} {self._path} ({error.strerror}): mount the node's /proc/sys/net there, "
            "writable, or set net.ipv4.conf.all.route_localnet=1 on the node"
        )
