"""Log lines for people or for machines, one place for both.

A line is a message and fields. Values that came from others are quoted, so that nobody writes a
line of his own into the log. No token is ever a field: callers have nothing of that name to give,
and a test looks for one in everything that is written.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

Format = Literal["text", "json"]

_PLAIN = re.compile(r"[\w./:@+…-]+", re.ASCII)


def present(values: Mapping[str, object]) -> dict[str, object]:
    """Return the fields that have a value."""
    return {name: value for name, value in values.items() if value is not None and value != ""}


class Said(NamedTuple):
    """What a line says."""

    level: str
    """`INFO`, `WARNING`, …"""
    logger: str
    """Who says it, as the standard library names them."""
    message: str
    more: Mapping[str, object] = {}
    """Fields."""


class Template(NamedTuple):
    """A line that is the same each time but for when it was and how long it took.

    A pod asks for the same token again and again: all else of its lines is made once.
    """

    before: str
    between: str
    after: str

    def at(self, stamp: str, milliseconds: str) -> str:
        """Return the line, its end included."""
        return f"{self.before}{stamp}{self.between}{milliseconds}{self.after}"


class Form(Protocol):
    """How lines look."""

    def line(self, stamp: str, said: Said, trace: str = "") -> str:
        """Return a line, its end included; `trace` is a traceback."""

    def template(self, said: Said) -> Template:
        """Return a line with the field `ms` at its end."""


class Text:
    """`2026-11-25T12:00:00.123Z INFO token given pod=shop/orders-0 status=200`."""

    def line(self, stamp: str, said: Said, trace: str = "") -> str:
        """Return a line, its end included; a traceback follows, set off from what are lines."""
        below = "".join(f"    {line}\n" for line in trace.splitlines())
        return f"{stamp} {_words(said)}\n{below}"

    def template(self, said: Said) -> Template:
        """Return a line with the field `ms` at its end."""
        return Template("", f" {_words(said)} ms=", "\n")


class Json:
    """`{"time":"…","level":"info","logger":"podidentity.request","message":"token given",…}`."""

    def line(self, stamp: str, said: Said, trace: str = "") -> str:
        """Return a line, its end included."""
        return f'{{"time":"{stamp}",{_members(said, trace)}}}\n'

    def template(self, said: Said) -> Template:
        """Return a line with the field `ms` at its end."""
        return json_template(_members(said))


def json_template(members: str) -> Template:
    """Return a line that is a JSON object of `time`, these members, and `ms`."""
    return Template('{"time":"', f'",{members},"ms":', "}\n")


def json_members(values: Mapping[str, object]) -> str:
    """Return the fields as members of a JSON object, without its braces."""
    import msgspec  # the supervisor of `serve` and its log for people do without

    text = msgspec.json.encode(values, enc_hook=str).decode()
    if not text.isascii():
        # Beyond ASCII there are more ends of lines (U+2028) than JSON escapes.
        text = json.dumps(values, default=str, separators=(",", ":"))
    return text[1:-1]


class Stamps:
    """Times as text; the second, which many lines share, is written once."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def at(self, now: float) -> str:
        """Return `2026-11-25T12:00:00.123Z` for seconds since 1970."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((now - second) * 1000):03d}Z"


def form_of(form: Format) -> Form:
    """Return how lines of that name look."""
    return Json() if form == "json" else Text()


def _members(said: Said, trace: str = "") -> str:
    head = {"level": said.level.lower(), "logger": said.logger, "message": said.message}
    return json_members({**head, **present(said.more), **present({"exception": trace})})


def _words(said: Said) -> str:
    more = present(said.more).items()
    pairs = "".join(f" {name}={_quoted(value)}" for name, value in more)
    return f"{said.level} {_one_line(said.message)}{pairs}"


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _quoted(value: object) -> str:
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    import msgspec

    return msgspec.json.encode(_one_line(text)).decode()
