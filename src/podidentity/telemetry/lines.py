"""Lines of the log and of the audit log: how they look, and the thread that writes them.

A line is a message and fields, for people or for machines. Values that came from others are quoted,
so that nobody writes a line of his own into the log. No token is ever a field: callers have nothing
of that name to give, and a test looks for one in everything that is written.

No request waits for a disk. `Writer.write` appends a line to a queue and returns; the thread writes
what has gathered in some milliseconds at once. Lines that cannot be written are kept while there is
room, and tried again; then the newest are lost, and counted.

`Writer.commit` is for lines that must be written before something else happens (group commit): its
future is done when the batch with the line is written, or cannot be. Batches follow each other at
once then, and lines gather while the one before is being written.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    import asyncio

Format = Literal["text", "json"]

TICK = 0.005
"""Seconds in which lines gather."""
RETRY = 1.0
"""Seconds between attempts where nothing can be written."""
ROOM = 16_384
"""Lines that wait at most; some 6 MB."""
STALLED = 1.0
"""Seconds after which a write that does not return is a failure: a pipe that nobody reads."""

_MODE = 0o600
_UNENCODABLE = "backslashreplace"
_PLAIN = re.compile(r"[\w./:@+…-]+", re.ASCII)


# How a line looks.


def present(values: Mapping[str, object]) -> dict[str, object]:
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


@dataclass(frozen=True, slots=True)
class Template:
    """A line that is the same each time but for when it was and how long it took.

    A pod asks for the same token again and again: all else of its lines is made once.
    """

    before: str
    between: str
    after: str

    def at(self, stamp: str, milliseconds: str) -> str:
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
        return Template("", f" {_words(said)} ms=", "\n")


class Json:
    """`{"time":"…","level":"info","logger":"podidentity.request","message":"token given",…}`."""

    def line(self, stamp: str, said: Said, trace: str = "") -> str:
        return f'{{"time":"{stamp}",{_members(said, trace)}}}\n'

    def template(self, said: Said) -> Template:
        return json_template(_members(said))


def json_template(members: str) -> Template:
    return Template('{"time":"', f'",{members},"ms":', "}\n")


def json_members(values: Mapping[str, object]) -> str:
    import msgspec  # the supervisor of `serve` and its log for people do without

    text = msgspec.json.encode(values, enc_hook=str).decode()
    if not text.isascii():
        # Beyond ASCII there are more ends of lines (U+2028) than JSON escapes.
        text = json.dumps(values, default=str, separators=(",", ":"))
    return text[1:-1]


class Stamps:
    """Times as text; what many lines share, the second and the millisecond, is written once."""

    def __init__(self) -> None:
        self._second = self._millisecond = -1
        self._text = self._stamp = ""

    def at(self, now: float) -> str:
        """Return `2026-11-25T12:00:00.123Z` for seconds since 1970."""
        millisecond = int(now * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            second, rest = divmod(millisecond, 1000)
            if second != self._second:
                self._second = second
                self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._stamp = f"{self._text}.{rest:03d}Z"
        return self._stamp


def form_of(form: Format) -> Form:
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


# The thread that writes lines.


class Destination(Protocol):
    """A file or a stream."""

    def write(self, data: memoryview) -> int:
        """Write `data`, or the first bytes of it; return how many. Raises OSError."""

    def probe(self) -> None:
        """Raise OSError if it is known that nothing can be written."""

    def reopen(self) -> None:
        """Close what is open; the next write opens it again, if it has a name."""


class Stream:
    """An open descriptor, such as stderr; it stays open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: memoryview) -> int:
        """Write `data`, or the first bytes of it; return how many. Raises OSError."""
        return os.write(self._descriptor, data)

    def probe(self) -> None:
        """Know nothing before a write."""

    def reopen(self) -> None:
        """Go on: a stream has no name to be opened by."""


