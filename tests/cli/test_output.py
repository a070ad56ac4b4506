from __future__ import annotations

import json

import click
import pytest
import yaml
from click.testing import CliRunner

from podidentity.cli import output


def test_a_table_has_columns_as_wide_as_their_cells() -> None:
    lines = output.table(("A", "LONG"), [("wide cell", "x"), ("y", "")]).splitlines()
    assert lines == ["A           LONG", "wide cell   x", "y"]


RESOURCE = "/subscriptions/s/resourceGroups/g/providers/P/userAssignedIdentities/orders"


def test_on_a_terminal_the_last_column_is_wrapped_at_words_and_within_ids() -> None:
    rows = [("pod", "ok", "one two three four five six"), ("identity", "no", f"at {RESOURCE}")]
    assert output.table(("LINK", "", "WHAT"), rows, width=40).splitlines() == [
        "LINK            WHAT",
        "pod        ok   one two three four five",
        "                six",
        "identity   no   at /subscriptions/s/",
        "                resourceGroups/g/",
        "                providers/P/",
        "                userAssignedIdentities/",
        "                orders",
    ]
    assert len(output.table(("LINK", "", "WHAT"), rows).splitlines()) == 3


def test_where_the_last_column_has_no_room_each_row_is_told_cell_by_cell() -> None:
    head = ("NAMESPACE", "NAME", "STATE")
    rows = [("shop", "orders-of-yesterday", "bound, and used"), ("shop", "x", "")]
    told = output.table(head, rows, width=30, paint=lambda cell: click.style(cell, fg="red"))
    assert click.unstyle(told).splitlines() == [
        "NAMESPACE   shop",
        "NAME",
        "  orders-of-yesterday",
        "STATE       bound, and used",
        "",
        "NAMESPACE   shop",
        "NAME        x",
        "STATE",
    ]


def test_colours_make_no_column_wider() -> None:
    made = output.table(("A", "B"), [("no", "x")], paint=lambda cell: click.style(cell, fg="red"))
    assert click.unstyle(made) == "A    B\nno   x"
    assert "\x1b[31mno\x1b[0m   x" in made


def test_what_is_no_terminal_has_no_width(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.terminal_width() == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("answer", "agreed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_no_is_an_answer_and_no_interruption(answer: str, agreed: bool) -> None:
    @click.command()
    def command() -> None:
        output.ask_first("All of it?", "Leave it.")
        click.echo("done")

    ran = CliRunner().invoke(command, input=answer)
    assert (ran.exit_code, "done" in ran.output) == ((0, True) if agreed else (1, False))
    if not agreed:
        assert "Nothing was changed. Leave it." in ran.output


def test_documents_are_what_kubectl_takes() -> None:
    both = [{"kind": "A", "x": "ä"}, {"kind": "B"}]
    assert output.documents(both, "yaml") == "kind: A\nx: ä\n---\nkind: B"
    assert json.loads(output.documents(both, "json")) == {
        "apiVersion": "v1",
        "kind": "List",
        "items": both,
    }


SIGNS = ["\x1b", "\x9b", "\x07", "\r", "\x08", "\x7f", "\u202e", "\u2066", "\U000e0001"]
"""What a terminal obeys, or shows elsewhere."""


@pytest.mark.parametrize("sign", SIGNS)
def test_an_error_commands_no_terminal_whatever_an_object_says(sign: str) -> None:
    error = output.CommandError(
        f"AzureIdentity a/b names {sign}[2J", f"Choose {sign} another.\nSo."
    )
    assert sign not in error.format_message()
    assert error.format_message().endswith("another.\nSo.")


@pytest.mark.parametrize("sign", SIGNS)
def test_a_table_commands_no_terminal_and_a_cell_makes_no_row(sign: str) -> None:
    rows = [(f"a{sign}b", f"c{sign}d\nkube-system   nmi   ready")]
    for width in (0, 10, 80):
        told = output.table(("A", "B"), rows, width=width)
        assert sign not in told
        assert "\nkube-system   nmi" not in told


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize("sign", SIGNS)
def test_data_commands_no_terminal_and_says_the_same(form: str, sign: str) -> None:
    value = {"message": f"für {sign}[2J", "plain": "ä\n"}
    told = output.data(value, form)
    assert sign not in told
    assert (json.loads if form == "json" else yaml.safe_load)(told) == value
    assert "ä" in output.data({"plain": "ä"}, form)
