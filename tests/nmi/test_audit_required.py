"""With `--audit-required` no token leaves before its record is written, whatever the disk does."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from podidentity.nmi.reporting import request_log
from podidentity.nmi.reporting.request_log import AuditLog
from podidentity.telemetry.lines import Destination, File, Stream, Writer
from tests.nmi.pipelines import World, remove_binding

BURST = 30


@contextmanager
def required(destination: Destination, **options: float) -> Iterator[AuditLog]:
    writer = Writer(destination, name="audit", **options)  # type: ignore[arg-type]
    try:
        yield AuditLog(writer, required=True)
    finally:
        writer.close()


async def burst(world: World) -> list[bytes]:
    """Send requests that all arrive at the same moment; return the answers."""
    asking = [world.decide(world.request()) for _ in range(BURST)]
    return list(await asyncio.gather(*asking))


def refused(answers: list[bytes]) -> bool:
    return all(
        answer.startswith(b"HTTP/1.1 503 ") and b"access_token" not in answer for answer in answers
    )


class Full(Stream):
    """A disk that is full from its first line on."""

    def __init__(self) -> None:
        super().__init__(os.open("/dev/full", os.O_WRONLY))


async def test_a_full_disk_gives_no_token_and_is_said_also_to_the_first_burst() -> None:
    with required(Full()) as audit:
        world = World(audit)
        assert not audit.problems(), "nobody knows it before the first line"
        assert refused(await burst(world))
        assert audit.problems() == ("the audit log cannot be written: No space left on device",)
        assert refused(await burst(world))
    told = {line["reason"] for line in world.record.lines}
    assert told == {"NotReady"}
    assert all(
        line.endswith(" 0") for line in world.record.scraped("podidentity_nmi_tokens_total{")
    )


async def test_a_pipe_that_nobody_reads_gives_no_token_and_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_log, "WRITE_SECONDS", 0.05)
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, b"\n" * 4096)
    os.set_blocking(writes, True)
    with required(Stream(writes), stalled=0.02) as audit:
        world = World(audit)
        assert refused(await burst(world))
        assert audit.problems() == ("the audit log cannot be written: a write does not return",)
        # So that the thread can end: somebody reads, also what comes while it ends.
        reader = threading.Thread(target=_drain, args=(reads,), daemon=True)
        reader.start()
    os.close(writes)
    reader.join(60)
    os.close(reads)


def _drain(descriptor: int) -> None:
    while os.read(descriptor, 65536):
        pass


class Dying(Stream):
    """Ends the thread that writes with its first line."""

    def __init__(self) -> None:
        super().__init__(-1)

    def write(self, data: memoryview) -> int:
        raise SystemExit(bytes(data))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_writer_that_has_died_gives_no_token_and_is_said() -> None:
    with required(Dying()) as audit:
        world = World(audit)
        assert refused(await burst(world))
        assert audit.problems() == ("the audit log cannot be written: its writer has ended",)
        assert refused(await burst(world))


async def test_each_record_is_written_when_its_answer_leaves(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    with required(File(path)) as audit:
        world = World(audit)
        for number in range(1, 6):
            assert b"access_token" in await world.decide(world.request())
            records = [json.loads(line) for line in path.read_text().splitlines()]
            assert [each["decision"] for each in records] == ["granted"] * number
        assert all(b"access_token" in answer for answer in await burst(world))
        assert len(path.read_text().splitlines()) == 5 + BURST


async def test_a_remembered_answer_waits_for_its_record_as_well(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    with required(File(path)) as audit:
        world = World(audit)
        await world.warm()
        assert world.remembered() is None, "nothing is answered in the turn it came"
        assert b"access_token" in await world.decide(world.request())
        assert len(path.read_text().splitlines()) == 3


async def test_a_refusal_waits_for_its_record_as_well() -> None:
    with required(Full()) as audit:
        world = World(audit)
        remove_binding(world)
        assert refused(await burst(world))
