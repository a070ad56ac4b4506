"""The walk-through as it is kept in files: every step is read, paired with what it must show."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.demo import checks
from podidentity_sandbox.demo.shell import Ran
from podidentity_sandbox.demo.story import Unexpected
from podidentity_sandbox.demo.walkthrough import find_walkthrough, read, steps_of
from podidentity_sandbox.world import SandboxError

# The numbers of the published walk-through, and of the other side of its story.
PUBLISHED = {str(number) for number in range(1, 24)}
CHAPTER = """\
# A chapter

## 1a First
echo one
echo two

## 1b in the pod: Second
kubectl exec -n a b -it -- sh
"""


def written(folder: Path, text: str) -> Path:
    (folder / "steps").mkdir()
    (folder / "steps" / "1-chapter.sh").write_text(text)
    return folder


def test_a_chapter_is_a_title_and_steps_with_their_commands(tmp_path: Path) -> None:
    (chapter,) = read(written(tmp_path, CHAPTER))
    first, second = chapter.steps
    assert chapter.title == "A chapter"
    assert (first.id, first.number, first.title) == ("1a", "1", "First")
    assert first.command == "echo one\necho two"
    assert (first.in_pod, second.in_pod) == (False, True)
    assert (first.opens_pod, second.opens_pod) == (False, True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("## 1 A step\ntrue\n", "does not start with the title"),
        ("# A chapter\n\n## A step\ntrue\n", "starts no step"),
        ("# A chapter\n\n## 1 A step\n", "starts no step"),
    ],
)
def test_what_is_no_step_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(SandboxError, match=why):
        read(written(tmp_path, text))


def test_a_step_without_a_check_is_said(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="do not pair"):
        steps_of(read(written(tmp_path, "# A chapter\n\n## 99 A step\ntrue\n")))


def test_the_walk_through_has_every_published_step_and_each_is_judged() -> None:
    story = steps_of(read(find_walkthrough()))
    numbers = {step.number for _, steps in story for step in steps}
    assert numbers >= PUBLISHED
    assert sum(step.opens_pod for _, steps in story for step in steps) == 1


def test_its_files_are_scripts_that_bash_can_read() -> None:
    for path in [find_walkthrough() / "env.sh", *find_walkthrough().glob("steps/*.sh")]:
        done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path


def test_a_vault_is_judged_by_what_its_step_asks_for() -> None:
    (asked,) = (
        step.command
        for chapter in read(find_walkthrough())
        for step in chapter.steps
        if step.id == "4b"
    )
    assert "--enable-rbac-authorization false" in asked
    assert judged(enableRbacAuthorization=False) == "https://kv.vault.azure.net/"
    with pytest.raises(Unexpected, match="it decides by roles"):
        judged(enableRbacAuthorization=True)
    with pytest.raises(Unexpected, match="the operator's policy is not there"):
        judged(enableRbacAuthorization=False, accessPolicies=[])


def test_az_aks_is_run_by_a_colleague_with_the_rights_that_the_reference_lists() -> None:
    commands = [step.command for chapter in read(find_walkthrough()) for step in chapter.steps]
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
