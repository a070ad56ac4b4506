"""How a command fails: one line on stderr that names the cause and the next step.

Commands raise Failed with words for people. What they do not foresee of the system (a file that
cannot be read, a network that is away) is worded here, once for all.
"""

from __future__ import annotations

import click

INTERRUPTED = 130
"""128 + SIGINT, as shells count it."""


class Failed(click.ClickException):
    """The command could not do its work; exit code 1."""

    def __init__(self, cause: str, next_step: str = "") -> None:
        super().__init__(f"{cause.rstrip('.')}. {next_step}".rstrip())


def report(error: BaseException) -> int:
    """Say `error` on stderr and return the exit code; raise what is a defect of this program."""
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
        click.echo(f"error: {_worded(error)}", err=True)
        return 1
    raise error


def _worded(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {what}." if error.filename else f"{what}."
