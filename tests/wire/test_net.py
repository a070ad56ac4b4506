from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.attestation import ConnectionFacts, Sighting, SocketState
from podidentity.core.data_path import Hop, ProbeResult
from podidentity.wire import BROKEN_JSON
from podidentity.wire import net as wire

UNREADABLE = (wire.Unreadable, *BROKEN_JSON)

FACTS = ConnectionFacts(
    accepted=True,
    sightings=(Sighting(network="cni-1", state=SocketState.OPEN, pod="u1", user=1000),),
)

GOLDEN = [
    (wire.Hello(1, "0.2.0"), b'{"type":"hello","protocol":1,"version":"0.2.0"}'),
    (wire.Rejection("why"), b'{"type":"refusal","reason":"why"}'),
    (
        wire.Questions((wire.Question(7, "10.244.0.2", 40000),)),
        b'{"type":"questions","questions":[{"id":7,"address":"10.244.0.2","port":40000,'
        b'"local":false,"own":"","clients":false}]}',
    ),
    (wire.Accepting(accepting=True), b'{"type":"accepting","accepting":true}'),
    (wire.Leaving(), b'{"type":"leaving"}'),
    (
        wire.FactsAnswers((wire.FactsAnswer(7, FACTS),)),
        b'{"type":"answers","answers":[{"id":7,"facts":[true,['
        b'["cni-1","open","u1",1000,"","",null]],0,false,""]}]}',
    ),
    (
        wire.State(interception=("table ip podid is gone",), repairs=2, proof="kernel"),
        b'{"type":"state","interception":["table ip podid is gone"],"attestation":[],'
        b'"sources":[],"warnings":[],"closed_by":[],"repairs":2,"dropped_resets":0,"proof":"kernel",'
        b'"guards":true,"changes":0,"removed":false}',
    ),
    (
        wire.Probe(8, "10.244.0.9", "u2"),
        b'{"type":"probe","id":8,"address":"10.244.0.9","pod":"u2"}',
    ),
    (wire.Probing(8, 40001), b'{"type":"probing","id":8,"port":40001}'),
    (wire.Expecting(8), b'{"type":"expecting","id":8}'),
    (
        wire.Arrived(8, "ab" * 16, "10.244.0.9", 40001, "169.254.25.79"),
        b'{"type":"arrived","id":8,"nonce":"abababababababababababababababab",'
        b'"address":"10.244.0.9","port":40001,"own":"169.254.25.79"}',
    ),
    (
        wire.Probed(8, ProbeResult(hop=Hop.PROVED, plane="bridge")),
        b'{"type":"probed","id":8,"result":{"hop":"proved","detail":"","plane":"bridge","backend":null}}',
    ),
]
FROM_SERVE = (
    wire.Hello,
    wire.Questions,
    wire.Accepting,
    wire.Leaving,
    wire.Probe,
    wire.Expecting,
    wire.Arrived,
)
FROM_NET = (
    wire.Hello,
    wire.Rejection,
    wire.FactsAnswers,
    wire.State,
    wire.Probing,
    wire.Probed,
)


@pytest.mark.parametrize(("message", "packet"), GOLDEN, ids=lambda each: type(each).__name__)
def test_a_message_is_these_bytes_of_protocol_7(
    message: wire.FromServe | wire.FromNet, packet: bytes
) -> None:
    assert wire.encode(message) == packet


@pytest.mark.parametrize(("message", "packet"), GOLDEN, ids=lambda each: type(each).__name__)
def test_each_side_reads_the_words_of_the_other_and_no_others(
    message: wire.FromServe | wire.FromNet, packet: bytes
) -> None:
    for parse, words in (
        (wire.parse_from_serve, FROM_SERVE),
        (wire.parse_from_net, FROM_NET),
    ):
        if isinstance(message, words):
            assert parse(packet) == message
        else:
            with pytest.raises(UNREADABLE):
                parse(packet)


@pytest.mark.parametrize(("message", "packet"), GOLDEN, ids=lambda each: type(each).__name__)
def test_only_the_first_message_of_a_side_may_say_more(
    message: wire.FromServe | wire.FromNet, packet: bytes
) -> None:
    parse = wire.parse_from_serve if isinstance(message, FROM_SERVE) else wire.parse_from_net
    longer = packet[:-1] + b',"more":1}'
    if isinstance(message, wire.Hello | wire.Rejection):
        assert parse(longer) == message
    else:
        with pytest.raises(UNREADABLE):
            parse(longer)


def test_an_answer_to_a_question_may_not_say_more_either() -> None:
    with pytest.raises(UNREADABLE):
        wire.parse_from_net(GOLDEN[4][1].replace(b'{"id":7,', b'{"id":7,"more":1,'))


@pytest.mark.parametrize(
    "message", [each for each, _ in GOLDEN], ids=lambda each: type(each).__name__
)
def test_no_message_can_be_changed(message: wire.FromServe | wire.FromNet) -> None:
    with pytest.raises(AttributeError):
        setattr(message, next(iter(message.__struct_fields__), "type"), None)


