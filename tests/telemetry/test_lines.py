"""Lines through a real thread, into real files and into destinations that fail as told."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from podidentity.telemetry.lines import Destination, File, Stream, Writer

PATIENCE = 60.0
"""Seconds that a line has to be written: only a test that fails uses them up."""


class Fickle:
    """Fails as long as it is told to."""

    def __init__(self, *failures: OSError) -> None:
        self.failures = list(failures)
        self.data: list[bytes] = []
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()
        """Set when a write has begun that waits."""

    def write(self, data: memoryview) -> int:
        if not self.open.is_set():
            self.begun.set()
        self.open.wait()
        if self.failures:
            raise self.failures[0]
        self.data.append(bytes(data))
        return len(data)

    def probe(self) -> None:
        self.write(memoryview(b""))

    def reopen(self) -> None:
        pass


@contextmanager
def writing(destination: Destination, **options: object) -> Iterator[Writer]:
    writer = Writer(destination, name="test", retry=3600, **options)  # type: ignore[arg-type]
    try:
        yield writer
    finally:
        writer.close(PATIENCE)


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_lines_arrive_in_order_and_in_few_writes() -> None:
    kept = Fickle()
    with writing(kept) as writer:
        for number in range(5000):
            writer.write(f"{number}\n")
    assert b"".join(kept.data) == "".join(f"{number}\n" for number in range(5000)).encode()
    assert len(kept.data) < 500


def test_closing_writes_what_is_left() -> None:
    kept = Fickle()
    with writing(kept) as writer:
        writer.write("last\n")
    assert kept.data[-1] == b"last\n"


def test_after_a_flush_everything_is_written() -> None:
    kept = Fickle()
    with writing(kept) as writer:
        writer.write("a\n")
        writer.flush(PATIENCE)
        assert b"".join(kept.data) == b"a\n"


def test_what_cannot_be_written_is_kept_tried_again_and_told_once() -> None:
    told: list[str] = []
    kept = Fickle(FULL)
    with writing(kept, tell=told.append) as writer:
        writer.write("a\n")
        writer.flush(PATIENCE)
        writer.write("b\n")
        writer.flush(PATIENCE)
        assert writer.failure == "No space left on device"
        kept.failures.clear()
        writer.flush(PATIENCE)
        assert b"".join(kept.data) == b"a\nb\n"
        assert writer.failure == ""
    assert told == ["No space left on device", ""]
    assert writer.lost == 0


def test_without_room_the_newest_lines_are_lost_and_counted() -> None:
    kept = Fickle(FULL)
    with writing(kept, room=3) as writer:
        writer.write("0\n")
        writer.flush(PATIENCE)
        for number in range(1, 10):
            writer.write(f"{number}\n")
        assert writer.lost == 7
        kept.failures.clear()
    assert b"".join(kept.data) == b"0\n1\n2\n"


def test_a_destination_that_hangs_holds_nobody_up() -> None:
    kept = Fickle()
    kept.open.clear()
    with writing(kept, room=10) as writer:
        for _ in range(1000):
            writer.write("x\n")
        writer.flush(seconds=0.0)
        kept.open.set()
    assert writer.lost >= 1000 - 20


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    before = os.umask(0)
    try:
        with writing(File(path)) as writer:
            writer.write("a\n")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "a\n"


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "audit", tmp_path / "audit.1"
    with writing(File(path)) as writer:
        writer.write("a\n")
        writer.flush(PATIENCE)
        path.rename(moved)
        writer.write("b\n")
        writer.flush(PATIENCE)
        path.unlink()
        writer.write("c\n")
        writer.reopen()
    assert (moved.read_text(), path.read_text()) == ("a\n", "c\n")


def test_a_folder_that_is_missing_is_known_at_once_and_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    with writing(File(folder / "audit")) as writer:
        writer.flush(PATIENCE)
        assert writer.failure == "No such file or directory"
        folder.mkdir()
        writer.write("a\n")
    assert (folder / "audit").read_text() == "a\n"


FILL = """
import resource, sys
from pathlib import Path
from podidentity.telemetry.lines import File, Writer

resource.setrlimit(resource.RLIMIT_FSIZE, (10_050, 20_000))
writer = Writer(File(Path(sys.argv[1])), name="audit", retry=3600)
for _ in range(150):
    writer.write("x" * 99 + "\\n")
    writer.flush(60)
