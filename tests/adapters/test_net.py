from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from podidentity.adapters import net as adapter
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.net import NetClient
from podidentity.core.attestation import AttestationMode, ConnectionFacts, Proof, Verdict
from podidentity.core.data_path import Hop
from podidentity.core.resources import Pod
from podidentity.wire import net as wire
from podidentity.wire.path_probe import ANSWER
from tests.fakes import pod
from tests.net.talk import ME, VERSION, net, seen

PORT = 40_000
ADDRESS = "10.244.0.2"
HERE, OWN = "127.0.0.1", "169.254.25.79"
OURS = b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER


@asynccontextmanager
async def client(
    folder: Path,
    *,
    version: str = VERSION,
    uids: frozenset[int] = ME,
    elsewhere: frozenset[str] = frozenset(),
) -> AsyncIterator[NetClient]:
    """Run a client of the `net` in a folder."""
    running = NetClient(
        folder / "net.sock",
        SystemClock(),
        version=version,
        mode=AttestationMode.KERNEL,
        uids=uids,
        is_elsewhere=elsewhere.__contains__,
    )
    task = asyncio.create_task(running.run())
    try:
        yield running
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(asking: NetClient, holds: Any) -> None:
    """Return when `holds()`, which is looked at after each change."""
    async with asyncio.timeout(60):
        while not holds():
            await asking.changed()


def reached(asking: NetClient) -> bool:
    return asking.state is not None and not asking.problems()


async def test_it_proves_by_what_net_states(tmp_path: Path) -> None:
    owner = pod(addresses=(ADDRESS,))
    async with net(tmp_path) as running, client(tmp_path) as asking:
        running.inspector.answer = seen(owner.uid)
        await until(asking, lambda: reached(asking))
        proof = await asking.prove(ADDRESS, PORT, [owner])
        assert (proof.verdict, proof.pod_uid) == (Verdict.PROVEN, owner.uid)
        local = await asking.prove_local("127.0.0.1", PORT, "127.0.0.1")
        assert (local.verdict, local.pod_uid, local.root) == (Verdict.PROVEN, owner.uid, True)
        assert {verdict: n for verdict, n in asking.verdicts.items() if n} == {Verdict.PROVEN: 2}


async def test_many_questions_at_once_get_each_its_own_answer(tmp_path: Path) -> None:
    async with net(tmp_path) as running, client(tmp_path) as asking:
        await until(asking, lambda: reached(asking))

        def by_port(
            address: str, port: int, own: str = "", *, clients: bool = False
        ) -> ConnectionFacts:
            assert (address, own, clients) == (ADDRESS, "", False)
            return seen(str(port))

        running.inspector.facts = by_port  # type: ignore[method-assign]
        proofs = await asyncio.gather(
            *(asking.prove(ADDRESS, port, []) for port in range(adapter.MOST_QUESTIONS * 4))
        )
        assert [proof.pod_uid for proof in proofs] == [str(n) for n in range(len(proofs))]


async def test_a_question_that_comes_alone_is_sent_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with net(tmp_path) as running, client(tmp_path) as asking:
        await until(asking, lambda: reached(asking))
        sent: list[wire.FromServe] = []
        send = NetClient._send

        def noted(self: NetClient, message: wire.FromServe) -> None:
            sent.append(message)
            send(self, message)

        monkeypatch.setattr(NetClient, "_send", noted)
        for number in range(3):
            judged: asyncio.Future[Proof] = asyncio.get_running_loop().create_future()
            assert asking.ask(ADDRESS, PORT, [], judged.set_result)
            assert len(sent) == number + 1, "in the same turn of the event loop"
            assert (await judged).pod_uid == "uid-1"
        assert len(running.inspector.asked) == 3


async def asked(asking: NetClient, candidates: list[Pod]) -> Proof:
    """Return the proof that a callback is told."""
    judged: asyncio.Future[Proof] = asyncio.get_running_loop().create_future()
    assert asking.ask(ADDRESS, PORT, candidates, judged.set_result)
    assert not judged.done(), "it is told later"
    return await judged


