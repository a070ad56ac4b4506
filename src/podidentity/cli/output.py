"""How commands print: tables for people, JSON and YAML for programs, examples in help, and errors.

Commands raise CommandError with a message for people. For errors of the system that no command
foresees (a file that cannot be read, a broken network), `report` finds the words.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import click

INTERRUPTED = 130
"""128 + SIGINT, the exit code that shells expect."""


class CommandError(click.ClickException):
    """The command could not do its work; exit code 1.

    Its words may be a tenant's: what a field of an object says, or a server of it.
    """

    def __init__(self, cause: str, next_step: str = "") -> None:
        super().__init__(printable(f"{cause.rstrip('.')}. {next_step}".rstrip()))


def report(error: BaseException) -> int:
    """Print `error` on stderr and return the exit code; raise it again if it is no known kind."""
    if isinstance(error, click.UsageError):
        error.show()
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        click.echo(f"error: {error.format_message()}", err=True)
        return error.exit_code
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{what}.", err=True)
        return 1
    raise error


def of_a_fault(error: Exception, *, debug: bool) -> CommandError:
    """Return a sentence for an error that no command foresees.

    `debug` prints the traceback. Otherwise it goes to a file, without the messages of the errors:
    a library's message may quote a token.
    """
    import tempfile
    import traceback

    def frames(error: BaseException) -> Iterator[str]:
        yield f"{type(error).__module__}.{type(error).__qualname__}\n"
        yield from traceback.format_tb(error.__traceback__)
        parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        for each in (*parts, error.__cause__ or error.__context__):
            if each is not None:
                yield from frames(each)

    place = traceback.extract_tb(error.__traceback__)[-1]
    kept = "in no file, because none can be written"
    if debug:
        traceback.print_exception(error)
        kept = "above"
    else:
        with (
            suppress(OSError),
            tempfile.NamedTemporaryFile("w", prefix="podidentity-", delete=False) as file,
        ):
            file.writelines(frames(error))
            kept = f"in {file.name}"
    return CommandError(
        "podidentity met an error that it does not expect: "
        f"{type(error).__name__} in {place.filename}, line {place.lineno}",
        f"The traceback is {kept}. podidentity --debug COMMAND prints it with the error's message, "
        "which may hold a secret.",
    )


def printable(text: str) -> str:
    """Return a text with what a terminal obeys, or shows elsewhere, escaped; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode()
        for each in text
    )


FORMATS = ("table", "json", "yaml")


def output_option(
    *formats: str, default: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        default=default,
        show_default=True,
        help="Format of the output.",
    )


def data(value: object, output: str) -> str:
    """Return `value` (of JSON's types) as `json` or `yaml`, what a terminal obeys escaped."""
    if output == "json":
        return "".join(
            each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1]
            for each in json.dumps(value, indent=2, ensure_ascii=False)
        )
    import yaml  # the agent imports this module too, and must not load PyYAML

    told = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    if not told.replace("\n", "").isprintable():
        told = yaml.safe_dump(value, sort_keys=False)
    return told.rstrip("\n")


def documents(values: Sequence[Any], output: str) -> str:
    if output == "json":
        return data({"apiVersion": "v1", "kind": "List", "items": list(values)}, output)
    return "\n---\n".join(data(value, output) for value in values)


_GAP = "   "
_LEAST = 20
"""Columns below which the last cell is not wrapped: it would be a column of words."""
_PART = re.compile(r"(\s+|(?<=/)(?=[^/\s]))")
"""Where a line may end: at spaces, and within the id of a resource."""


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    width: int = 0,
    paint: Callable[[str], str] = str,
) -> str:
    """Return rows in columns, as kubectl prints them.

    The last column is wrapped so that lines have at most `width` columns; 0: no line is wrapped.
    Where the others leave it no room, each row is told cell by cell, one below the other.
    `paint` gets the text of each cell of the other columns, and returns it coloured. What a
    terminal obeys is escaped, and a cell has one line: others may have written what is in it.
    """
    rows = [tuple(printable(cell).replace("\n", " ") for cell in row) for row in rows]
    lines = [tuple(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    indent = sum(each + len(_GAP) for each in widths)
    longest = max(len(part) for line in lines for part in _PART.split(line[-1]))
    if width and width - indent < max(_LEAST, longest):
        return "\n\n".join(_cell_by_cell(head, row, width, paint) for row in rows)
    wrapper = _wrapper(width - indent)
    printed = []
    for *cells, last in lines:
        padded = [
            paint(cell) + " " * (size - len(cell)) for cell, size in zip(cells, widths, strict=True)
        ]
        parts = wrapper.wrap(last) if width else [last]
        printed.append(_GAP.join([*padded, parts[0] if parts else ""]).rstrip())
        printed += [" " * indent + part for part in parts[1:]]
    return "\n".join(printed)


def _cell_by_cell(
    head: Sequence[str], row: Sequence[str], width: int, paint: Callable[[str], str]
) -> str:
    size = max(map(len, head)) + len(_GAP)
    printed = []
    for number, (name, cell) in enumerate(zip(head, row, strict=True), 1):
        first, *more = _wrapper(max(width - size, 1)).wrap(cell) or [""]
        if max(map(len, (first, *more))) > width - size:  # a word that fits below its name alone
            printed.append(name)
            printed += [f"  {part}" for part in _wrapper(max(width - 2, 1)).wrap(cell)]
            continue
        shown = first if number == len(row) else paint(first)
        printed.append(f"{name:<{size}}{shown}".rstrip())
        printed += [" " * size + part for part in more]
    return "\n".join(printed)


def _wrapper(width: int) -> textwrap.TextWrapper:
    made = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    made.wordsep_simple_re = _PART
    return made


def terminal_width() -> int:
    """Return the columns of the terminal that stdout is; 0 if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def ask_first(question: str, otherwise: str = "") -> None:
    """Raise CommandError, with the next step `otherwise`, unless a person says yes.

    An event loop that runs meanwhile would take the first Ctrl-C for itself, and only note it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        agreed = click.confirm(question)
    finally:
        signal.signal(signal.SIGINT, before)
    if not agreed:
        raise CommandError("Nothing was changed", otherwise)


def examples(*lines: str) -> str:
    """Return the examples at the end of a command's help; click does not wrap their lines."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
