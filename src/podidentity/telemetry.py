"""What the agent writes about itself: log lines for people or for machines, one place for both.

A line is a message and fields. Values that came from others are quoted, so that nobody writes a
line of his own into the log. No token is ever a field: callers have nothing of that name to give,
and a test looks for one in everything that is written.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import msgspec

Format = Literal["text", "json"]

_PLAIN = re.compile(r"[\w./:@+…-]+", re.ASCII)
_NOISY = ("httpx2", "httpcore2", "asyncio")


def configure(form: Format, *, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send all log lines of this process to `stream` (stderr) in this form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True
    )
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Return the `extra` of a log call: fields without a value are left out."""
    return {"fields": {name: value for name, value in values.items() if value not in {None, ""}}}


class TextLines(logging.Formatter):
    """`2026-11-25T12:00:00.123Z INFO token given pod=shop/orders-0 status=200`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        parts = [_time(record), record.levelname, _one_line(record.getMessage())]
        parts += [f"{name}={_quoted(value)}" for name, value in _fields(record).items()]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """`{"time":"…","level":"info","logger":"podidentity.request","message":"token given",…}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = msgspec.json.encode(line, enc_hook=str).decode()
        # Beyond ASCII there are more ends of lines (U+2028) than JSON escapes.
        return text if text.isascii() else json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    found: Mapping[str, object] = getattr(record, "fields", {})
    return found


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else msgspec.json.encode(_one_line(text)).decode()
