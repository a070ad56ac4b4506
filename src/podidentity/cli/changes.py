"""What a command has begun to change, so that one that is interrupted can say how things stand.

Whether a change was made whose answer nobody waited for is not known: so it is named. What goes on
by itself is said, too, and then nobody needs to run anything again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import click


@dataclass(slots=True)
class CommandChanges:
    """The changes of one run of a command."""

    begun: bool = False
    """Whether any was asked for."""
    unanswered: list[str] = field(default_factory=list)
    """Those whose answer nobody waited for, in the words of `wire.kube.request_in_words`."""
    by_itself: str = ""
    """What goes on although the command ended, as a sentence; "" while something is to be done."""


_OF_THIS_RUN: ContextVar[CommandChanges] = ContextVar("changes")


@contextmanager
def recorded() -> Iterator[CommandChanges]:
    made = CommandChanges()
    token = _OF_THIS_RUN.set(made)
    try:
        yield made
    finally:
        _OF_THIS_RUN.reset(token)


@contextmanager
def changing(what: str) -> Iterator[None]:
    """Record that the block makes the change `what`, outside of a command nowhere."""
    changes = _OF_THIS_RUN.get(CommandChanges())
    changes.begun = True
    try:
        yield
    except Exception:
        raise
    except BaseException:  # a cancellation, whose class is asyncio's, which help does not load
        changes.unanswered.append(what)
        raise


@contextmanager
def only_waiting(by_itself: str) -> Iterator[None]:
    """Record, if the block is interrupted, that all is changed, and what goes on by itself."""
    try:
        yield
    except Exception:
        raise
    except BaseException:  # as above
        _OF_THIS_RUN.get(CommandChanges()).by_itself = by_itself
        raise


def say_unfinished(
    command: str, changes: CommandChanges, undo: Callable[[Sequence[str]], str]
) -> None:
    """Say how things stand after a command that changes something was interrupted.

    `undo` returns, given the changes without an answer, the command lines that take all of it back.
    """
    if not changes.begun:
        click.echo("Nothing was changed.", err=True)
        return
    for each in changes.unanswered:
        click.echo(f"Perhaps done, for nobody waited for the answer: {each}", err=True)
    said = changes.by_itself or unfinished(command, undo(changes.unanswered))
    click.echo(said, err=True)


def unfinished(command: str, undo: str) -> str:
    """Return what to do about a command that did not finish; `undo` are command lines, or ""."""
    again = f"{command} did not finish. Run it again: it goes on."
    return f"{again} To take all of it back:\n{undo}" if undo else again
