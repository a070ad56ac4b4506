from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from podidentity.telemetry.lines import Format, Said, Writer, form_of
from podidentity.telemetry.logs import configure


class Kept:
    """A destination in memory, which first has its writer write."""

    def __init__(self) -> None:
        self.data = b""
        self.writer: Writer
        self.written = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def write(self, data: memoryview) -> int:
        self.data += data
        self.written.set()
        self.open.wait()
        return len(data)

    def probe(self) -> None:
        pass

    def reopen(self) -> None:
        pass

    def getvalue(self) -> str:
        self.writer.flush(60)
        return self.data.decode()


Write = Callable[[Format], Kept]


@pytest.fixture
def write() -> Iterator[Write]:
    """Configure the process's log, and put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    kept = Kept()

    def begin(form: Format) -> Kept:
        kept.writer = configure(form, destination=kept)
        return kept

    yield begin
    kept.writer.close(60)
    root.handlers[:] = handlers
    root.setLevel(level)


LOG = logging.getLogger("podidentity.request")


STAMP = "2026-11-25T12:00:00.123Z"


def line_of(form: Format, message: str, **more: object) -> str:
    return form_of(form).line(STAMP, Said("WARNING", LOG.name, message, more))


def test_a_line_for_people_has_the_time_and_the_message(write: Write) -> None:
    stream = write("text")
    LOG.info("%s given", "token")
    time, rest = stream.getvalue().split(" ", 1)
    assert rest == "INFO token given\n"
    assert time.endswith("Z")
    assert len(time) == len(STAMP)


def test_a_line_for_people_has_the_fields_that_have_a_value() -> None:
    line = line_of("text", "token given", status=200, pod="orders-0", reason=None, proof="")
    assert line == f"{STAMP} WARNING token given status=200 pod=orders-0\n"


def test_a_line_for_machines_is_one_json_object(write: Write) -> None:
    stream = write("json")
    LOG.warning("%s refused", "it")
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "podidentity.request",
        "message": "it refused",
    }


def test_a_line_for_machines_has_the_fields_as_members() -> None:
    text = line_of("json", "it refused", status=403, ms=0.25, resource="https://x/\n", proof="")
    assert json.loads(text) == {
        "time": STAMP,
        "level": "warning",
        "logger": "podidentity.request",
        "message": "it refused",
        "status": 403,
        "ms": 0.25,
        "resource": "https://x/\n",
    }


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "evil", ["a\n2026-11-25T12:00:00.000Z INFO forged", "a\r\x1b[2J", "a\u2028b", 'a" pod="x', "é"]
)
def test_nobody_can_write_a_line_of_his_own(write: Write, form: Format, evil: str) -> None:
    stream = write(form)
    LOG.info("refused %s", evil)
    for written in (stream.getvalue(), line_of(form, f"refused {evil}", resource=evil)):
        assert len(written.splitlines()) == 1
        assert "\x1b" not in written
        assert 'pod="x"' not in written.replace('\\"', "")


def test_a_value_with_spaces_or_quotes_is_quoted() -> None:
    line = line_of("text", "x", a="b c", d='e"f', g="h=i")
    assert line.endswith(r'WARNING x a="b c" d="e\"f" g="h=i"' + "\n")


def defect() -> None:
    raise ValueError("defect\n2026-11-25T12:00:00.000Z INFO forged")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_kept_and_looks_like_no_line(write: Write, form: Format) -> None:
    stream = write(form)
    try:
        defect()
    except ValueError:
        LOG.exception("failed")
    written = stream.getvalue()
    assert "ValueError: defect" in written
    assert sum(line[:1] in {"2", "{"} for line in written.splitlines()) == 1


def test_an_error_is_written_at_once_and_its_thread_does_not_wait(write: Write) -> None:
    stream = write("text")
    stream.open.clear()
    LOG.error("the end is near")
    assert stream.written.wait(60)
    assert stream.data.endswith(b"ERROR the end is near\n")
    LOG.error("nobody reads this log")
    stream.open.set()
    assert "nobody reads" in stream.getvalue()


def test_the_http_clients_own_lines_are_left_out(write: Write) -> None:
    stream = write("text")
    logging.getLogger("httpx2").info("GET http://169.254.169.254/")
    logging.getLogger("podidentity.watch").info("kept")
    assert "GET" not in stream.getvalue()
    assert "kept" in stream.getvalue()
