"""The stories as they are kept in files: every step is read, with what it must show."""

from __future__ import annotations

import asyncio
import json
import re
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.demo import checks
from podidentity_sandbox.demo.shell import Ran
from podidentity_sandbox.demo.steps import STORY, find_walkthrough, read
from podidentity_sandbox.demo.story import Step, Unexpected
from podidentity_sandbox.world import SandboxError

# The numbers of the published walk-through, and of the other side of its story.
PUBLISHED = {str(number) for number in range(1, 24)}
CHAPTER = """\
# A chapter

## 1a First
# must show: succeeded
echo one
echo two

## 1b in the pod: Second
# must show: names a right
echo three

## forged Third
# must show: opens shell
kubectl exec -n a b -it -- sh
"""
STEPS = find_walkthrough() / "steps"


def steps_in(folder: Path) -> list[Step]:
    return [step for _, steps in read(folder) for step in steps]


def test_a_chapter_is_a_title_and_steps_with_commands_and_checks(tmp_path: Path) -> None:
    (tmp_path / "1-chapter.sh").write_text(CHAPTER)
    ((title, (first, second, third)),) = read(tmp_path)
    assert title == "A chapter"
    assert (first.number, first.name, first.command) == ("1", "First", "echo one\necho two")
    assert (first.check, first.exit, first.in_pod) == (checks.succeeded, 0, False)
    assert (second.check, second.exit, second.in_pod) == (checks.names_a_right, 1, True)
    assert (third.number, third.opens_pod) == ("forged", True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("## 1 A step\ntrue\n", "does not start with the title"),
        ("# A chapter\n\n## A step\n# must show: created\ntrue\n", "starts no step"),
        ("# A chapter\n\n## 1 A step\n# must show: created\n", "starts no step"),
        ("# A chapter\n\n## 1 A step\ntrue\n", "starts no step with a check"),
        (
            "# A chapter\n\n## 1 A step\n# must show: a wonder\ntrue\n",
            "starts no step with a check",
        ),
    ],
)
def test_what_is_no_step_is_said(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "1-chapter.sh").write_text(text)
    with pytest.raises(SandboxError, match=why):
        read(tmp_path)


def test_the_walk_through_has_every_published_step() -> None:
    assert {step.number for step in steps_in(STEPS)} >= PUBLISHED


def test_each_story_opens_one_shell_and_every_check_is_of_a_step() -> None:
    told = [steps_in(folder) for folder in (STORY, STEPS)]
    assert [sum(step.opens_pod for step in story) for story in told] == [1, 1]
    used = {step.check for story in told for step in story}
    there = {found for found in vars(checks).values() if iscoroutinefunction(found)}
    assert used == there


def test_a_vault_is_judged_by_what_its_step_asks_for() -> None:
    (asked,) = (step.command for step in steps_in(STEPS) if step.check is checks.vault_made)
    assert "--enable-rbac-authorization false" in asked
    assert judged(enableRbacAuthorization=False) == "https://kv.vault.azure.net/"
    with pytest.raises(Unexpected, match="it decides by roles"):
        judged(enableRbacAuthorization=True)
    with pytest.raises(Unexpected, match="the operator's policy is not there"):
        judged(enableRbacAuthorization=False, accessPolicies=[])


def test_az_aks_is_run_by_a_colleague_with_the_rights_that_the_reference_lists() -> None:
    commands = [step.command for step in steps_in(STEPS)]
    changing = [each for each in commands if re.search("az aks (update|pod-identity)", each)]
    assert len(changing) == 3
    assert all(each.startswith('(eval "$COLLEAGUE"') for each in changing)
    given = re.findall(r'"(Microsoft\.[^"]+)"', "\n".join(commands))
    rights = Path(__file__).parents[2] / "docs/reference/rights.md"
    (row,) = re.findall(r"\| `az aks pod-identity` .*", rights.read_text())
    assert sorted(given) == sorted(re.findall(r"`(Microsoft[^`]+)`", row))


def judged(**more: Any) -> str:
    """Return what the story says of a vault that `az keyvault create` printed."""
    properties = {"accessPolicies": [{}], "vaultUri": "https://kv.vault.azure.net/", **more}
    ran = Ran(json.dumps({"properties": properties}), 0)
    context: Any = None  # this check looks at the output alone
    return asyncio.run(checks.vault_made(context, ran))
