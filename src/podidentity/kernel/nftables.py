"""libnftables by ctypes: the grammar of `nft`, without a process for each change.

A replacement takes 0.2 ms here and 16 ms with the program, most of which is its exit. A repair must
be fast, because pods are not intercepted meanwhile. Interface: libnftables(3), libnftables-json(5).
"""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from podidentity.kernel.netlink import FIRST_OF_OURS

_NAME = "libnftables.so.1"
_OUTPUT_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON
# NFT_CTX_OUTPUT_NUMERIC_PROTO: a name comes from /etc/protocols, which a container may lack.
_OUTPUT_PROTOCOL_NUMBERS = 1 << 7
_NET_ADMIN = 12
"""The number of CAP_NET_ADMIN, linux/capability.h."""
_VERSION = json.dumps({"nftables": [{"list": {"tables": {}}}]})
"""A command whose output names the library's version."""


class NftablesError(Exception):
    """The kernel or the library returned an error; with the next step, if it is known."""


class RulesRefused(NftablesError):
    """Something of the node refuses rules, though this process may change them."""


class Nftables:
    """One context of libnftables, for the network namespace in which it is created.

    A change can wait 60 ms, because another process that changes rules holds the kernel's lock
    until it exits. Listing does not wait. Only one thread at a time may use a context.
    """

    def __init__(self) -> None:
        self._library = _load()
        _require_low_descriptor()
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise NftablesError("libnftables gave no context: out of memory or file descriptors")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        flags = _OUTPUT_JSON | _OUTPUT_PROTOCOL_NUMBERS
        self._library.nft_ctx_output_set_flags(self._context, flags)
        self._types_by_field: bool | None = None
        """Whether to write a set's type as a field; None until the library's version is known."""

    def run(self, commands: str) -> dict[str, Any]:
        """Run `commands` (JSON) as one transaction and return their output.

        A set of one field has its type by name in `commands` and in the output, in whichever form
        the library writes and prints it. Raises NftablesError, in which case nothing has changed.
        """
        if self._types_by_field is None:
            version = self._run(_VERSION)["nftables"][0]["metainfo"]["version"]
            self._types_by_field = (
                tuple(map(int, re.findall(r"\d+", version))) >= _NAMES_CRASH_SINCE
            )
        if self._types_by_field:
            for name, field_of_type in _FIELDS.items():
                by_field = json.dumps({"typeof": field_of_type})
                commands = commands.replace(f'"type": "{name}"', f'"type": {by_field}')
        return self._run(commands)

    def _run(self, commands: str) -> dict[str, Any]:
        code = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output = self._library.nft_ctx_get_output_buffer(self._context)
        error = self._library.nft_ctx_get_error_buffer(self._context)
        if code != 0:
            raise _explained((error or b"").decode(errors="replace"))
        printed: dict[str, Any] = json.loads(output, object_hook=_named) if output else {}
        return printed

    def close(self) -> None:
        """Free the context; the rules stay."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- Commands and expressions as JSON, libnftables-json(5)


def transaction(commands: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps({"nftables": list(commands)})


def field(protocol: str, name: str) -> dict[str, Any]:
    """Return a field of a packet, such as `saddr` of `ip`."""
    return {"payload": {"protocol": protocol, "field": name}}


def match(left: Mapping[str, Any], right: object, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


_FIELDS = {
    "ipv4_addr": field("ip", "saddr"),
    "ether_addr": field("ether", "saddr"),
    "iface_index": {"meta": {"key": "iif"}},
}
"""A field of each type that a set of one field of ours has."""
_NAMES_CRASH_SINCE = (1, 1, 2)
"""The first libnftables that writes user data for a type given by its name, and for a verdict map.
nft 1.0.6 of Debian 12 crashes on that data while it lists any table of the node, and so stops
kube-proxy in nftables mode; reports say the same of readers up to 1.1.1
(kubernetes/kubernetes#136786). They all read a type given by a field (`typeof`), which libnftables
1.0.6 refuses to write from JSON."""


def _named(item: dict[str, Any]) -> object:
    """Return the name of a type that is listed as a field, and all else as it is."""
    names = (name for name, each in _FIELDS.items() if item == {"typeof": each})
    return next(names, item)


# ---- The library


def _require_low_descriptor() -> None:
    """Raise NftablesError if libnftables would get a descriptor that it cannot wait for."""
    with open(os.devnull) as lowest_free:  # noqa: PTH123 - a descriptor, whatever its path
        if lowest_free.fileno() < FIRST_OF_OURS:
            return
    raise NftablesError(
        f"this process has more than {FIRST_OF_OURS} open files, and libnftables needs one below:"
        " please report this"
    )


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_NAME)
    except OSError as error:
        raise NftablesError(
            f"{_NAME} is not there ({error}): install the package nftables (libnftables1)"
        ) from error
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_ctx_output_set_flags.restype = None
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library


def _explained(text: str) -> NftablesError:
    reasons = [line.partition("Error: ")[2] for line in text.splitlines() if "Error: " in line]
    first = reasons[0] if reasons else "no reason given"
    if "Operation not permitted" not in text:
        return NftablesError(first)
    status = Path("/proc/thread-self/status").read_text()
    kind = RulesRefused if may_change(status) else NftablesError
    return kind(f"{first}; {why_not_permitted(status)}")


def may_change(status: str) -> bool:
    """Whether a process with this /proc/PID/status has the capability to change rules."""
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> _NET_ADMIN & 1)


def why_not_permitted(status: str) -> str:
    """Return why nf_tables refuses a process with this /proc/PID/status, and the next step.

    AKS has a program that refuses rules to everybody in the node's network:
    Azure/azure-container-networking, bpf-prog/azure-block-iptables.
    """
    if not may_change(status):
        return "give the process CAP_NET_ADMIN in the node's network namespace"
    return (
        "the process has CAP_NET_ADMIN, and something of the node refuses its rules all the same, "
        "as AKS does where eBPF host routing is on (the node has the label kubernetes.azure.com/"
        "ebpf-host-routing then): run podidentity enable --backend=lrp, which needs none, or set "
        "the acceleration mode of the cluster's container networking services to None"
    )
