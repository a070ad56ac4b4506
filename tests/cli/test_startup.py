"""What starting a command costs: the modules that it loads (`bench.startup`: the time)."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator

import click
import pytest

from podidentity.cli import main
from podidentity_sandbox import cli as sandbox

COMPLETING = {"COMP_WORDS": "podidentity sandbox e", "COMP_CWORD": "2"}
"""As bash asks, with the variable that click reads."""
HEAVY = {
    *("aiohttp", "azure", "cryptography", "httptools", "httpx2", "lightkube", "msgspec", "yaml"),
    *("asyncio", "email", "http", "importlib.metadata", "logging", "ssl", "subprocess"),
}
"""Each takes milliseconds; all of them together are a quarter of a second."""
NETWORK = {"aiohttp", "azure", "cryptography", "httpx2", "lightkube"}
"""What only a command that speaks with a server needs."""
SANDBOX = {*NETWORK, "asyncio", "importlib.metadata", "logging", "msgspec", "yaml"}
"""What the sandbox's daily commands do without: their client is the standard library's."""

OTHERS = {"nmi", "net", "serve", "mic", "sandbox"}
"""The first four read their flags in a child; one has commands."""
GROUPS = (("exception", "add"), ("explain", "pod"), ("migrate", "plan"))

_SHOW = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"


def loaded(*arguments: str, **variables: str) -> set[str]:
    """Return the modules, and the packages of them, that a command line has loaded at its end."""
    script = f"{_SHOW}; sys.argv[1:] = {arguments!r}; from podidentity.__main__ import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    names = ran.stderr.splitlines()[-1].split()
    assert "click" in names
    return {*names, *(name.partition(".")[0] for name in names)}


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_first_things_that_one_asks_load_no_library_but_click(flag: str) -> None:
    assert not HEAVY & loaded(flag)
    assert not HEAVY & loaded("sandbox", "--help")


def test_completion_of_commands_loads_no_library_but_click() -> None:
    assert not HEAVY & loaded(_PODIDENTITY_COMPLETE="bash_complete", **COMPLETING)


@pytest.mark.parametrize("name", [name for name in main._COMMANDS if name not in OTHERS])
def test_help_of_a_command_loads_no_library_but_click(name: str) -> None:
    assert not HEAVY & loaded(name, "--help")


@pytest.mark.parametrize("words", GROUPS, ids=" ".join)
def test_help_of_a_command_of_a_group_loads_no_library_but_click(words: tuple[str, ...]) -> None:
    assert not HEAVY & loaded(*words, "--help")


def test_completion_of_options_loads_no_library_but_click() -> None:
    line = {"COMP_WORDS": "podidentity enable --no", "COMP_CWORD": "2"}
    assert not HEAVY & loaded(_PODIDENTITY_COMPLETE="bash_complete", **line)


@pytest.mark.parametrize("name", ["up", "down"])
def test_help_of_a_command_that_makes_a_sandbox_loads_nothing_that_makes_it(name: str) -> None:
    assert not (NETWORK | {"asyncio", "http"}) & loaded("sandbox", name, "--help")


@pytest.mark.parametrize("name", ["exec", "get", "apply", "logs", "env", "part"])
def test_the_sandbox_s_daily_commands_load_no_library_but_click(name: str) -> None:
    assert not SANDBOX & loaded("sandbox", name, "--help")


def table_and_group() -> Iterator[tuple[str, str, click.Command]]:
    """Yield each command that a table names, with what the table says, and the command."""
    groups: Iterable[tuple[click.Group, dict[str, tuple[str, str]]]] = (
        (main.podidentity, main._COMMANDS),
        (sandbox.sandbox, sandbox._COMMANDS),
    )
    for group, table in groups:
        for name, (_, summary) in table.items():
            _, command, _ = group.resolve_command(click.Context(group), [name])
            assert command is not None
            yield name, summary, command


def test_the_list_of_commands_says_of_each_the_first_sentence_of_its_help() -> None:
    for name, summary, command in table_and_group():
        assert command.help is not None, name
        first = inspect.cleandoc(command.help).partition("\n\n")[0]
        assert summary in {" ".join(first.split()), ""}, name
