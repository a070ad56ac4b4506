"""The messages between the supervisor and its worker, over a pair of Unix sockets.

The worker reports its state each second from its event loop, so that a blocked loop is noticed. The
supervisor tells it when to accept connections, and when to stop that. An attacker may control the
worker, so its reports decide about nothing but its readiness.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BEAT_SECONDS = 1.0
"""Between two reports of a ready worker."""
UNREADY_BEAT_SECONDS = 0.1
"""Between two reports of a worker that is not ready yet."""
LARGEST = 64 * 1024
"""Longest report, in bytes."""
ON_THE_WAY_SECONDS = 2.5
"""Seconds of accepting after no rule leads anybody here any more. A connection that was led here
before has its handshake under way: TCP sends a lost packet again after 1 s (RFC 6298, section 2),
at both ends, and a busy node sends it late."""

ACCEPT = b"accept"
"""To the worker: accept connections."""
LISTEN = b"listen "
"""To the worker, with the name of a socket that comes along: accept its connections, too."""
LEAVE = b"leave"
"""To the worker: this agent ends, and no other follows. Accept on until `net` has removed its
rules, and report that as `Readiness.OVER`."""
PAUSE = b"pause"
"""To the worker: accept no more connections until `DRAIN`, and close those that are open behind
their next answers."""
DRAIN = b"drain"
"""To the worker: accept who waits and then no more, answer those that are open, and end. After
`PAUSE` it accepts for `ON_THE_WAY_SECONDS` first: the rules led pods here until a moment ago."""


class Readiness(StrEnum):
    """State of a worker."""

    UNREADY = "unready"
    PREPARED = "prepared"
    """Ready to accept connections, which the agent before still does."""
    READY = "ready"
    OVER = "over"
    """`net` has removed its rules: no new connection is led here."""


@dataclass(frozen=True, slots=True)
class Report:
    """Report of a worker about itself."""

    readiness: Readiness
    detail: str
    """JSON for people: the result of each check."""

    def encode(self) -> bytes:
        return f"{self.readiness}\n{self.detail}".encode()[:LARGEST]

    @classmethod
    def parse(cls, packet: bytes) -> Report:
        """Parse a packet; an unreadable one counts as the report of an unready worker."""
        word, _, detail = packet.decode(errors="replace").partition("\n")
        try:
            return cls(Readiness(word), detail)
        except ValueError:
            return cls(Readiness.UNREADY, "the worker's report cannot be read")
