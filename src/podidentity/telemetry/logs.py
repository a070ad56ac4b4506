"""The standard library's log, written as our lines, with all others of the process, in order.

A process that forks has no thread: it writes its lines at once.
"""

from __future__ import annotations

import logging
import os
import select
from contextlib import suppress

from podidentity.telemetry.lines import (
    Destination,
    Form,
    Format,
    Said,
    Stamps,
    Stream,
    Writer,
    form_of,
)

_NOISY = ("httpx2", "httpcore2", "asyncio")
_STDERR = 2
_PLAIN = logging.Formatter()


def configure(
    form: Format, *, verbose: bool = False, destination: Destination | None = None
) -> Writer:
    """Send all log lines of this process to `destination` (stderr) in this form.

    Close the writer at the end: it has what was not written yet.
    """
    writer = Writer(destination or Stream(_STDERR), name="log")
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        handlers=[LineHandler(writer, form_of(form))],
        force=True,
    )
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    return writer


class LineHandler(logging.Handler):
    """Writes log records as lines."""

    def __init__(self, writer: Writer, form: Form) -> None:
        super().__init__()
        self._writer = writer
        self._form = form
        self._stamps = Stamps()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; one of an error is written at once, and nobody waits for it."""
        try:
            self._writer.write(line_of(record, self._form, self._stamps))
        except Exception:  # noqa: BLE001 - logging's way: a bad argument of one line is told
            self.handleError(record)
        if record.levelno >= logging.ERROR:
            self._writer.hurry()


def configure_unthreaded(form: Format, *, verbose: bool = False) -> None:
    """Send all log lines of this process to stderr, for a process that forks and has no thread."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        handlers=[DirectHandler(form_of(form))],
        force=True,
    )


class DirectHandler(logging.Handler):
    """Writes each record to stderr at once; loses it rather than wait for a pipe that is full."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form
        self._stamps = Stamps()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = line_of(record, self._form, self._stamps)
        except Exception:  # noqa: BLE001 - logging's way: a bad argument of one line is told
            self.handleError(record)
            return
        with suppress(OSError, ValueError):
            if select.select([], [_STDERR], [], 0)[1]:
                # Not longer than what a pipe takes at once where it takes anything.
                os.write(_STDERR, line.encode(errors="backslashreplace")[: select.PIPE_BUF])


def line_of(record: logging.LogRecord, form: Form, stamps: Stamps) -> str:
    said = Said(record.levelname, record.name, record.getMessage())
    trace = _PLAIN.formatException(record.exc_info) if record.exc_info else ""
    return form.line(stamps.at(record.created), said, trace)
