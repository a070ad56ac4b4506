"""The list of skips that CI takes, and that it takes no other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.skips import taken

LIST = ROOT / ".ci/skips.toml"

FILE = """
import pytest

{}

@pytest.fixture
def lacking():
    pytest.skip("none of it is here")
"""
WAYS = {
    "mark": '@pytest.mark.skip("none of it is here")\ndef test(): pass',
    "condition": '@pytest.mark.skipif(True, reason="none of it is here")\ndef test(): pass',
    "fixture": "def test(lacking): pass",
    "test": 'def test(): pytest.skip("none of it is here")',
    "known to fail": '@pytest.mark.xfail(reason="none of it is here")\ndef test(): assert False',
    "fails with a reason": 'def test(): pytest.xfail("none of it is here")',
    "module": 'pytest.skip("none of it is here", allow_module_level=True)',
}
EMPTY = {"no parameters": '@pytest.mark.parametrize("one", [])\ndef test(one): pass'}


def outcomes(folder: Path, files: dict[str, str], reasons: str | None) -> dict[str, str]:
    """Return what became of each file's test, where these reasons are taken."""
    for name, text in files.items():
        (folder / f"test_{name.replace(' ', '_')}.py").write_text(FILE.format(text))
    (folder / "skips.toml").write_text(reasons or "")
    (folder / "pytest.ini").touch()
    of_ours = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    run = [sys.executable, "-m", "pytest", "-rA", "--continue-on-collection-errors"]
    ran = subprocess.run(
        [*run, "-p", "tests.skips"],
        env=of_ours if reasons is None else {**of_ours, "PODIDENTITY_SKIPS": "skips.toml"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?test_(\w+)\.py", ran.stdout, re.MULTILINE)
    assert ran.stdout.count("is no reason to skip a test here: skips.toml lists") >= len(failed)
    return {name: "fails" if name.replace(" ", "_") in failed else "passes" for name in files}


def test_skips_pass_where_nobody_asks_and_where_their_reason_is_listed(tmp_path: Path) -> None:
    passes = dict.fromkeys(WAYS, "passes")
    assert outcomes(tmp_path, WAYS, None) == passes
    assert outcomes(tmp_path, WAYS, '"none of it" = "it is so"') == passes


def test_skips_fail_where_their_reason_is_not_listed(tmp_path: Path) -> None:
    files = WAYS | EMPTY
    assert outcomes(tmp_path, files, '"another" = "it is so"') == dict.fromkeys(files, "fails")


@pytest.mark.parametrize("reason", taken(LIST))
def test_each_reason_on_the_list_is_one_that_a_test_gives(reason: str) -> None:
    given = rf'((skip|xfail)\(\s*|reason=)f?"{re.escape(reason)}'
    assert any(re.search(given, path.read_text()) for path in ROOT.glob("tests/**/*.py"))
