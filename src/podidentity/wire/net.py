"""The messages between the processes `serve` and `net`.

One message is one packet, a JSON object with its kind in `type`, at most `LARGEST` bytes long.
`serve` asks about connections, says when it accepts them, and asks whether a pod's requests arrive
at it; no message changes anything on the node. Whether rules go when `net` is told to stop, its own
flags say; `serve` says when it is ready for that. The first message of each side names its version,
and its form never changes, so that processes of different versions can say so.

    serve  {"type":"hello","protocol":7,"version":"0.2.0"}
    net    {"type":"hello","protocol":7,"version":"0.2.0"}      or {"type":"refusal","reason":"…"}
    net    {"type":"state",…}                                   now, and after each change
    serve  {"type":"questions","questions":[
             {"id":7,"address":"10.244.0.2","port":40000,"local":false,"own":"",
              "clients":false}]}
    net    {"type":"answers","answers":[{"id":7,"facts":[true,[["cni-1","open","<uid>",…]],…]}]}
    serve  {"type":"accepting","accepting":true}
    serve  {"type":"leaving"}                                   it ends, and no agent follows

A probe of the data path (`core.data_path`) has five messages. Its request is fixed. `net` sends it
from the network namespace that has the address, after it has named the port to `serve`, and judges:

    serve  {"type":"probe","id":8,"address":"10.244.0.9","pod":"<uid>"}
    net    {"type":"probing","id":8,"port":40001}
    serve  {"type":"expecting","id":8}
    serve  {"type":"arrived","id":8,"nonce":"…","address":"10.244.0.9","port":40001,"own":"…"}
    net    {"type":"probed","id":8,"result":{"hop":"proved",…}}

Questions of the same moment share a packet: each packet wakes the other process, which costs more
than a proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import msgspec

from podidentity.core.attestation import ConnectionFacts
from podidentity.core.data_path import ProbeResult
from podidentity.wire import BROKEN_JSON

PROTOCOL = 7
"""Version of this protocol; both sides must have the same."""
LARGEST = 32 * 1024
"""Longest message, in bytes."""
MOST_TOGETHER = 64
"""Most questions of one message."""
_MOST_LINES = 200
"""Lines of one field of `State`."""

_Text = Annotated[str, msgspec.Meta(max_length=4096)]
_Lines = Annotated[tuple[_Text, ...], msgspec.Meta(max_length=_MOST_LINES)]
_Id = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Address = Annotated[str, msgspec.Meta(max_length=45)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Unreadable(Exception):
    """The packet is no message; the text says why, without its contents."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The version of the sender."""

    protocol: int
    version: Annotated[str, msgspec.Meta(max_length=64)]


class Rejection(msgspec.Struct, frozen=True, tag="refusal"):
    """Why `net` rejects this client; the connection ends."""

    reason: _Text


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question for the facts about the connection from this address and port."""

    id: _Id
    address: _Address
    port: _Port
    local: bool = False
    """Whether it comes from the node itself, and not through the redirection."""
    own: _Address = ""
    """Our address of it; "" for that of redirected connections."""
    clients: bool = False
    """Whether the clients of the connection's namespace are asked for, too."""


class Questions(msgspec.Struct, frozen=True, tag="questions", forbid_unknown_fields=True):
    """Questions of the same moment."""

    questions: Annotated[tuple[Question, ...], msgspec.Meta(min_length=1, max_length=MOST_TOGETHER)]


class Accepting(msgspec.Struct, frozen=True, tag="accepting", forbid_unknown_fields=True):
    """Whether this agent accepts redirected connections now, or the one before it."""

    accepting: bool


class Leaving(msgspec.Struct, frozen=True, tag="leaving", forbid_unknown_fields=True):
    """This `serve` was told to stop, no other agent follows, and it answers until `State.removed`.

    A `net` that was told to stop, too, and is to remove its rules, does so now.
    """


class Probe(msgspec.Struct, frozen=True, tag="probe", forbid_unknown_fields=True):
    """A question whether requests from this address arrive at `serve`."""

    id: _Id
    address: _Address
    pod: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Uid of the probe pod; "" for any other pod, whose namespace only its address shows."""


class Expecting(msgspec.Struct, frozen=True, tag="expecting", forbid_unknown_fields=True):
    """The announced probe is expected: it may be sent."""

    id: _Id


class Arrived(msgspec.Struct, frozen=True, tag="arrived", forbid_unknown_fields=True):
    """What arrived at `serve` on the announced connection."""

    id: _Id
    nonce: Annotated[str, msgspec.Meta(max_length=32)]
    address: _Address
    port: _Port
    own: _Address


class Probing(msgspec.Struct, frozen=True, tag="probing", forbid_unknown_fields=True):
    """The port, at the address that was asked about, from which a probe will come."""

    id: int
    port: int


class Probed(msgspec.Struct, frozen=True, tag="probed", forbid_unknown_fields=True):
    """How far a probe came."""

    id: int
    result: ProbeResult


class FactsAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The facts about the connection of a question."""

    id: int
    facts: ConnectionFacts


class FactsAnswers(msgspec.Struct, frozen=True, tag="answers", forbid_unknown_fields=True):
    """Answers to questions, in any order."""

    answers: tuple[FactsAnswer, ...]


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
    closed_by: _Lines = ()
    """What else closes IMDS to pods, and so while no NMI runs on the node."""
    repairs: int = 0
    """Number of repairs of the rules."""
    dropped_resets: int = 0
    """Number of resets that the rules dropped, because a pod sent too many."""
    proof: _Text = ""
    """The value of `--attestation` here."""
    guards: bool = True
    """Whether this `net` repairs the rules; if not, the `net` of the agent before it does."""
    changes: int = 0
    """Grows with each repair of rules, and each change of the node's links."""
    removed: bool = False
    """Whether the rules are removed, so that no new connection is led here."""


FromServe = Hello | Questions | Accepting | Leaving | Probe | Expecting | Arrived
FromNet = Hello | Rejection | FactsAnswers | Probing | Probed | State

_FROM_SERVE: msgspec.json.Decoder[FromServe] = msgspec.json.Decoder(FromServe)
_FROM_NET: msgspec.json.Decoder[FromNet] = msgspec.json.Decoder(FromNet)

# The library's own functions, not wrapped: each proof needs both.
encode: Callable[[FromServe | FromNet], bytes] = msgspec.json.Encoder().encode
"""Returns the packet of a message."""
parse_from_net: Callable[[bytes], FromNet] = _FROM_NET.decode
"""Reads a packet of `net`; raises one of BROKEN_JSON, for a packet that was cut off as well."""


def answer_packets(answers: Sequence[FactsAnswer]) -> Iterator[bytes]:
    """Yield the packets that hold the answers, each as many as fit into one."""
    packet = encode(FactsAnswers(tuple(answers)))
    if len(packet) <= LARGEST:
        yield packet
    elif len(answers) > 1:
        middle = len(answers) // 2
        yield from answer_packets(answers[:middle])
        yield from answer_packets(answers[middle:])
    else:
        [answer] = answers
        failure = f"{len(answer.facts.sightings)} namespaces hold the address"
        few = answer.facts._replace(sightings=(), failure=failure)
        yield encode(FactsAnswers((FactsAnswer(answer.id, few),)))


def parse_from_serve(packet: bytes) -> FromServe:
    """Read a packet of `serve`, which may be in a stranger's hands; raise Unreadable."""
    if len(packet) > LARGEST:
        raise Unreadable(f"a message of more than {LARGEST} bytes")
    try:
        return _FROM_SERVE.decode(packet)
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
