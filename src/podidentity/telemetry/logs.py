"""The standard library's log, written as our lines, with all others of the process, in order."""

from __future__ import annotations

import logging

from podidentity.telemetry.direct_log import line_of
from podidentity.telemetry.lines import Form, Format, Stamps, form_of
from podidentity.telemetry.writer import Destination, Stream, Writer

_NOISY = ("httpx2", "httpcore2", "asyncio")
_STDERR = 2


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
