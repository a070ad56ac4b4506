"""The log of a process that forks: written at once, by no thread, and with no event loop loaded."""

from __future__ import annotations

import logging
import os
import select
from contextlib import suppress

from podidentity.telemetry.lines import Form, Format, Said, Stamps, form_of

_STDERR = 2
_PLAIN = logging.Formatter()


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
        """Write a record."""
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
    """Return a log record as a line."""
    said = Said(record.levelname, record.name, record.getMessage())
    trace = _PLAIN.formatException(record.exc_info) if record.exc_info else ""
    return form.line(stamps.at(record.created), said, trace)
