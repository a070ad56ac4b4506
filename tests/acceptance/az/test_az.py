"""What the real az says and does against the sandbox is what it says and does against Azure.

The expectations stand in `data/`, written by hand with their sources, in the form of the chapters
for kubectl. All run in one sandbox, in their order; each command is a line for bash, with an az
that has loaded its modules: to load them a hundred times takes two minutes of a processor.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from podidentity_sandbox.weather import CALM
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.acceptance import loaded
from tests.acceptance.sandbox import CONTROL_PLANE
from tests.chapters import Case, CaseRunner, chapters
from tests.sandboxes import own

NAME = own("az-commands")
LIMIT = 120.0
"""Seconds that one line may take."""
ENVIRONMENT = f'eval "$(podidentity sandbox env --name {NAME})" && env -0'
CASES = [case for chapter in chapters(Path(__file__).parent / "data") for case in chapter.cases]
AS_INSTALLED = {"AZ_INSTALLER": "PIP"}
"""As the program `az` has it before it begins with the module."""
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
    bring_up(NAME, Shape(nodes=1, kubernetes=CONTROL_PLANE), weather=CALM, bound=True)
    try:
        said = subprocess.run(["bash", "-c", ENVIRONMENT], check=True, stdout=subprocess.PIPE)
        found = dict(pair.split("=", 1) for pair in said.stdout.decode().split("\0") if pair)
        home = {"HOME": str(tmp_path_factory.mktemp("home"))}
        shell = {**found, **SHORT, **home}
        yield CaseRunner(
            CASES, loaded_first(shell, tmp_path_factory.mktemp("tools")), seconds=LIMIT
        )
    finally:
        bring_down(NAME)


def loaded_first(shell: dict[str, str], folder: Path) -> dict[str, str]:
    """Return the surroundings of that shell, in which `az` begins with its modules loaded."""
    python = str(Path(".venvs/az/bin/python").absolute())
    begins = shlex.join(loaded.serve(python, "azure.cli", {**shell, **AS_INSTALLED}))
    az = folder / "az"
    az.write_text(f'#!/bin/sh\nexec {begins} "$@"\n')
    az.chmod(0o755)
    return {**shell, **AS_INSTALLED, "PATH": f"{folder}:{shell['PATH']}"}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_a_command_does_and_says_what_it_does_on_azure(runner: CaseRunner, case: Case) -> None:
    found = runner.outcome(case)
    if not case.agrees(found):
        pytest.fail(f"$ {case.run}\n{found}=== expected\n{case}", pytrace=False)


def test_every_expectation_has_a_name_of_its_own_and_a_source() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    assert not [case.id for case in CASES if not case.source.startswith("https://")]
