"""checkov says of the chart what docs/security.md answers, no more and no less.

It is 290 MB and takes half a minute, too much for CI: `./scripts/test --checkov` brings it, and
runs this.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from deploy.values import CHART, ROOT
from tests.deploy.helm import IMAGE, RELEASE, begun, finish

CHECKOV = ROOT / ".venvs/checkov/bin/checkov"
PAGE = ROOT / "docs/security.md"
NAMESPACE = "podidentity"
VALUES = {
    # What an operator chooses, and not the chart.
    "image": {"repository": IMAGE, "digest": f"sha256:{'0' * 64}", "imagePullPolicy": "Always"},
    "nodeUnit": {"enabled": True},
    "networkPolicy": {"enabled": True},
}


def answered() -> set[tuple[str, str]]:
    """Return each check and object of the page's table."""
    _, _, table = PAGE.read_text().partition("## What checkov says of the chart")
    rows = re.findall(r"^\| (CKV\w+):.*? \| (.*?) \|", table, re.MULTILINE)
    return {(check, name) for check, objects in rows for name in re.findall(r"`(.*?)`", objects)}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Each check that fails, and the object, with all profiles together."""
    if not CHECKOV.exists():
        pytest.fail("checkov is missing: run ./scripts/test --checkov")
    folder: Path = tmp_path_factory.mktemp("rendered")
    for profile in sorted((CHART / "profiles").glob("*.yaml")):
        words = ("--namespace", NAMESPACE, "--kube-version=1.33", f"--values={profile}")
        text = finish(begun("template", RELEASE, str(CHART), *words, values=VALUES))
        (folder / profile.name).write_text(text)
    ran = subprocess.run(
        [CHECKOV, "--directory", folder, "--framework=kubernetes", "--compact", "--output=json"],
        capture_output=True,
        text=True,
        check=False,
    )
    results = json.loads(ran.stdout)["results"]
    assert len(results["passed_checks"]) > 2000
    # As Kind.namespace.name; of a pod that others make its labels follow.
    failed = [(each["check_id"], each["resource"].split(".")) for each in results["failed_checks"]]
    return {(check, f"{kind} {name}") for check, (kind, _, name, *_) in failed}


def test_what_it_says_is_answered_and_what_is_answered_it_still_says(
    said: set[tuple[str, str]],
) -> None:
    assert said - answered() == set(), "without an answer"
    assert answered() - said == set(), "no more said"
