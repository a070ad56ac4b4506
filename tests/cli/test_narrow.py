"""On a terminal of 60 or 80 columns no line is longer, and nothing is lost; elsewhere no colour."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator

import click
import pytest

from podidentity.cli import main
from tests.cli.binding import Run
from tests.cli.ids import IDENTITY
from tests.cli.test_migrate import bound
from tests.cli.world import World

ESCAPE = "\x1b"


@pytest.fixture
def shop(world: World, podidentity: Run) -> str:
    """A namespace with one of everything that is listed, of long names."""
    name = world.namespace(f"a-shop-of-the-{uuid.uuid4().hex[:8]}")
    given = ("--identity-resource-id", IDENTITY, "--client-id", str(uuid.uuid4()), "--no-attach")
    assert podidentity("add", "-n", name, "--name", "orders-of-yesterday", *given).code == 0
    bound(world, name, "nobody-may", str(uuid.uuid4()))
    world.pod(name, "web", {"aadpodidbinding": "nobody-may"})
    exception = ("--name", "meter-of-the-power", "--pod-labels", "app=meter-of-the-power")
    assert podidentity("exception", "add", "-n", name, *exception).code == 0
    return name


def commands(shop: str) -> Iterator[list[str]]:
    yield ["list", "-n", shop]
    yield ["list", "--grants", "-n", shop]
    yield ["exception", "list", "-n", shop]
    yield ["explain", "pod", f"{shop}/web"]
    yield ["check"]
    yield ["version"]
    yield ["rights"]


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))


def letters(text: str) -> Counter[str]:
    return Counter("".join(click.unstyle(text).split()))


def breakable(line: str, columns: int) -> bool:
    """Whether a line is too long, and could have ended before its last word."""
    plain = click.unstyle(line)
    words = plain.split()
    return len(plain) > columns and len(words) > 1 and len(words[-1]) < columns


@pytest.mark.parametrize("columns", [60, 80])
def test_no_line_is_longer_than_the_terminal_and_nothing_is_lost(
    shop: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    for words in commands(shop):
        piped = podidentity(*words)
        assert ESCAPE not in piped.out + piped.err, words
        with monkeypatch.context() as terminal:
            on_terminal(terminal, columns)
            shown = podidentity(*words)
        assert shown.code == piped.code
        # Sentences with a command to copy are the terminal's to wrap.
        sentences = (f"{shop}/", "Refused (")
        lines = [line for line in shown.out.splitlines() if not line.startswith(sentences)]
        assert [line for line in lines if breakable(line, columns)] == [], words
        assert letters(piped.out) - letters(shown.out) == Counter(), words
        assert shown.err == piped.err


@pytest.mark.parametrize("words", [[], ["enable"], ["add"], ["check"], ["migrate", "apply"]])
def test_help_fits_60_columns(
    podidentity: Run, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    on_terminal(monkeypatch, 60)
    text = podidentity(*words, "--help").out.partition("Examples:")[0]
    assert [line for line in text.splitlines() if breakable(line, 60)] == []


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
    ids=str,
)
def test_colours_are_for_a_terminal_and_whoever_wants_them(
    podidentity: Run, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], coloured: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def speaks() -> None:
        click.echo(click.style("red", fg="red"))
        click.echo(click.style("red", fg="red"), err=True)

    monkeypatch.setattr(main, "_imported", lambda _: click.Command("list", callback=speaks))
    on_terminal(monkeypatch, 80)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ran = podidentity("list")
    assert (ESCAPE in ran.out, ESCAPE in ran.err) == (coloured, coloured)


def test_a_pipe_that_nobody_reads_on_is_no_traceback(world: World) -> None:
    """As behind `head`."""
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [sys.executable, "-m", "podidentity", "--help"],
        check=False,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **world.environment},
    )
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (1, "")
