from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import pytest

from podidentity.telemetry import Format, configure, fields
from podidentity.telemetry.writing import Writer


class Kept:
    """A destination in memory, which first has its writer write."""

    def __init__(self) -> None:
        self.data = b""
        self.writer: Writer

    def write(self, data: bytes) -> None:
        self.data += data

    def reopen(self) -> None:
        pass

    def getvalue(self) -> str:
        self.writer.flush()
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
    kept.writer.close()
    root.handlers[:] = handlers
    root.setLevel(level)


LOG = logging.getLogger("podidentity.request")


def test_a_line_for_people_has_the_time_the_message_and_fields(write: Write) -> None:
    stream = write("text")
    LOG.info("token given", extra=fields(status=200, pod="orders-0", reason=None, proof=""))
    time, rest = stream.getvalue().split(" ", 1)
    assert rest == "INFO token given status=200 pod=orders-0\n"
    assert time.endswith("Z")
    assert len(time) == len("2026-11-25T12:00:00.123Z")


def test_a_line_for_machines_is_one_json_object(write: Write) -> None:
    stream = write("json")
    LOG.warning("%s refused", "it", extra=fields(status=403, ms=0.25, resource="https://x/\n"))
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
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
    LOG.info("refused %s", evil, extra=fields(resource=evil))
    written = stream.getvalue()
    assert len(written.splitlines()) == 1
    assert "\x1b" not in written
    assert 'pod="x"' not in written.replace('\\"', "")


def test_a_value_with_spaces_or_quotes_is_quoted(write: Write) -> None:
    stream = write("text")
    LOG.info("x", extra=fields(a="b c", d='e"f', g="h=i"))
    assert stream.getvalue().endswith(r'INFO x a="b c" d="e\"f" g="h=i"' + "\n")


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


def test_an_error_is_written_at_once(write: Write) -> None:
    stream = write("text")
    LOG.error("the end is near")
    assert stream.data.endswith(b"ERROR the end is near\n")


def test_the_http_clients_own_lines_are_left_out(write: Write) -> None:
    stream = write("text")
    logging.getLogger("httpx2").info("GET http://169.254.169.254/")
    logging.getLogger("podidentity.watch").info("kept")
    assert "GET" not in stream.getvalue()
    assert "kept" in stream.getvalue()
