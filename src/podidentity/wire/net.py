"""The messages between the processes `serve` and `net`.

One message is one packet, a JSON object with its kind in `type`, at most `LARGEST` bytes long.
`serve` asks about connections and says when it accepts them; no message orders `net` to do
anything. The first message of each side names its version, and its form never changes, so that
processes of different versions can say so.

    serve  {"type":"hello","protocol":1,"version":"0.2.0"}
    net    {"type":"hello","protocol":1,"version":"0.2.0"}      or {"type":"refusal","reason":"…"}
    net    {"type":"state",…}                                   now, and after each change
    serve  {"type":"question","id":7,"address":"10.244.0.2","port":40000,"local":false,"own":""}
    net    {"type":"answer","id":7,"facts":{…}}
    serve  {"type":"accepting","accepting":true}
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec

from podidentity.core.attestation import ConnectionFacts
from podidentity.wire import BROKEN_JSON

PROTOCOL = 1
"""Version of this protocol; both sides must have the same."""
LARGEST = 32 * 1024
"""Longest message, in bytes."""
_MOST_LINES = 200
"""Lines of one field of `State`."""

_Text = Annotated[str, msgspec.Meta(max_length=4096)]
_Lines = Annotated[tuple[_Text, ...], msgspec.Meta(max_length=_MOST_LINES)]


class Unreadable(Exception):
    """The packet is no message; the text says why, without its contents."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The version of the sender."""

    protocol: int
    version: Annotated[str, msgspec.Meta(max_length=64)]


class Rejection(msgspec.Struct, frozen=True, tag="refusal"):
    """Why `net` rejects this client; the connection ends."""

    reason: _Text


class Question(msgspec.Struct, frozen=True, tag="question", forbid_unknown_fields=True):
    """A question for the facts about the connection from this address and port."""

    id: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    address: Annotated[str, msgspec.Meta(max_length=45)]
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    local: bool = False
    """Whether it comes from the node itself, and not through the redirection."""
    own: Annotated[str, msgspec.Meta(max_length=45)] = ""
    """Our address of a local connection."""


class Accepting(msgspec.Struct, frozen=True, tag="accepting", forbid_unknown_fields=True):
    """Whether this agent accepts redirected connections now, or the one before it."""

    accepting: bool


class FactsAnswer(msgspec.Struct, frozen=True, tag="answer", forbid_unknown_fields=True):
    """The facts about the connection of a question."""

    id: int
    facts: ConnectionFacts


class State(msgspec.Struct, frozen=True, kw_only=True, tag="state", forbid_unknown_fields=True):
    """The state of `net` and of the node's rules."""

    interception: _Lines = ()
    """Why pods' traffic is not redirected; () if it is."""
    attestation: _Lines = ()
    """Why callers cannot be proved; () if they can."""
    sources: _Lines = ()
    """Why a pod may be able to send from the address of another; () if none can.

    Otherwise a connection must end after one answer.
    """
    warnings: _Lines = ()
    """Warnings for the operator that do not stop requests."""
    repairs: int = 0
    """Number of repairs of the rules."""
    repaired: _Text = ""
    """The last repair, and the program that had changed the rules."""
    proof: _Text = ""
    """The value of `--attestation` here."""
    guards: bool = True
    """Whether this `net` repairs the rules; if not, the `net` of the agent before it does."""


FromServe = Hello | Question | Accepting
FromNet = Hello | Rejection | FactsAnswer | State

_FROM_SERVE: msgspec.json.Decoder[FromServe] = msgspec.json.Decoder(FromServe)
_FROM_NET: msgspec.json.Decoder[FromNet] = msgspec.json.Decoder(FromNet)
_ENCODER = msgspec.json.Encoder()


def encode(message: FromServe | FromNet) -> bytes:
    """Return the packet of a message."""
    return _ENCODER.encode(message)


def parse_from_serve(packet: bytes) -> FromServe:
    """Read a packet of `serve`; raise Unreadable."""
    with _readable(packet):
        return _FROM_SERVE.decode(packet)


def parse_from_net(packet: bytes) -> FromNet:
    """Read a packet of `net`; raise Unreadable."""
    with _readable(packet):
        return _FROM_NET.decode(packet)


@contextmanager
def _readable(packet: bytes) -> Iterator[None]:
    if len(packet) > LARGEST:
        raise Unreadable(f"a message of more than {LARGEST} bytes")
    try:
        yield
    except BROKEN_JSON as error:
        raise Unreadable(f"no message: {str(error)[:200]}") from error


def why_other(mine: Hello, theirs: Hello, *, me: str, other: str) -> str:
    """Return why two sides cannot work together; "" if they can."""
    if mine == theirs:
        return ""
    return (
        f"{me} is version {mine.version} (protocol {mine.protocol}), {other} is version "
        f"{theirs.version} (protocol {theirs.protocol}): both containers need the same image"
    )
