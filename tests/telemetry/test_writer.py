"""Lines through a real thread, into real files and into destinations that fail as told."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podidentity.telemetry.writing import Destination, File, Stream, Writer


class Fickle:
    """Fails as long as it is told to."""

    def __init__(self, *failures: OSError) -> None:
        self.failures = list(failures)
        self.data: list[bytes] = []
        self.open = threading.Event()
        self.open.set()

    def write(self, data: bytes) -> None:
        self.open.wait()
        if self.failures:
            raise self.failures[0]
        self.data.append(data)

    def reopen(self) -> None:
        pass


@contextmanager
def writing(destination: Destination, **options: object) -> Iterator[Writer]:
    writer = Writer(destination, name="test", retry=3600, **options)  # type: ignore[arg-type]
    try:
        yield writer
    finally:
        writer.close()


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
        writer.flush()
        assert b"".join(kept.data) == b"a\n"


def test_what_cannot_be_written_is_kept_tried_again_and_told_once() -> None:
    told: list[str] = []
    kept = Fickle(FULL)
    with writing(kept, tell=told.append) as writer:
        writer.write("a\n")
        writer.flush()
        writer.write("b\n")
        writer.flush()
        assert writer.failure == "No space left on device"
        kept.failures.clear()
        writer.flush()
        assert b"".join(kept.data) == b"a\nb\n"
        assert writer.failure == ""
    assert told == ["No space left on device", ""]
    assert writer.lost == 0


def test_without_room_the_newest_lines_are_lost_and_counted() -> None:
    kept = Fickle(FULL)
    with writing(kept, room=3) as writer:
        writer.write("0\n")
        writer.flush()
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
        writer.flush()
        path.rename(moved)
        writer.write("b\n")
        writer.flush()
        path.unlink()
        writer.write("c\n")
        writer.reopen()
    assert (moved.read_text(), path.read_text()) == ("a\n", "c\n")


def test_a_folder_that_is_missing_is_known_at_once_and_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    with writing(File(folder / "audit")) as writer:
        writer.flush()
        assert writer.failure == "No such file or directory"
        folder.mkdir()
        writer.write("a\n")
    assert (folder / "audit").read_text() == "a\n"


FILL = """
import resource, sys
from pathlib import Path
from podidentity.telemetry.writing import File, Writer

resource.setrlimit(resource.RLIMIT_FSIZE, (10_050, 20_000))
writer = Writer(File(Path(sys.argv[1])), name="audit", retry=3600)
for _ in range(150):
    writer.write("x" * 99 + "\\n")
    writer.flush()
print(writer.failure)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
writer.close()
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
        writer.flush()
        assert writer.failure == "No space left on device"


def test_a_stream_stays_open(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        with writing(Stream(file.fileno())) as writer:
            writer.write("a\n")
        assert not file.closed
        file.write("b\n")
    assert (tmp_path / "log").read_text() == "a\nb\n"
