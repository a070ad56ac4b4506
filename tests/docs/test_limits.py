"""The documented limits of clients are those of the agent."""

from __future__ import annotations

from dataclasses import fields

import pytest

from podidentity.kernel.rules import MOST_A_SECOND, MOST_CONNECTIONS
from podidentity.nmi.server.connection import READ_BYTES
from podidentity.nmi.server.listener import FOR_LOOKS
from podidentity.nmi.server.messages import Limits
from podidentity.supervisor.listeners import BACKLOG
from tests.docs.blocks import ROOT

TEXT = (ROOT / "docs/reference/nmi.md").read_text()
L = Limits()
ROWS = {
    "head_bytes": f"| request line and headers | {L.head_bytes >> 10} KiB, {L.fields} headers |",
    "request_bytes": f"trailers are no headers | {L.request_bytes >> 10} KiB |",
    "head_seconds": f"its first byte on | {L.head_seconds:g} s; {L.unproven_seconds:g} s unless",
    "idle_seconds": f"connection is kept | {L.idle_seconds:g} s; {L.unproven_seconds:g} s unless",
    "write_seconds": f"takes nothing of an answer | {L.write_seconds:g} s |",
    "close_seconds": f"to be gone | {L.close_seconds:g} s |",
    "connections": f"connections of all pods | {L.connections} |",
    "per_pod": f"connections of one pod | {L.per_pod} |",
    "unproven": f"connections of all such addresses | {L.unproven} |",
    "per_address": f"one address that is not proved | {L.per_address} |",
    "local": f"which no pod can take | {L.local} |",
    "held_per_pod": f"of all | {L.held_per_pod >> 20} MiB, {L.held_per_address >> 10} KiB, "
    f"{L.held_bytes >> 20} MiB |",
    "looks": f"have {FOR_LOOKS.unproven} such places, {FOR_LOOKS.per_address} for an address, "
    f"and {FOR_LOOKS.local} of the node's own",
    "share": f"wait to be accepted and those being closed | {MOST_CONNECTIONS} |",
    "rate": f"new connections of one pod a second, and as many at once | {MOST_A_SECOND} |",
    "backlog": f"the backlog of {BACKLOG} connections",
    "read": f"at most {READ_BYTES >> 10} KiB of it in the agent",
}
TOLD_WITH_ANOTHER = {"fields", "unproven_seconds", "held_bytes", "held_per_address"}


@pytest.mark.parametrize("name", ROWS)
def test_a_limit_is_told_as_it_is(name: str) -> None:
    assert ROWS[name] in TEXT


def test_every_limit_is_told() -> None:
    assert {each.name for each in fields(Limits)} <= {*ROWS, *TOLD_WITH_ANOTHER}
