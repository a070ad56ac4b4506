"""Probes from `serve`'s word to `net`'s judgement, over real sockets of one network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from podidentity.core.data_path import Backend, Hop, ProbeResult
from podidentity.net import path_probe
from podidentity.wire import net as wire
from podidentity.wire.path_probe import ANSWER, nonce_of
from tests.net.talk import Net, RawClient, net

HERE, OWN, POD = "127.0.0.1", "169.254.25.79", "uid-of-the-probe-pod"
OURS = b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n" + ANSWER
IMDS = b"HTTP/1.1 400 Bad Request\r\nServer: IMDS/150.870.65.1103\r\n\r\n{}"


class Answering:
    """What answers at IMDS's address; it notes each request, and answers as a test says."""

    def __init__(self) -> None:
        self.answer: bytes | None = OURS
        """None: nothing, and the connection stays."""
        self.requests: list[bytes] = []
        self.asked = asyncio.Event()
        self.arrived: Callable[[str, int], None] = lambda *_: None
        """Is called with nonce and port before the answer."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        self.asked.set()
        self.arrived(nonce_of(request.split()[1].decode()), writer.get_extra_info("peername")[1])
        if self.answer is None:
            await reader.read()
        else:
            writer.write(self.answer)
        writer.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes is waited for, on a machine of any load."""
    monkeypatch.setattr(path_probe, "SECONDS", 60.0)
    monkeypatch.setattr(path_probe, "ARRIVAL_SECONDS", 60.0)


class Place:
    """`net`, the client that is `serve`, and what answers at IMDS's address."""

    def __init__(self, running: Net, serve: RawClient, there: Answering) -> None:
        self.net = running
        self.serve = serve
        self.there = there
        self.changed: Callable[[wire.Arrived], wire.Arrived | None] = lambda arrived: arrived
        """What `serve` says of what arrived."""

    async def probe(self, number: int = 8) -> ProbeResult:
        """Probe as `serve` does."""
        probing = await self.begin(number)
        return probing if isinstance(probing, ProbeResult) else await self.go_on(number)

    async def begin(self, number: int) -> wire.Probing | ProbeResult:
        await self.serve.say(wire.Probe(number, HERE, POD))
        said = await self.serve.hear()
        if isinstance(said, wire.Probed):
            return said.result
        assert isinstance(said, wire.Probing)
        return said

    async def go_on(self, number: int) -> ProbeResult:
        def arrived(nonce: str, port: int) -> None:
            told = self.changed(wire.Arrived(number, nonce, HERE, port, OWN))
            if told is not None:
                self.serve.socket.send(wire.encode(told))

        self.there.arrived = arrived
        await self.serve.say(wire.Expecting(number))
        said = await self.serve.hear()
        assert isinstance(said, wire.Probed)
        assert said.id == number
        return said.result


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    there = Answering()
    async with await asyncio.start_server(there, HERE) as server:
        imds = server.sockets[0].getsockname()
        async with net(folder, imds=imds) as running:
            serve = running.client()
            await serve.greet()
            yield Place(running, serve, there)