async def test_a_callback_is_told_the_same_proof_as_a_task(tmp_path: Path) -> None:
    owner = pod(addresses=(ADDRESS,))
    async with net(tmp_path) as running, client(tmp_path) as asking:
        await until(asking, lambda: reached(asking))
        for answer in (seen(owner.uid), seen("uid-of-another"), seen("")):
            running.inspector.answer = answer
            assert await asked(asking, [owner]) == await asking.prove(ADDRESS, PORT, [owner])


async def test_where_another_pod_made_the_connection_the_namespaces_clients_are_asked_for(
    tmp_path: Path,
) -> None:
    owner = pod(addresses=(ADDRESS,))
    proxied = seen("proxy").sightings[0]._replace(clients=("proxy", owner.uid))
    async with net(tmp_path) as running, client(tmp_path, elsewhere=frozenset({"proxy"})) as asking:
        await until(asking, lambda: reached(asking))
        running.inspector.answer = seen("proxy")
        running.inspector.with_clients = ConnectionFacts(
            accepted=True, sightings=(proxied,), holders=1
        )
        for proof in (await asking.prove(ADDRESS, PORT, [owner]), await asked(asking, [owner])):
            assert (proof.verdict, proof.pod_uid) == (Verdict.PROXIED, owner.uid)
            assert (proof.proxy, proof.holders) == ("proxy", 1)
        assert [how for *_, how in running.inspector.asked] == [False, "clients"] * 2
        assert {verdict: n for verdict, n in asking.verdicts.items() if n} == {Verdict.PROXIED: 2}


async def test_nobody_is_asked_for_clients_of_a_pod_that_may_be_new(tmp_path: Path) -> None:
    async with net(tmp_path) as running, client(tmp_path) as asking:
        await until(asking, lambda: reached(asking))
        for candidates in ([], [pod("former", addresses=(ADDRESS,))]):
            assert (await asking.prove(ADDRESS, PORT, candidates)).pod_uid == "uid-1"
            assert (await asked(asking, candidates)).pod_uid == "uid-1"
        assert {how for *_, how in running.inspector.asked} == {False}


