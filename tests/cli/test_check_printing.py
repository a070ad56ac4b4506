"""What a person sees of `check`: 80 columns, colour on a terminal alone, links that exist."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import click
import pytest

from podidentity.cli import main
from podidentity.cli.checks import looking
from podidentity.cli.checks.check import Check, Group, Outcome
from podidentity.cli.checks.findings import PAGE, REASONS, CheckReason, Finding, Severity, not_read
from podidentity.cli.checks.groups import GROUPS
from podidentity.cli.checks.mic import not_attached
from podidentity.cli.checks.printing import COLUMNS, lines, not_made, plain, shown, summary
from podidentity.core.resources import ObjectRef
from tests.cli.conftest import Ran
from tests.cli.world import World
from tests.docs.blocks import ROOT

CHECK = GROUPS[0].checks[0]


def finding(severity: Severity = Severity.ERROR, **changes: Any) -> Finding:
    given = {
        "kind": "AzureIdentity",
        "about": ObjectRef("shop", "orders"),
        "reason": CheckReason.CREDENTIAL,
        "what": "A sentence that is long enough to be wrapped, because nobody has a wider "
        "terminal than eighty columns in a ticket. " * 2,
        "mend": "Add --token-audience=https://a.example/an-audience-that-is-one-long-word "
        "to the flags of podidentity enable, and run it again.",
        "switch": "--compat-foreign-secrets",
    }
    return Finding(**{**given, **changes}, severity=severity)


def of(*found: Finding, told: Sequence[str] = (), encoding: str = "utf-8") -> list[str]:
    outcome = Outcome(findings=found, lines=tuple(told))
    return "\n".join(lines(CHECK, outcome, encoding)).splitlines()


def test_no_line_is_wider_than_80_columns_and_no_word_is_broken() -> None:
    shown_lines = list(map(click.unstyle, of(finding(), told=["  a word" * 30])))
    assert max(map(len, shown_lines)) <= COLUMNS
    text = " ".join(" ".join(shown_lines).split())
    assert "--token-audience=https://a.example/an-audience-that-is-one-long-word" in text
    assert "eighty columns in a ticket." in text


@pytest.mark.parametrize("sign", ["\x1b[2J", "\x9b2J", "\x07", "\u202e", "\u2066", "\x7f"])
def test_what_a_tenant_wrote_into_a_condition_commands_no_terminal(sign: str) -> None:
    """Whoever may write the status of an AzureIdentity may have it say anything."""
    told = {
        "type": "Ready",
        "status": "False",
        "reason": "Denied",
        "message": f"a{sign}{sign}b c{sign}",
    }
    meta = {"name": "orders", "namespace": "shop"}
    (found,) = not_attached({"metadata": meta, "status": {"conditions": [told]}})
    for text in ("\n".join(map(click.unstyle, of(found))), *plain("MIC", found).values()):
        assert sign not in text
        assert text.replace("\n", "").isprintable()
    assert plain("MIC", found)["message"].startswith("A\\")


@pytest.mark.parametrize(
    "status",
    [
        "x",
        [],
        {"conditions": "x"},
        {"conditions": ["x", None, 1]},
        {"conditions": {"type": "Ready"}},
        {"conditions": [{"type": "Ready", "status": "False", "reason": ["Denied"]}]},
        {"conditions": [{"type": [], "status": {}, "reason": {}}]},
    ],
)
def test_a_status_that_a_tenant_wrote_as_he_likes_ends_no_check(status: Any) -> None:
    """Where the definitions are those of AAD Pod Identity, nobody checks its shape."""
    assert list(not_attached({"metadata": {"name": "o"}, "status": status})) == []


@pytest.mark.parametrize(
    ("found", "mark", "plain_mark"),
    [
        ([], "√", "ok"),
        ([finding(Severity.WARNING)], "‼", "!!"),
        ([finding(Severity.WARNING), not_read("could not look")], "?", "?"),
        ([finding(Severity.WARNING), not_read("could not look"), finding()], "\u00d7", "xx"),
    ],
    ids=["nothing", "a warning", "unread", "an error"],
)
def test_a_check_has_the_mark_of_its_worst_finding_in_ascii_where_nothing_else_can_be_shown(
    found: list[Finding], mark: str, plain_mark: str
) -> None:
    assert click.unstyle(of(*found)[0]) == f"{mark} {CHECK.holds}"
    assert click.unstyle(of(*found, encoding="ascii")[0]) == f"{plain_mark} {CHECK.holds}"


def test_a_finding_is_shown_with_its_next_step_its_switch_and_its_entry() -> None:
    assert click.unstyle(shown(finding(what="It is lost.", mend="Find it."))).splitlines() == [
        "AzureIdentity shop/orders (Credential)",
        "  It is lost.",
        "  Find it.",
        "  or start NMI, for the whole cluster, with --compat-foreign-secrets",
        "  see docs/reference/check.md#credential",
    ]


def test_twenty_findings_of_a_reason_in_a_namespace_are_shown_and_none_hides_another() -> None:
    red = [finding(about=ObjectRef("red", f"a{each}")) for each in range(1_000)]
    other = finding(about=ObjectRef("red", "b"), reason=CheckReason.AUDIENCE)
    told = "\n".join(of(*red, other, finding()))
    assert told.count("AzureIdentity red/a") == 20
    assert "980 more Credential in namespace red" in told
    assert "AzureIdentity red/b" in told
    assert "AzureIdentity shop/orders" in told


def test_the_last_line_counts() -> None:
    assert summary([]) == "Nothing is wrong."
    found = [finding(), finding(), finding(Severity.WARNING), not_read("x")]
    assert summary(found) == "Found: 2 errors, 1 warning, 1 thing that could not be checked."


def test_a_program_gets_the_group_the_severity_and_the_link_too() -> None:
    told = plain("Pods", finding(Severity.WARNING))
    assert (told["group"], told["severity"]) == ("Pods", "warning")
    assert told["link"] == "docs/reference/check.md#credential"


def test_each_reason_has_its_entry_on_the_page_and_no_entry_is_of_no_reason() -> None:
    entries = re.findall(r"^### (\S+)$", (ROOT / PAGE).read_text(), re.MULTILINE)
    assert sorted(entries) == sorted(REASONS)
    assert len({each.lower() for each in entries}) == len(entries), "anchors are lower case"


def test_a_finding_of_which_no_page_knows_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="no page explains Whatever"):
        finding(reason="Whatever")


def test_each_check_says_what_could_not_be_checked_and_by_which_right() -> None:
    checks: list[Check] = [each for group in GROUPS for each in group.checks]
    assert all("you need the right to" in each.right for each in checks)
    assert len({each.holds for each in checks}) == len(checks)


@pytest.mark.usefixtures("world")
def test_what_was_looked_at_is_shown_before_the_next_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown_by_then: list[str] = []

    async def look(_: object) -> AsyncIterator[str]:
        shown_by_then.append(capsys.readouterr().out)
        yield "a fact"

    made = [replace(CHECK, holds=f"the {each} holds", look=look) for each in ("first", "second")]
    monkeypatch.setattr(looking, "GROUPS", (Group(title="Both", checks=tuple(made)),))
    assert main.run(["check"]) == 0
    before, between = shown_by_then
    assert "Both\n" in before
    assert "first" not in before
    assert "the first holds\n    a fact\n" in between
    assert "second" not in between


def test_the_command_prints_groups_without_colour_where_its_output_is_no_terminal(
    world: World, podidentity: Callable[..., Ran]
) -> None:
    ran = podidentity("check")
    assert not re.search(r"\x1b|\\x1b", ran.out + ran.err), "nor one that is shown as text"
    titles = [each.title for each in GROUPS]
    assert [line for line in ran.out.splitlines() if line in titles] == titles
    assert max(map(len, ran.out.splitlines())) <= COLUMNS
    assert world.get("/version") is not None


def test_a_check_that_found_something_counts_as_made() -> None:
    why = "no NMI says it"
    silent, found = Outcome(not_made=why), Outcome(findings=(finding(),), not_made=why)
    assert list(not_made([silent, found])) == [f"- 1 check not made: {why}"]