print(writer.failure)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
writer.close(60)
"""


def test_where_there_is_no_more_room_whole_lines_stand_and_the_rest_comes_later(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit"
    shown = subprocess.run(
        [sys.executable, "-c", FILL, path], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "File too large"
    assert path.read_text() == ("x" * 99 + "\n") * 150


def test_a_full_disk_is_said_in_its_words() -> None:
    with writing(Stream(os.open("/dev/full", os.O_WRONLY))) as writer:
        writer.write("a\n")
        writer.flush(PATIENCE)
        assert writer.failure == "No space left on device"


def test_a_stream_stays_open(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        with writing(Stream(file.fileno())) as writer:
            writer.write("a\n")
        assert not file.closed
        file.write("b\n")
    assert (tmp_path / "log").read_text() == "a\nb\n"


# Lines that somebody waits for.


async def test_a_committed_line_is_written_when_its_future_is_done() -> None:
    kept = Fickle()
    with writing(kept) as writer:
        assert await writer.commit("a\n") == ""
        assert b"".join(kept.data) == b"a\n"


async def test_lines_that_are_committed_while_others_are_written_are_one_group() -> None:
    kept = Fickle()
    with writing(kept) as writer:
        writer.flush(PATIENCE)
        kept.open.clear()
        first = writer.commit("0\n")
        others = [writer.commit(f"{number}\n") for number in range(1, 100)]
        kept.open.set()
        assert await asyncio.gather(first, *others) == [""] * 100
    assert b"".join(kept.data) == "".join(f"{number}\n" for number in range(100)).encode()
    assert len([data for data in kept.data if data]) <= 3


async def test_a_committed_line_that_could_not_be_written_is_not_written_later() -> None:
    kept = Fickle(FULL)
    with writing(kept) as writer:
        writer.write("log\n")
        failures = await asyncio.gather(*[writer.commit("never\n") for _ in range(3)])
        assert failures == ["No space left on device"] * 3
        kept.failures.clear()
        writer.flush(PATIENCE)
        assert await writer.commit("again\n") == ""
    assert b"".join(kept.data) == b"log\nagain\n"


async def test_a_committed_line_whose_waiter_has_left_is_not_written() -> None:
    kept = Fickle()
    with writing(kept) as writer:
        writer.flush(PATIENCE)
        kept.open.clear()
        first = writer.commit("0\n")
        left = writer.commit("left\n")
        left.cancel()
        kept.open.set()
        assert await first == ""
    assert b"left" not in b"".join(kept.data) or kept.data[-1] == b"0\nleft\n"


class Short(Fickle):
    """Takes seven bytes, then nothing until it is told to."""

    def write(self, data: memoryview) -> int:
        if len(b"".join(self.data)) >= 7 and self.failures:
            raise self.failures[0]
        return super().write(data[:7]) if not self.failures else self._begin(data)

    def _begin(self, data: memoryview) -> int:
        room = 7 - len(b"".join(self.data))
        self.data.append(bytes(data[:room]))
        return len(data[:room])


async def test_of_a_group_the_lines_written_whole_are_told_so_and_a_half_one_is_ended() -> None:
    kept = Short(FULL)
    with writing(kept) as writer:
        writer.flush(PATIENCE)
        kept.open.clear()
        told = await asyncio.gather(*[writer.commit(f"{number}{number}\n") for number in range(4)])
        assert told[:2] == ["", ""]
        assert told[2:] == ["No space left on device"] * 2
        kept.failures.clear()
        kept.open.set()
        writer.flush(PATIENCE)
    assert b"".join(kept.data) == b"00\n11\n22\n", "the third has begun, the fourth has not"


class Dying(Fickle):
    """Ends the thread that writes."""

    def write(self, data: memoryview) -> int:
        if data:
            raise SystemExit
        return 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_writer_whose_thread_has_ended_says_so_to_all_who_wait() -> None:
    with writing(Dying()) as writer:
        told = await asyncio.gather(*[writer.commit("x\n") for _ in range(3)])
        assert told == ["its writer has ended"] * 3
        assert writer.failure == "its writer has ended"
        assert await writer.commit("y\n") == "its writer has ended"
        writer.write("z\n")
        assert writer.lost == 1


async def test_a_write_that_does_not_return_is_a_failure() -> None:
    """As a pipe that nobody reads."""
    kept = Fickle()
    with writing(kept, stalled=0.0) as writer:
        writer.flush(PATIENCE)
        kept.open.clear()
        waiting = writer.commit("x\n")
        assert await asyncio.to_thread(kept.begun.wait, PATIENCE)
        assert writer.failure == "a write does not return"
        assert await writer.commit("y\n") == "a write does not return"
        kept.open.set()
        assert await waiting == ""
    assert b"".join(kept.data) == b"x\n"


@pytest.mark.parametrize("place", ["/dev/full", "missing/audit"])
def test_a_file_that_can_take_nothing_is_known_before_the_first_line(
    place: str, tmp_path: Path
) -> None:
    with writing(File(tmp_path / place)) as writer:
        writer.flush(PATIENCE)
        assert writer.failure