async def test_callbacks_leave_half_of_the_places_to_those_who_wait(tmp_path: Path) -> None:
    async with net(tmp_path) as running, client(tmp_path) as asking:
        assert not asking.ask(ADDRESS, PORT, [], lambda _: None), "net is not reached yet"
        await until(asking, lambda: reached(asking))
        told: list[Proof] = []
        places = adapter.MOST_QUESTIONS
        taken = [asking.ask(ADDRESS, port, [], told.append) for port in range(places)]
        assert taken == [True] * (places // 2) + [False] * (places // 2)
        assert (await asking.prove(ADDRESS, PORT, [])).pod_uid
        assert len(told) == places // 2
        assert len(running.inspector.asked) == places // 2 + 1


async def test_a_callback_that_fails_costs_no_other_question_its_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(proof: Proof) -> None:
        raise RuntimeError(proof.pod_uid)

    async with net(tmp_path), client(tmp_path) as asking:
        await until(asking, lambda: reached(asking))
        assert asking.ask(ADDRESS, PORT, [], fail)
        assert (await asking.prove(ADDRESS, PORT + 1, [])).pod_uid
        assert not asking.problems()
    assert "could not be used" in caplog.text


async def test_a_callback_is_told_when_net_dies(tmp_path: Path) -> None:
    async with net(tmp_path) as running, client(tmp_path) as asking:
        await until(asking, lambda: reached(asking))
        asyncio.get_running_loop().call_soon(running.server.close)
        assert (await asked(asking, [])).verdict is Verdict.UNKNOWN
        assert not asking.ask(ADDRESS, PORT, [], lambda _: None)


async def test_without_net_nothing_is_proved_and_the_reason_is_said(tmp_path: Path) -> None:
    async with client(tmp_path) as asking:
        await until(asking, lambda: "No such file" in asking.problems()[0])
        proof = await asking.prove(ADDRESS, PORT, [])
        assert proof.verdict is Verdict.UNKNOWN
        assert asking.verdicts[Verdict.UNKNOWN] == 1
        assert (
            proof.detail
            == f"net cannot be reached at {tmp_path}/net.sock: No such file or directory"
        )


async def test_a_question_from_before_net_was_reached_waits_for_it(tmp_path: Path) -> None:
    """Both processes start side by side, and `net` leads pods to one that has not reached it."""
    owner = pod(addresses=(ADDRESS,))
    async with client(tmp_path) as asking:
        await until(asking, lambda: "No such file" in asking.problems()[0])
        proving = asyncio.create_task(asking.prove(ADDRESS, PORT, [owner]))
        async with net(tmp_path) as running:
            running.inspector.answer = seen(owner.uid)
            assert (await proving).verdict is Verdict.PROVEN


async def test_net_goes_and_comes_back_and_the_client_goes_on(tmp_path: Path) -> None:
    owner = pod(addresses=(ADDRESS,))
    async with client(tmp_path) as asking:
        for _ in range(3):
            async with net(tmp_path) as running:
                running.inspector.answer = seen(owner.uid)
                await until(asking, lambda: reached(asking))
                assert (await asking.prove(ADDRESS, PORT, [owner])).verdict is Verdict.PROVEN
            await until(asking, lambda: asking.state is None)
            assert asking.problems()
            assert (await asking.prove(ADDRESS, PORT, [owner])).verdict is Verdict.UNKNOWN


async def test_questions_under_way_fail_when_net_dies(tmp_path: Path) -> None:
    async with net(tmp_path) as running, client(tmp_path) as asking:
        await until(asking, lambda: reached(asking))

        def die(
            address: str, port: int, own: str = "", *, clients: bool = False
        ) -> ConnectionFacts:
            raise SystemExit(f"{address} {port} {own} {clients}")

        running.inspector.facts = die  # type: ignore[method-assign]
        question = asyncio.create_task(asking.prove(ADDRESS, PORT, []))
        asyncio.get_running_loop().call_soon(running.server.close)
        assert (await question).verdict is Verdict.UNKNOWN


async def test_a_net_that_hangs_is_given_up_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "ANSWER_SECONDS", 0.02)
    async with net(tmp_path) as running, client(tmp_path) as asking:
        await until(asking, lambda: reached(asking))
        answers = running.server._clients
        for each in answers:
            monkeypatch.setattr(type(each), "_answer", lambda *_: None)
        proof = await asking.prove(ADDRESS, PORT, [])
        assert proof == Proof(verdict=Verdict.UNKNOWN, detail="net did not answer within 0.02 s")


async def test_a_callback_is_told_when_net_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "ANSWER_SECONDS", 0.02)
    async with net(tmp_path) as running, client(tmp_path) as asking:
        await until(asking, lambda: reached(asking))
        for each in running.server._clients:
            monkeypatch.setattr(type(each), "_answer", lambda *_: None)
        assert (await asked(asking, [])).verdict is Verdict.UNKNOWN


async def test_another_version_of_net_is_no_net_and_both_are_named(tmp_path: Path) -> None:
    async with net(tmp_path, version="0.3.0"), client(tmp_path) as asking:
        await until(asking, lambda: "refuses" in asking.problems()[0])
        (why,) = asking.problems()
        assert why == (
            "net refuses this serve: net is version 0.3.0 (protocol 7), serve is version 0.2.0 "
            "(protocol 7): both containers need the same image"
        )
        assert (await asking.prove(ADDRESS, PORT, [])).verdict is Verdict.UNKNOWN


async def test_who_listens_in_the_place_of_net_is_not_believed(tmp_path: Path) -> None:
    async with net(tmp_path), client(tmp_path, uids=frozenset({64_912})) as asking:
        await until(asking, lambda: "not of user 64912" in asking.problems()[0])
        assert (await asking.prove(ADDRESS, PORT, [])).verdict is Verdict.UNKNOWN


async def test_what_net_says_of_itself_is_known_and_told(tmp_path: Path) -> None:
    async with net(tmp_path) as running, client(tmp_path) as asking:
        await until(asking, lambda: reached(asking))
        running.server.tell(wire.State(interception=("gone",), repairs=3))
        await until(asking, lambda: asking.state and asking.state.repairs == 3)
        assert asking.state == wire.State(interception=("gone",), repairs=3)