async def test_a_request_that_arrives_at_serve_and_is_answered_proves_the_path(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as here:
        found = await here.probe()
        assert found == ProbeResult(hop=Hop.PROVED, plane="routed", backend=Backend.NFTABLES)
        assert here.net.pods.asked == [(HERE, POD)]
        (request,) = here.there.requests
    assert b"metadata:" not in request.lower(), "IMDS itself must refuse it"


@pytest.mark.parametrize(
    ("own", "proved"),
    [(OWN, Backend.NFTABLES), ("10.240.0.7", Backend.LRP), ("10.240.0.5", None), ("", None)],
)
async def test_where_it_arrives_tells_what_leads_requests_to_nmi_and_no_other_address_counts(
    tmp_path: Path, own: str, proved: Backend | None
) -> None:
    async with place(tmp_path) as here:
        here.changed = lambda arrived: structs.replace(arrived, own=own)
        found = await here.probe()
    assert (found.backend, found.hop is Hop.PROVED) == (proved, proved is not None)


async def test_nothing_is_sent_before_serve_expects_it(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        probing = await here.begin(8)
        assert isinstance(probing, wire.Probing)
        assert not here.there.requests
        assert (await here.go_on(8)).hop is Hop.PROVED


async def test_the_real_imds_is_recognised_and_gives_nothing_away(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.there.answer = IMDS
        here.changed = lambda _: None
        assert (await here.probe()).hop is Hop.IMDS


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n{}", b"x", b"x" * 100_000])
async def test_the_answer_of_any_other_program_is_no_proof(tmp_path: Path, answer: bytes) -> None:
    async with place(tmp_path) as here:
        here.there.answer = answer
        assert (await here.probe()).hop is Hop.ANOTHER


async def test_silence_is_told_from_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_probe, "SECONDS", 1.0)
    async with place(tmp_path) as here:
        here.there.answer = None
        silent = await here.probe()
        here.changed = lambda _: None
        unseen = await here.probe()
    async with net(tmp_path) as running:  # nobody listens at its IMDS
        serve = running.client()
        await serve.greet()
        refused = await Place(running, serve, Answering()).probe()
    assert {each.hop for each in (silent, unseen, refused)} == {Hop.NO_ANSWER}
    assert silent.detail == "none within 1 s, though it has arrived at NMI"
    assert unseen.detail == "none within 1 s"
    assert refused.detail == "connection refused"


REPLAYED = "ab" * 16


@pytest.mark.parametrize(
    "told",
    [
        lambda _: None,
        lambda arrived: wire.Arrived(arrived.id, REPLAYED, HERE, arrived.port, OWN),
        lambda arrived: wire.Arrived(arrived.id, arrived.nonce, HERE, arrived.port + 1, OWN),
        lambda arrived: wire.Arrived(arrived.id, arrived.nonce, "10.0.0.9", arrived.port, OWN),
        lambda arrived: wire.Arrived(arrived.id, arrived.nonce, HERE, arrived.port, "10.240.0.4"),
        lambda arrived: wire.Arrived(arrived.id + 1, arrived.nonce, HERE, arrived.port, OWN),
    ],
    ids=["nothing", "nonce", "port", "address", "own address", "probe"],
)
async def test_an_answer_as_ours_is_no_proof_if_serve_saw_something_else(
    tmp_path: Path,
    told: Callable[[wire.Arrived], wire.Arrived | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(path_probe, "ARRIVAL_SECONDS", 0.05)
    async with place(tmp_path) as here:
        here.changed = told
        assert (await here.probe()).hop is Hop.UNSEEN


async def test_a_nonce_is_used_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place(tmp_path) as here:
        first = await here.probe(1)
        monkeypatch.setattr(path_probe, "ARRIVAL_SECONDS", 0.05)
        seen = nonce_of(here.there.requests[0].split()[1].decode())
        here.changed = lambda each: wire.Arrived(each.id, seen, HERE, each.port, OWN)
        assert [first.hop, (await here.probe(2)).hop] == [Hop.PROVED, Hop.UNSEEN]


async def test_a_serve_in_a_strangers_hands_cannot_say_beforehand_what_will_arrive(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as here:
        probing = await here.begin(8)
        assert isinstance(probing, wire.Probing)
        for guess in ("", "0" * 32, REPLAYED):
            await here.serve.say(wire.Arrived(8, guess, HERE, probing.port, OWN))
        assert (await here.go_on(8)).hop is Hop.UNSEEN, "the first word counts"


async def test_without_a_namespace_nothing_is_sent_and_it_is_said_why(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.net.pods.missing = "no network namespace has the address"
        found = await here.probe()
        assert found == ProbeResult(hop=Hop.NOT_SENT, detail="no network namespace has the address")
        assert not here.there.requests


async def test_a_serve_that_does_not_expect_it_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_probe, "SECONDS", 0.05)
    async with place(tmp_path) as here:
        await here.begin(8)
        said = await here.serve.hear()
        assert isinstance(said, wire.Probed)
        assert (said.result.hop, said.result.detail) == (Hop.NOT_SENT, "serve does not expect it")
        assert not here.there.requests


async def test_one_client_has_one_probe_under_way_and_all_have_a_few_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_probe, "RATE", 0.01)  # none comes back meanwhile, on a slow machine
    async with place(tmp_path) as here:
        await here.begin(1)
        second = await here.begin(2)
        assert isinstance(second, ProbeResult)
        assert second.detail == "another probe is under way"
        await here.go_on(1)
        found = [await here.probe(number) for number in range(3, 3 + path_probe.BURST)]
        assert found[-1].detail == f"more than {path_probe.RATE} probes a second"
        assert len(here.there.requests) <= path_probe.BURST + 1


async def test_words_about_no_probe_are_nothing_to_net(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.serve.say(wire.Expecting(3))
        await here.serve.say(wire.Arrived(3, REPLAYED, HERE, 4, OWN))
        assert (await here.probe()).hop is Hop.PROVED


async def test_a_client_that_leaves_takes_its_probe_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with place(tmp_path) as here:
        here.there.answer = None
        await here.begin(8)
        await here.serve.say(wire.Expecting(8))
        await here.there.asked.wait()
        here.serve.socket.close()
        await here.net.server.no_clients()
        another = here.net.client()
        await another.greet()
        here.there.answer = OURS
        assert (await Place(here.net, another, here.there).probe()).hop is Hop.PROVED
    assert not caplog.records