class File:
    """A file that others may rename or remove at any time, as logrotate does.

    Another agent may append to it as well, during an update; so nothing is ever cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def write(self, data: memoryview) -> int:
        """Append `data`, or the first bytes of it, to the file that has the name now."""
        return os.write(self._open(), data)

    def probe(self) -> None:
        """Raise OSError if it cannot be opened, or has no room."""
        descriptor = self._open()
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode) and not os.fstatvfs(descriptor).f_bavail:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if stat.S_ISCHR(mode):
            os.write(descriptor, b"\n")

    def reopen(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        if self._descriptor >= 0 and not self._is_current():
            self.reopen()
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            self._descriptor = os.open(self._path, flags, _MODE)
        return self._descriptor

    def _is_current(self) -> bool:
        try:
            named = self._path.stat()
        except OSError:
            return False
        mine = os.fstat(self._descriptor)
        return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)


class _Commit(NamedTuple):
    """A line that somebody waits for."""

    line: str
    written: asyncio.Future[str]
    loop: asyncio.AbstractEventLoop


class Writer:
    """One destination and its thread. Close it when done.

    `lost` counts lines that were never written.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        name: str,
        room: int = ROOM,
        retry: float = RETRY,
        stalled: float = STALLED,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`tell` gets each change of the last attempt's failure, in the thread that writes."""
        self._destination = destination
        self._room = room
        self._retry = retry
        self._stalled = stalled
        self._tell = tell
        self._queue: deque[str | _Commit] = deque()
        self._batch: list[str | _Commit] = []
        self._rest = b""
        """Of a line of which the first bytes were written."""
        self._idle = True
        self._some = threading.Event()
        self._hurry = threading.Event()
        self._served = threading.Condition()
        self._asked = self._answered = 0
        self._moved = self._closing = self._ended = False
        self._error = ""
        """Why the last attempt failed; "" if it did not."""
        self._writing_since: float | None = None
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name=f"{name}-writer", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str:
        """Why nothing can be written just now; "" if it can be."""
        since = self._writing_since
        if self._ended:
            return "its writer has ended"
        if since is not None and time.monotonic() - since > self._stalled:
            return "a write does not return"
        return self._error

    def write(self, line: str) -> None:
        """Write a line, its end included, in a moment; lose it if there is no room."""
        queue = self._queue
        if len(queue) >= self._room or self._ended:
            self.lost += 1
            return
        queue.append(line)
        if self._idle:
            self._idle = False
            self._some.set()

    def commit(self, line: str) -> asyncio.Future[str]:
        """Write a line; the future's result is "" once it is written, else why it is not.

        A line that could not be written, or whose future was cancelled before, is given up: it is
        not written later. To be called in the event loop that waits.
        """
        # Not at the top: the supervisor, which has no event loop, has log lines, too.
        import asyncio

        loop = asyncio.get_running_loop()
        written: asyncio.Future[str] = loop.create_future()
        failure = self.failure or ("" if len(self._queue) < self._room else "too many lines wait")
        if failure:
            written.set_result(failure)
            return written
        self._queue.append(_Commit(line, written, loop))
        self._idle = False
        self.hurry()
        if self._ended:
            # The thread may have ended just before.
            self._give_up()
        return written

    def hurry(self) -> None:
        """Let the thread write what waits now, without waiting for it."""
        self._hurry.set()
        self._some.set()

    def flush(self, seconds: float = 1.0) -> None:
        """Return when all lines before this call have been written, or could not be.

        It blocks: not for an event loop.
        """
        with self._served:
            self._asked += 1
            mine = self._asked
            self.hurry()
            self._served.wait_for(lambda: self._answered >= mine or self._ended, seconds)

    def reopen(self) -> None:
        self._moved = True

    def close(self, seconds: float = 1.0) -> None:
        self._closing = True
        self.hurry()
        self._thread.join(seconds)

    # In the thread.

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self._ended = True
            self._give_up()
            with self._served:
                self._served.notify_all()

    def _serve(self) -> None:
        # Whether it can be written at all is known before the first line comes.
        self._note(self._attempt())
        while not self._closing:
            self._some.wait()
            self._hurry.wait(TICK)
            self._some.clear()
            self._hurry.clear()
            asked, self._idle = self._asked, True
            self._write_all()
            with self._served:
                self._answered = asked
                self._served.notify_all()
            if self._error and not self._closing:
                self._hurry.wait(self._retry)
                self._some.set()
        self._write_all()
        self._destination.reopen()

    def _write_all(self) -> None:
        """Write what waits; what could not be written before comes first."""
        while True:
            if not self._error:
                waiting, take = len(self._queue), self._queue.popleft
                self._batch += [take() for _ in range(min(waiting, self._room - len(self._batch)))]
            if not (self._batch or self._error):
                return
            self._note(self._attempt())
            if self._error:
                return

    def _note(self, error: str) -> None:
        if error != self._error:
            self._error = error
            self._tell(error)

    def _attempt(self) -> str:
        """Write the batch; return why not all of it could be written, "" if it was."""
        # At once where nobody waits for a line: one by one costs a tenth of a request's CPU.
        batch, plain = self._batch, True
        try:
            lines = "".join(cast("list[str]", batch)).encode(errors=_UNENCODABLE)
        except TypeError:
            plain = False
            batch = [each for each in batch if isinstance(each, str) or not each.written.done()]
            lines = b"".join(map(_encoded, batch))
        data = memoryview(self._rest + lines)
        written, failure = 0, ""
        self._writing_since = time.monotonic()
        try:
            if self._moved:
                self._moved = False
                self._destination.reopen()
            if not data:
                self._destination.probe()
            while written < len(data):
                written += self._destination.write(data[written:])
        except OSError as error:
            failure = error.strerror or type(error).__name__
        finally:
            self._writing_since = None
        if plain and not failure:
            self._rest, self._batch = b"", []
        else:
            self._finish(batch, list(map(_encoded, batch)), written, failure)
        return failure

    def _finish(
        self, batch: list[str | _Commit], lines: list[bytes], written: int, failure: str
    ) -> None:
        """Keep what is left of a batch of which so many bytes were written."""
        pieces: list[tuple[str | _Commit | None, bytes]] = [(None, self._rest)]
        pieces += zip(batch, lines, strict=True)
        self._rest, self._batch = b"", []
        whole: list[_Commit] = []
        failed: list[_Commit] = []
        for each, data in pieces:
            begun = min(written, len(data))
            written -= begun
            if isinstance(each, _Commit):
                (whole if begun == len(data) else failed).append(each)
            if begun < len(data):
                if begun or each is None:
                    # A line that has begun is ended later, even if nobody waits for it any more.
                    self._rest = data[begun:]
                elif isinstance(each, str):
                    self._batch.append(each)
        _resolve(whole, "")
        _resolve(failed, failure)

    def _give_up(self) -> None:
        """Tell those who wait that nothing will be written any more."""
        waiting: list[_Commit] = [each for each in self._batch if isinstance(each, _Commit)]
        while self._queue:
            with suppress(IndexError):
                each = self._queue.popleft()
                if isinstance(each, _Commit):
                    waiting.append(each)
        _resolve(waiting, "its writer has ended")


def _resolve(commits: Iterable[_Commit], failure: str) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[str]]] = {}
    for each in commits:
        by_loop.setdefault(each.loop, []).append(each.written)
    for loop, written in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(_set_results, written, failure)


def _set_results(written: list[asyncio.Future[str]], failure: str) -> None:
    for each in written:
        if not each.done():
            each.set_result(failure)


def _encoded(each: str | _Commit) -> bytes:
    line = each if isinstance(each, str) else each.line
    return line.encode(errors=_UNENCODABLE)
