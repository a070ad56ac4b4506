"""The emulated machine, as far as it can be judged without starting one."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

from tests.machine import parts, selection
from tests.machine.__main__ import TESTS, summary
from tests.machine.emulated import NoReport, Report, read

REPORT = """<!-- modules: nf_tables veth -->
<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite>
<testcase classname="tests.kernel.test_drift" name="test_one"/>
<testcase classname="tests.kernel.test_drift" name="test_two">
<failure message="no&#10;at all"/></testcase>
<testcase classname="tests.kernel.test_drift" name="test_three"><error message="no"/></testcase>
<testcase classname="tests.net.test_guard" name="test_four">
<skipped message="Linux 5.12"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_read_with_each_failure_and_each_reason_for_a_skip() -> None:
    assert summary("5.10", read(REPORT), 61) == [
        "5.10: 1 passed, 2 failed, 1 skipped in 61 s",
        "  failed   tests/kernel/test_drift.py::test_two: no",
        "  failed   tests/kernel/test_drift.py::test_three: no",
        "  skipped  1: Linux 5.12",
        "  modules  nf_tables veth",
    ]


@pytest.mark.parametrize("written", ["", "<!-- modules: -->", REPORT[:-30]])
def test_a_report_that_is_cut_off_is_none(written: str) -> None:
    with pytest.raises(NoReport, match="without a report"):
        read(written)


@pytest.mark.parametrize(
    ("report", "good"),
    [
        (Report(1, (), {"Linux 5.12": 1}, ()), True),
        (Report(1, ("one",), {}, ()), False),
        (Report(0, (), {"Linux 5.12": 1}, ()), False),
    ],
)
def test_a_kernel_is_good_if_something_passed_and_nothing_failed(
    report: Report, good: bool
) -> None:
    assert report.good is good


@pytest.mark.parametrize("named", [each for group in selection.QUICK.values() for each in group])
def test_the_quick_selection_names_tests_that_there_are(named: str) -> None:
    file, _, test = named.partition("::")
    path = parts.PRODUCT / file
    assert path.exists()
    assert not test or re.search(rf"^(async )?def {test}\(", path.read_text(), re.MULTILINE)


_IMPORTING = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
for each in sys.argv[2:]:
    importlib.import_module(each)
"""


def test_the_machine_has_each_library_that_tests_of_the_kernel_import() -> None:
    """CI runs some of these tests there: that the others can be read is seen here."""
    ours = {"podidentity", "podidentity-sandbox"}
    absent = {
        module
        for module, packages in packages_distributions().items()
        if not {each.lower().replace("_", "-") for each in packages} & (parts.IN_THE_MACHINE | ours)
    }
    assert "httpx2" in absent
    files = [*(parts.PRODUCT / "tests").glob("conftest.py")]
    files += [each for place in TESTS for each in (parts.PRODUCT / place).glob("*.py")]
    modules = [".".join(each.relative_to(parts.PRODUCT).with_suffix("").parts) for each in files]
    command = [sys.executable, "-c", _IMPORTING, " ".join(absent), *modules]
    ran = subprocess.run(command, cwd=parts.PRODUCT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
