"""Each text of the product's errors has its entry in docs/how-to/troubleshoot.md, and no other.

The code is read when a test runs: every worker of pytest loads this file.
"""

from __future__ import annotations

import ast
import functools

import pytest

from podidentity.core.refusals import Reason
from podidentity.nmi.request import errors as answers
from podidentity.wire.events import AgentReason, ProbeReason
from tests.docs.errors import (
    COMMAND,
    NODE,
    PAGE,
    PASSED_ON,
    REQUEST,
    STEPS,
    Text,
    by_hand,
    commands,
    generated,
    refusals,
    texts,
    trees,
)

ENTRIES = by_hand(PAGE.read_text())
OTHERS_WORDS = {"AADSTS…", "IMDS: …"}
"""Entries for what Entra and IMDS say."""
NOT_OF_COMMANDS = REQUEST | NODE | {"InvalidId"}
CHOOSING = "src/podidentity/adapters/permission_cache.py"
FIXED = {
    answers.NO_HEADER,
    answers.FORWARDED,
    answers.FOREIGN_HOST,
    answers.NOT_GET.description,
    *(each.description for each in answers.NOT_SERVED.values()),
}


def shown(text: str) -> str:
    """Return a text as an entry has it: of MIC's ways to sign in the first words are enough."""
    short = text.partition(" Give --azure-client-id")
    return (f"{short[0]} …" if short[1] else text).replace("`", "'")


def found() -> list[Text]:
    return texts(NOT_OF_COMMANDS)[0]


def test_each_text_that_a_request_or_a_node_ends_with_has_an_entry() -> None:
    missing = [
        f"{error.place} raises {error.kind} with {shown(error.text)!r}: "
        f"write its cause and next step into {PAGE}"
        for error in found()
        if shown(error.text) not in ENTRIES
    ]
    assert missing == []


@pytest.mark.parametrize("text", sorted(FIXED))
def test_each_text_that_is_answered_without_an_error_has_an_entry(text: str) -> None:
    assert text in ENTRIES


def checks() -> set[str]:
    """Return the names of the checks of `/readyz`, as nmi/main.py gives them."""
    return {
        key.value
        for node in ast.walk(trees()["nmi/main.py"])
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def conditions() -> set[str]:
    """Return the reasons of MIC's conditions that do not hold, without those of refusals."""
    strings = {
        text.value
        for node in ast.walk(trees()["mic/conditions.py"])
        if isinstance(node, ast.keyword | ast.Assign | ast.IfExp)
        for text in ast.walk(node)
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    }
    return {each for each in strings if each.isalpha() and each[:1].isupper()} - {
        *("Usable", "Effective", "Ready"),
    }


@functools.cache
def words() -> frozenset[str]:
    return frozenset(
        {each.value for each in AgentReason if each.is_warning}
        | {ProbeReason.LOST.value, ProbeReason.NOT_SENT.value}
        | checks()
        | conditions()
    )


def test_each_check_each_warning_and_each_condition_has_an_entry() -> None:
    assert words() - set(ENTRIES) == set()
    assert len(words()) > 20


def test_no_entry_is_left_of_what_the_product_does_not_say() -> None:
    expected = {shown(each.text) for each in found()} | FIXED
    assert set(ENTRIES) <= expected | words() | OTHERS_WORDS


def test_no_text_has_two_entries() -> None:
    assert sorted(ENTRIES) == sorted(set(ENTRIES))


def test_the_tables_of_refusals_and_commands_are_those_of_the_code() -> None:
    """`scripts/reference` writes them."""
    page = PAGE.read_text()
    assert page == generated(page)


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_of_a_refusal_has_an_entry(reason: Reason) -> None:
    assert f"| `{reason.value}` | " in refusals()


def test_each_error_of_a_command_has_a_next_step() -> None:
    """In the code, or in STEPS, which has no others."""
    of_commands, _ = texts(COMMAND)
    without = {each.text for each in of_commands if not each.next_step}
    assert without == set(STEPS)
    assert len(commands().splitlines()) > 30


def test_errors_are_raised_with_texts_or_with_words_that_are_passed_on() -> None:
    passed = [*texts(NOT_OF_COMMANDS)[1].values(), *texts(COMMAND)[1].values()]
    assert set(passed) == PASSED_ON


def test_there_are_texts_to_be_complete_about() -> None:
    assert len({each.text for each in found()}) > 80
    assert {each.kind for each in found()} >= {"NotReady", "TokenSourceDown", "Untrusted"}


def test_names_and_choices_in_a_text_are_resolved_or_stand_for_anything() -> None:
    """By the refusals that are made in these ways."""
    made = refusals()
    assert "`No AzureIdentityBinding in namespace … has the selector ….`" in made
    assert "Label it aadpodidbinding=SELECTOR" in made
    texts_of_choice = {each.text for each in found() if each.place.startswith(CHOOSING)}
    assert texts_of_choice >= {
        "the API server cannot be asked whether the pod's service account may use the identity"
    }
