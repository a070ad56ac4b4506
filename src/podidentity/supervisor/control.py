"""The words between the supervisor and its worker, over a pair of Unix sockets.

The worker reports how it is, each second from its event loop, so that a loop that stands is seen.
The supervisor tells it when to accept connections, and when to accept no more. A worker may be in
the hands of whoever sent it a request: what it says decides about nothing but its own readiness.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BEAT_SECONDS = 1.0
"""Between two reports of a worker that is ready."""
UNREADY_BEAT_SECONDS = 0.1
"""Between those of one that is not: somebody waits for it."""
LARGEST = 64 * 1024
"""Bytes of a report."""

ACCEPT = b"accept"
"""To the worker: accept connections."""
DRAIN = b"drain"
"""To the worker: accept no more, answer what is under way, and end."""


class Readiness(StrEnum):
    """How far a worker is."""

    UNREADY = "unready"
    PREPARED = "prepared"
    """It could serve if it accepted connections, which the agent before it still does."""
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of itself."""

    readiness: Readiness
    detail: str
    """JSON for people: each check, with what is wrong."""

    def encode(self) -> bytes:
        """Return it as a packet."""
        return f"{self.readiness}\n{self.detail}".encode()[:LARGEST]

    @classmethod
    def parse(cls, packet: bytes) -> Report:
        """Read a packet; what is no report is that of a worker that is not ready."""
        word, _, detail = packet.decode(errors="replace").partition("\n")
        try:
            return cls(Readiness(word), detail)
        except ValueError:
            return cls(Readiness.UNREADY, "the worker's report cannot be read")
