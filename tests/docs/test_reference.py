"""The reference pages are complete: an undocumented flag or command fails here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from podidentity.cli.main import podidentity
from podidentity_sandbox.cli import sandbox
from tests.docs import rights
from tests.docs.blocks import ROOT
from tests.docs.flags import PAGES as FLAGS
from tests.docs.flags import written

PAGES = {
    name: (ROOT / f"docs/reference/{name}.md").read_text()
    for name in ("cli", "mic", "nmi", "rights", "sandbox")
}


def commands(group: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield all commands below one and itself, groups too."""
    yield path, group
    if not isinstance(group, click.Group):
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        _, found, _ = group.resolve_command(context, [name])
        assert found is not None, name
        yield from commands(found, f"{path} {name}")


def page_of(path: str) -> str:
    words = path.split()
    if words[1:2] and words[1] in {"net", "serve"}:
        return "nmi"
    return words[1] if words[1:2] and words[1] in {"mic", "nmi", "rights", "sandbox"} else "cli"


WITH_GROUPS = {
    **dict(commands(podidentity, "podidentity")),
    **dict(commands(sandbox, "podidentity sandbox")),
}
ALL = {
    path: command
    for path, command in WITH_GROUPS.items()
    if not isinstance(command, click.Group) or command.invoke_without_command
}
OPTIONS = sorted(
    (path, word)
    for path, command in ALL.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.hidden
    for word in (*option.opts, *option.secondary_opts)
    if word not in {"--help", "-h", "--version", "--kubeconfig", "--context", "--name"}
)


def test_there_is_something_to_be_complete_about() -> None:
    assert len(ALL) > 15
    assert len(OPTIONS) > 60


@pytest.mark.parametrize("path", sorted(ALL))
def test_each_command_is_on_its_reference_page(path: str) -> None:
    name = path.removeprefix("podidentity ") if "sandbox" in path else path
    assert f"`{name}" in PAGES[page_of(path)] or f"## {name}" in PAGES[page_of(path)]


@pytest.mark.parametrize(("path", "word"), OPTIONS)
def test_each_flag_is_on_the_reference_page_of_its_command(path: str, word: str) -> None:
    page = PAGES[page_of(path)]
    assert f"`{word}`" in page or f"`{word}/" in page or f"/{word}`" in page


@pytest.mark.parametrize("path", sorted(WITH_GROUPS))
def test_the_help_of_each_command_has_an_example(path: str) -> None:
    command = WITH_GROUPS[path]
    _, _, example = command.get_help(click.Context(command, info_name=path)).partition("Example")
    assert path in example


@pytest.mark.parametrize("page", FLAGS, ids=lambda page: page.stem)
def test_a_table_of_flags_is_that_of_the_settings(page: Path) -> None:
    """`scripts/reference` writes it."""
    assert page.read_text() == written(page)


def test_the_tables_of_rights_are_those_that_the_commands_have() -> None:
    """`scripts/reference` writes them."""
    page = rights.PAGE.read_text()
    assert page == rights.written(page)
