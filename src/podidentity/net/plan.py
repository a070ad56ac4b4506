"""What `net` is told: plain values, so that it need not know all settings of the agent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from podidentity.core.attestation import AttestationMode
from podidentity.kernel.rules import Redirect


@dataclass(frozen=True, slots=True, kw_only=True)
class NetPlan:
    """What `net` guards, how it proves callers, and where it is asked."""

    node: str
    redirect: Redirect
    attestation: AttestationMode
    guards_bridges: bool
    """Whether pods on bridges may send with their own addresses only."""
    netns_dirs: tuple[Path, ...]
    cgroup_root: Path
    socket: Path
    """At which `serve` asks, in the folder of all sockets."""
    serve_user: int
    """The user and the group of `serve`."""
    lock_folder: Path | None
    """Where agents agree who repairs the rules; None: there is no hand-over."""
    handover_folder: Path | None
    """Where those of `serve` do."""
    removes: bool
    """Whether the rules that lead pods here go when it ends."""
    closes: bool = False
    """Whether those that close IMDS stay then."""
