from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from podidentity.core.attestation import ConnectionFacts, Sighting
from podidentity.net import server as served
from podidentity.wire import net as wire
from tests.net.talk import VERSION, net, seen


def asking(*questions: wire.Question) -> wire.Questions:
    return wire.Questions(questions)


def answering(*answers: wire.FactsAnswer) -> wire.FactsAnswers:
    return wire.FactsAnswers(answers)


async def test_it_states_facts_and_what_it_knows_of_the_node(tmp_path: Path) -> None:
    async with net(tmp_path) as running:
        client = running.client()
        await client.greet()
        await client.say(asking(wire.Question(1, "10.244.0.2", 40000)))
        assert await client.hear() == answering(wire.FactsAnswer(1, seen("uid-1")))
        await client.say(asking(wire.Question(2, "127.0.0.1", 40001, local=True, own="127.0.0.1")))
        assert await client.hear() == answering(wire.FactsAnswer(2, seen("uid-1")))
        await client.say(asking(wire.Question(3, "10.244.0.2", 40002, clients=True)))
        assert await client.hear() == answering(wire.FactsAnswer(3, seen("uid-1")))
        assert running.inspector.asked == [
            ("10.244.0.2", 40000, False),
            ("127.0.0.1", 40001, "127.0.0.1"),
            ("10.244.0.2", 40002, "clients"),
        ]
        running.server.tell(wire.State(repairs=1))
        assert await client.hear() == wire.State(repairs=1)


async def test_a_state_that_is_the_same_is_told_once(tmp_path: Path) -> None:
    async with net(tmp_path) as running:
        client = running.client()
        await client.greet()
        for repairs in (1, 1, 2):
            running.server.tell(wire.State(repairs=repairs))
        assert [await client.hear(), await client.hear()] == [
            wire.State(repairs=1),
            wire.State(repairs=2),
        ]


async def test_a_process_of_another_user_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with net(tmp_path, uids=frozenset({64_912})) as running:
        client = running.client()
        refusal = await client.hear()
        assert isinstance(refusal, wire.Rejection)
        assert "not of user 64912" in refusal.reason
        assert await client.hear() is None


async def test_a_serve_of_another_version_is_refused_and_told_both_versions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with net(tmp_path) as running:
        client = running.client()
        await client.say(b'{"type":"hello","protocol":9,"version":"9.0","new":1}')
        refusal = await client.hear()
        assert isinstance(refusal, wire.Rejection)
        assert refusal.reason.startswith(f"net is version {VERSION} (protocol 7), serve is version")
        assert await client.hear() is None
    assert "version 9.0 (protocol 9)" in caplog.text


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "no message"),
        (b"\0" * 100, "no message"),
        (b"x" * (wire.LARGEST + 1), "a message of more than"),
        (
            b'{"type":"questions","questions":[{"id":1,"address":"a","port":1}]}',
            "did not say hello",
        ),
        (b'{"type":"questions","questions":[]}', "no message"),
    ],
)
async def test_rubbish_is_refused_and_ends_the_connection(
    tmp_path: Path, packet: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with net(tmp_path) as running:
        client = running.client()
        await client.say(packet)
        refusal = await client.hear()
        assert isinstance(refusal, wire.Rejection)
        assert why in refusal.reason
        assert await client.hear() is None
        assert running.inspector.asked == []
        # Others are served all the same.
        await running.client().greet()
    assert why in caplog.text


async def test_rubbish_without_end_is_logged_a_few_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with net(tmp_path) as running:
        for _ in range(50):
            client = running.client()
            await client.say(b"rubbish")
            while await client.hear() is not None:
                pass
    assert len(caplog.records) <= 5


async def test_a_client_that_never_reads_is_cut_off_before_it_costs_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "RATE", 1_000_000)
    monkeypatch.setattr(served, "BURST", 1_000_000)
    async with net(tmp_path) as running:
        deaf = running.client()
        await deaf.greet()
        with suppress(OSError):
            for number in range(100_000):
                await deaf.say(asking(wire.Question(number, "10.244.0.2", 1)))
        assert len(running.inspector.asked) < 10_000
        await running.client().greet()
    assert "does not read its answers" in caplog.text


