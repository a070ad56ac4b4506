"""The Kubernetes project's own client for Python works with the sandbox's API server.

Each public function of programs/kube's two modules is a sentence. All are run once, by the Python
that has the client: it unpacks to 74 MB, too much for the environment of the tests.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from podidentity.manifests import crds
from podidentity_sandbox.weather import CALM
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.sandboxes import own

pytestmark = pytest.mark.net
NAME = own("kube-client")
ROOT = Path(__file__).parents[3]
PROGRAMS = Path(__file__).with_name("programs") / "kube"
SENTENCES = [
    one.name
    for module in ("objects", "beyond")
    for one in ast.parse((PROGRAMS / f"{module}.py").read_text()).body
    if isinstance(one, ast.FunctionDef)
]


@pytest.fixture(scope="module")
def outcomes() -> Mapping[str, str]:
    """Return what went wrong with each sentence."""
    subprocess.run([ROOT / "scripts/setup-sdks"], check=True)
    try:
        # The client judges the API server, which has nothing to hide behind.
        kubeconfig = bring_up(NAME, Shape(nodes=1), weather=CALM, bound=True).kubeconfig
        done = subprocess.run(
            [ROOT / ".venvs/sdks/new/bin/python", PROGRAMS / "run.py", *SENTENCES],
            input=json.dumps(crds()),
            env={"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )
    finally:
        bring_down(NAME)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_there_are_sentences() -> None:
    assert len(SENTENCES) >= 12


@pytest.mark.parametrize("sentence", SENTENCES)
def test_with_the_client(outcomes: Mapping[str, str], sentence: str) -> None:
    wrong = outcomes[sentence]
    if wrong:
        pytest.fail(wrong, pytrace=False)
