from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from podidentity.telemetry import Format, configure, fields

Write = Callable[[Format], io.StringIO]


@pytest.fixture
def write() -> Iterator[Write]:
    """Configure the process's log, and put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()

    def begin(form: Format) -> io.StringIO:
        configure(form, stream=stream)
        return stream

    yield begin
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


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_kept(write: Write, form: Format) -> None:
    stream = write(form)
    try:
        int("defect")
    except ValueError:
        LOG.exception("failed")
    assert "ValueError: invalid literal" in stream.getvalue()


def test_the_http_clients_own_lines_are_left_out(write: Write) -> None:
    stream = write("text")
    logging.getLogger("httpx2").info("GET http://169.254.169.254/")
    logging.getLogger("podidentity.watch").info("kept")
    assert "GET" not in stream.getvalue()
    assert "kept" in stream.getvalue()