async def test_a_flood_of_questions_waits_and_leaves_others_their_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "RATE", 100)
    monkeypatch.setattr(served, "BURST", 10)
    async with net(tmp_path) as running:
        flooding = running.client()
        await flooding.greet()
        for number in range(60):
            await flooding.say(asking(wire.Question(number, "10.244.0.2", 1)))
        other = running.client()
        await other.greet()
        await other.say(asking(wire.Question(1, "10.244.0.3", 1)))
        assert isinstance(await other.hear(), wire.FactsAnswers)
        assert len(running.inspector.asked) < 30
        # It is slow, and loses nothing.
        for number in range(60):
            answer = await flooding.hear()
            assert isinstance(answer, wire.FactsAnswers)
            assert [each.id for each in answer.answers] == [number]
    assert caplog.text.count("asks more than") == 5


async def test_more_clients_than_an_agent_has_are_refused(tmp_path: Path) -> None:
    async with net(tmp_path) as running:
        clients = [running.client() for _ in range(served.MOST_CLIENTS)]
        for client in clients:
            await client.greet()
        refusal = await running.client().hear()
        assert isinstance(refusal, wire.Rejection)
        assert "clients are connected" in refusal.reason
        clients.pop().socket.close()
        await running.client().greet()


async def test_a_client_that_says_nothing_loses_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "HELLO_SECONDS", 0.01)
    async with net(tmp_path) as running:
        refusal = await running.client().hear()
        assert refusal == wire.Rejection("it did not say hello")
        await running.server.no_clients()


async def test_facts_that_are_too_long_for_a_message_are_left_out_with_the_reason(
    tmp_path: Path,
) -> None:
    async with net(tmp_path) as running:
        many = tuple(Sighting(network=f"cni-{number}") for number in range(1000))
        running.inspector.answer = ConnectionFacts(accepted=True, sightings=many)
        client = running.client()
        await client.greet()
        await client.say(asking(wire.Question(1, "10.244.0.2", 1)))
        few = ConnectionFacts(accepted=True, failure="1000 namespaces hold the address")
        assert await client.hear() == answering(wire.FactsAnswer(1, few))


async def test_questions_of_one_message_are_answered_in_as_few_as_hold_the_answers(
    tmp_path: Path,
) -> None:
    async with net(tmp_path) as running:
        client = running.client()
        await client.greet()
        numbers = range(wire.MOST_TOGETHER)
        await client.say(asking(*(wire.Question(each, "10.244.0.2", 1) for each in numbers)))
        answers = await client.hear()
        assert answers == answering(*(wire.FactsAnswer(each, seen("uid-1")) for each in numbers))
        half = tuple(Sighting(network="c" * 300) for _ in range(60))
        running.inspector.answer = ConnectionFacts(accepted=True, sightings=half)
        await client.say(asking(*(wire.Question(each, "10.244.0.2", 1) for each in (1, 2))))
        for number in (1, 2):
            answer = wire.FactsAnswer(number, running.inspector.answer)
            assert await client.hear() == answering(answer)


async def test_each_question_of_a_message_counts_against_the_rate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "RATE", 100)
    monkeypatch.setattr(served, "BURST", 10)
    async with net(tmp_path) as running:
        client = running.client()
        await client.greet()
        for _ in range(2):
            await client.say(asking(*(wire.Question(each, "10.244.0.2", 1) for each in range(10))))
            assert isinstance(await client.hear(), wire.FactsAnswers)
    assert "asks more than 100 times a second" in caplog.text


async def test_it_knows_whether_a_client_accepts_connections(tmp_path: Path) -> None:
    async with net(tmp_path) as running:
        one, two = running.client(), running.client()
        await one.greet()
        await two.greet()
        await one.say(wire.Accepting(accepting=True))
        await one.say(asking(wire.Question(1, "10.244.0.2", 1)))
        await one.hear()
        assert running.accepting == [True]
        one.socket.close()
        two.socket.close()
        await running.server.no_clients()
        assert running.accepting[-1] is False