async def test_net_is_told_that_no_agent_follows_and_tells_that_the_rules_are_gone(
    tmp_path: Path,
) -> None:
    async with client(tmp_path) as asking:
        for before in (True, False):
            async with net(tmp_path) as running:
                await until(asking, lambda: reached(asking))
                if before:
                    asking.leave()
                await asking.prove(ADDRESS, PORT, [])
                await running.server.none_follows()
                assert running.server._clients
                assert not asking.removed
                running.server.tell(wire.State(removed=True))
                await until(asking, lambda: asking.removed)
            await until(asking, lambda: not asking.removed)


async def test_each_net_is_told_whether_connections_are_accepted(tmp_path: Path) -> None:
    async with client(tmp_path) as asking:
        asking.accept(True)
        for _ in range(2):
            async with net(tmp_path) as running:
                await until(asking, lambda: reached(asking))
                await asking.prove(ADDRESS, PORT, [])
                assert running.accepting == [True]
            await until(asking, lambda: asking.state is None)


async def test_a_probe_that_arrives_is_taken_and_proves_the_path(tmp_path: Path) -> None:
    asking: NetClient

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port, target = await request_of(reader, writer)
        taken = asking.take_probe(HERE, port, OWN, target)
        writer.write(OURS if taken else b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with (
        await asyncio.start_server(answer, HERE) as there,
        net(tmp_path, imds=there.sockets[0].getsockname()) as running,
        client(tmp_path) as asking,
    ):
        await until(asking, lambda: reached(asking))
        found = await asyncio.gather(*(asking.probe(HERE, "u9") for _ in range(3)))
        assert {each.hop for each in found} == {Hop.PROVED}
        assert running.pods.asked == [(HERE, "u9")] * 3


async def request_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, str]:
    """Return port and target of a request."""
    line = await reader.readline()
    port: int = writer.get_extra_info("peername")[1]
    return port, line.split()[1].decode()


async def test_a_request_of_a_tenant_is_no_probe_though_it_has_a_probes_path(
    tmp_path: Path,
) -> None:
    """Its path and nonce are the probe's; address and port are the kernel's to give, and differ."""
    taken: list[bool] = []
    asking: NetClient

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port, target = await request_of(reader, writer)
        token = "/metadata/identity/oauth2/token?resource=x"
        for each in (
            ("10.244.0.66", port, OWN, target),
            (HERE, port + 1, OWN, target),
            (HERE, port, OWN, "/metadata/versions"),
            (HERE, port, OWN, token),
        ):
            taken.append(asking.take_probe(*each))  # noqa: PERF401 - one after the other
        writer.write(OURS)
        writer.close()

    async with (
        await asyncio.start_server(answer, HERE) as there,
        net(tmp_path, imds=there.sockets[0].getsockname()),
        client(tmp_path) as asking,
    ):
        await until(asking, lambda: reached(asking))
        guess = f"/metadata/versions?probe={'0' * 32}"
        assert not asking.take_probe(HERE, PORT, OWN, guess), "none is expected"
        found = await asking.probe(HERE)
        assert taken == [False] * 4
        assert found.hop is Hop.UNSEEN, "what they said has reached nobody"


async def test_without_net_no_probe_is_sent_and_it_is_said(tmp_path: Path) -> None:
    async with client(tmp_path) as asking:
        found = await asking.probe(HERE)
        assert found.hop is Hop.NOT_SENT
        assert "net" in found.detail


async def test_a_probe_under_way_ends_with_net(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await reader.read()
        writer.close()

    async with (
        await asyncio.start_server(silent, HERE) as there,
        client(tmp_path) as asking,
    ):
        async with net(tmp_path, imds=there.sockets[0].getsockname()):
            await until(asking, lambda: reached(asking))
            probing = asyncio.create_task(asking.probe(HERE))
            await begun.wait()
        found = await probing
        assert (found.hop, "net" in found.detail) == (Hop.NOT_SENT, True)