def test_another_versions_hello_is_read_though_it_says_more() -> None:
    packet = b'{"type":"hello","protocol":2,"version":"0.9","since":"then"}'
    theirs = wire.parse_from_serve(packet)
    assert theirs == wire.Hello(2, "0.9")
    why = wire.why_other(wire.Hello(1, "0.2.0"), wire.Hello(2, "0.9"), me="net", other="serve")
    assert why == (
        "net is version 0.2.0 (protocol 1), serve is version 0.9 (protocol 2): both containers "
        "need the same image"
    )
    assert not wire.why_other(wire.Hello(1, "x"), wire.Hello(1, "x"), me="net", other="serve")


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xff\xfe",
        b"[" * 30_000,
        b'{"type":"questions","questions":[{"id":1,"address":"10.0.0.1","port":65536}]}',
        b'{"type":"questions","questions":[{"id":-1,"address":"10.0.0.1","port":1}]}',
        b'{"type":"questions","questions":[{"id":1,"address":"%s","port":1}]}' % (b"1" * 46),
        b'{"type":"questions","questions":[{"id":1,"address":"10.0.0.1","port":1,"install":false}]}',
        b'{"type":"remove"}',
        json.dumps({"type": "hello", "protocol": 1, "version": "v" * 65}).encode(),
        b'{"type":"accepting","accepting":true}' + b" " * wire.LARGEST,
        b'{"type":"probe","id":1,"address":"10.0.0.1","pod":"","target":"/metadata/identity"}',
        b'{"type":"probe","id":1,"address":"10.0.0.1","pod":"%s"}' % (b"1" * 65),
        b'{"type":"arrived","id":1,"nonce":"%s","address":"a","port":1,"own":""}' % (b"0" * 33),
    ],
    ids=lambda packet: packet[:90],
)
def test_what_is_no_message_is_unreadable_and_not_repeated(packet: bytes) -> None:
    with pytest.raises(wire.Unreadable) as refusal:
        wire.parse_from_serve(packet)
    assert len(str(refusal.value)) < 300


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_unreadable(packet: bytes) -> None:
    for parse in (wire.parse_from_serve, wire.parse_from_net):
        try:
            parse(packet)
        except UNREADABLE:
            continue


def test_serve_has_no_word_that_could_weaken_net() -> None:
    # Each word here was weighed: questions, when `serve` accepts connections, that it ends, which
    # counts only for a `net` that was told to stop and to remove its rules, and of a probe that
    # `net` sends, for which it has no choice of its contents or of where it goes.
    assert set(wire.FromServe.__args__) == set(FROM_SERVE)


def test_what_a_question_leaves_out_is_not_asked_for() -> None:
    assert wire.parse_from_serve(b'{"type":"probe","id":8,"address":"a"}') == wire.Probe(8, "a", "")
    assert wire.parse_from_serve(questions(1)) == wire.Questions(
        (wire.Question(0, "10.0.0.1", 1, local=False, own="", clients=False),)
    )


def questions(number: int) -> bytes:
    asked = [{"id": each, "address": "10.0.0.1", "port": 1} for each in range(number)]
    return json.dumps({"type": "questions", "questions": asked}).encode()


def test_a_packet_has_so_many_questions_and_bytes_and_no_more() -> None:
    assert wire.parse_from_serve(questions(wire.MOST_TOGETHER))
    for number in (0, wire.MOST_TOGETHER + 1):
        with pytest.raises(wire.Unreadable):
            wire.parse_from_serve(questions(number))
    longest = b'{"type":"accepting","accepting":true}'.ljust(wire.LARGEST)
    assert wire.parse_from_serve(longest) == wire.Accepting(accepting=True)


def answers(*sizes: int) -> list[wire.FactsAnswer]:
    """Return answers with so many sightings each."""
    seen = Sighting(network="cni-" + "1" * 60)
    return [
        wire.FactsAnswer(number, ConnectionFacts(accepted=True, sightings=(seen,) * size))
        for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("sizes", [(1,), (1, 1, 1), (100, 100, 100, 100, 100), (190, 1, 190)])
def test_answers_that_fit_into_no_one_packet_come_in_several_in_their_order(
    sizes: tuple[int, ...],
) -> None:
    packets = list(wire.answer_packets(answers(*sizes)))
    assert all(len(packet) <= wire.LARGEST for packet in packets)
    assert (len(packets) == 1) is (sum(sizes) < 190)
    read = [wire.parse_from_net(packet) for packet in packets]
    found = [each for one in read if isinstance(one, wire.FactsAnswers) for each in one.answers]
    assert found == answers(*sizes)


def test_an_answer_that_fits_into_no_packet_says_that_it_is_unknown() -> None:
    (packet,) = wire.answer_packets(answers(2000))
    found = wire.parse_from_net(packet)
    facts = ConnectionFacts(accepted=True, failure="2000 namespaces hold the address")
    assert found == wire.FactsAnswers((wire.FactsAnswer(0, facts),))
