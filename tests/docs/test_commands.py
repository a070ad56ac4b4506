"""What the documents have people type is what the program takes, also where no test can run it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from podidentity.cli.main import podidentity
from tests.docs.blocks import DOCUMENTS, ROOT, blocks_of

_ENDS = re.compile(r"^(?:[|;&]+|[0-9]?[<>].*|\)|`.*)$")
"""Words of the shell behind a command."""


def typed() -> Iterator[tuple[str, str]]:
    """Yield each line that begins with `podidentity`, in a block or as code, with its place."""
    for path in DOCUMENTS:
        name = str(path.relative_to(ROOT))
        for block in blocks_of(path):
            if block.language in {"sh", "bash"}:
                for line in block.text.replace("\\\n", " ").splitlines():
                    if line.startswith("podidentity "):
                        yield name, line
        text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        # What the program itself says, in sentences.
        text = re.sub(r"<!-- commands: .*?<!-- end of commands -->", "", text, flags=re.DOTALL)
        for found in re.findall(r"(?<!`)`(podidentity [^`\n]+)`", text):
            yield name, found


TYPED = sorted({(name, line) for name, line in typed() if "…" not in line})


def words_of(line: str) -> list[str]:
    """Return the words of the one command that a line begins with."""
    line = line.partition(" sh -c '")[0]  # a program of several lines
    lexer = shlex.shlex(line.partition(" #")[0], posix=True, punctuation_chars=";|&<>()")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if _ENDS.match(word):
            break
        words.append(word)
    return words[1:]


def wrong(words: list[str]) -> str:
    """Return what the program would not know of a command; "" if it knows all."""
    command: click.Command = podidentity
    context = click.Context(podidentity, info_name="podidentity", resilient_parsing=True)
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        _, found, _ = command.resolve_command(context, rest)
        if rest[0].isupper():
            return ""  # a word that stands for any
        if found is None:
            # A group that is a command as well may take an argument.
            return "" if command.invoke_without_command else f"no command {rest[0]}"
        command = found
        context = click.Context(command, info_name=rest.pop(0), parent=context)
    known = {"--help", "-h", "--version"} | {
        word
        for each in command.params
        if isinstance(each, click.Option)
        for word in (*each.opts, *each.secondary_opts)
    }
    for word in rest:
        if word == "--":
            break
        if word.startswith("--") and word.partition("=")[0] not in known:
            return f"no option {word}"
    return ""


@pytest.mark.parametrize(("name", "line"), TYPED)
def test_a_command_of_the_documents_is_one_of_the_program_with_its_options(
    name: str, line: str
) -> None:
    assert wrong(words_of(line)) == "", name


def test_there_are_commands_to_look_at_and_wrong_ones_are_seen() -> None:
    assert len(TYPED) > 100
    assert wrong(["enable", "--mic", "--no-such-flag"]) == "no option --no-such-flag"
    assert wrong(["no-such-command"]) == "no command no-such-command"
    assert wrong(words_of("podidentity enable --dry-run | kubectl --nonsense")) == ""
