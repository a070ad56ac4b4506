"""How the story is told to a person."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from podidentity_sandbox.demo import steps
from podidentity_sandbox.demo.story import StepResult, TerminalPrinter, summary
from tests.sandbox.azure.plans import make_plan

RESULT = StepResult(
    number="18", name="", in_pod=False, command="", output="", ok=True, detail="", seconds=0
)


def test_its_steps_are_numbered_from_one_whatever_the_walk_through_calls_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    story = [step for _, chapter in steps.read(steps.STORY) for step in chapter]
    printer = TerminalPrinter()
    for step in story:
        printer.begin(step)
    told = re.findall(r"^ {2,8}(\d+)  (\S.*)$", capsys.readouterr().out, re.MULTILINE)
    assert told == [(str(at), step.name) for at, step in enumerate(story, 1)]


def test_a_step_that_went_wrong_is_named_by_the_number_that_was_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [RESULT, replace(RESULT, ok=False, name="Enable", detail="no answer"), RESULT]
    summary(results, 1.0, make_plan(tmp_path), keep=False)
    assert "1 of 3 steps went wrong:\n  2 Enable: no answer\n" in capsys.readouterr().out
