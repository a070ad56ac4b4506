"""What the real az says and does against the sandbox is what it says and does against Azure.

The expectations stand in `data/`, written by hand with their sources, in the form of the chapters
for kubectl. All run in one sandbox, in their order; each command is a line for bash.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from podidentity_sandbox.weather import CALM
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.sandbox.kubectl.chapters import Case, CaseRunner, Chapter
from tests.sandboxes import own

NAME = own("az-commands")
LIMIT = 120.0
"""Seconds that one line may take."""
ENVIRONMENT = f'eval "$(podidentity sandbox env --name {NAME})" && env -0'
CHAPTERS = [Chapter.load(path) for path in sorted((Path(__file__).parent / "data").glob("*.yaml"))]
CASES = [case for chapter in CHAPTERS for case in chapter.cases]
SHORT = {
    "C": "-g aks-west-experimental",
    "V": "-g aks-nodes-west-experimental -n aks-nodepool1-12345678-vmss",
}

pytestmark = pytest.mark.net


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaseRunner]:
    """A shell of the operator."""
    assert Path(".venvs/az/tools/az").exists(), "run ./scripts/setup-az"
    # Each line is typed once, right after what it needs: who waits for Azure says so in the line.
    bring_up(NAME, nodes=1, weather=CALM)
    try:
        said = subprocess.run(["bash", "-c", ENVIRONMENT], check=True, stdout=subprocess.PIPE)
        found = dict(pair.split("=", 1) for pair in said.stdout.decode().split("\0") if pair)
        home = {"HOME": str(tmp_path_factory.mktemp("home"))}
        yield CaseRunner(CASES, {**found, **SHORT, **home}, seconds=LIMIT)
    finally:
        bring_down(NAME)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_a_command_does_and_says_what_it_does_on_azure(runner: CaseRunner, case: Case) -> None:
    found = runner.outcome(case)
    if not case.expected.agrees(found):
        pytest.fail(f"$ {case.run}\n{found}=== expected\n{case.expected}", pytrace=False)


def test_every_expectation_has_a_name_of_its_own_and_a_source() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    assert not [case.id for case in CASES if not case.source.startswith("https://")]
