"""What MIC itself attached to a host: the only identities that it ever detaches.

A ledger is written before the change that it speaks of, so a crash leaves nothing on a host that
nobody remembers. An identity is ours if it was absent in the read before our own change; what was
there before belongs to somebody else, and stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from podidentity.core.hosts import Host


@dataclass(frozen=True, slots=True)
class Entry:
    """An identity in a ledger."""

    spelling: str
    """Its ARM id."""
    since: float
    """When it entered this part of the ledger, in seconds since 1970."""
    client_id: str = ""
    """In lower case; "" if it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The ledger of one host; each map is by ARM id in lower case, and no id is in two of them."""

    host: Host
    attached: Mapping[str, Entry] = field(default_factory=dict)
    attaching: Mapping[str, Entry] = field(default_factory=dict)
    """A change under way attaches them, or was under way when its MIC ended."""
    detaching: Mapping[str, Entry] = field(default_factory=dict)
    """A change under way detaches them, or was under way when its MIC ended."""

    @property
    def empty(self) -> bool:
        """Whether nothing on the host is ours."""
        return not (self.attached or self.attaching or self.detaching)
