"""The emulated machine, as far as it can be judged without starting one."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from deploy.image.packages import Gone
from deploy.image.pins import Deb
from tests.machine import emulated, parts, selection
from tests.machine.__main__ import TESTS, summary
from tests.machine.emulated import Machine, NoReport, Report, read

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


TODAYS = Deb("linux-image-5.10.0-99-cloud-amd64", "5.10.999-1", "amd64", "pool/l/new.deb", "f" * 64)


def test_todays_package_is_taken_in_place_of_one_that_is_gone_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash is that of the signed list: it is fetched by it, as a pinned one is by its own."""
    fetched: list[Deb] = []

    def fetch(debs: list[Deb], *_: object, **__: object) -> list[Path]:
        fetched.extend(debs)
        if TODAYS not in debs and any(each.name.startswith("linux-image") for each in debs):
            raise Gone("linux-image-5.10.0-46-cloud-amd64 cannot be fetched.")
        return []

    asked: list[tuple[str, str]] = []

    def listed(roots: list[str], *_: object, suite: str) -> list[Deb]:
        asked.append((roots[0], suite))
        return [TODAYS, replace(TODAYS, name="linux-base")]

    monkeypatch.setattr(parts, "fetch_debs", fetch)
    monkeypatch.setattr(parts, "newest_of", listed)
    said: list[str] = []
    store = parts.Parts(said.append, ("mirror",), tmp_path / "cache", or_newest=True)
    monkeypatch.setattr(store, "_unpack", unpacked_kernel)
    monkeypatch.setattr(store, "_tool", lambda *_: ["true"])
    assert store.kernel("5.10").image.read_text() == "a kernel"
    assert asked == [("linux-image-cloud-amd64", "bullseye")]
    assert fetched[-1] == TODAYS
    assert store.unpinned == {"5.10"}
    assert [line for line in said if line.startswith("NOT AS PINNED")] == [
        "NOT AS PINNED: linux-image-5.10.0-46-cloud-amd64 cannot be fetched.",
        f"NOT AS PINNED: 5.10 is made of today's {TODAYS.name} 5.10.999-1, by Debian's signed "
        "lists",
    ]
    # What is made of it is kept under its own hash, and nothing is taken for the pinned one.
    assert store.kernel("5.10").image.read_text() == "a kernel"
    assert fetched.count(TODAYS) == 1
    pinned = parts.Parts(said.append, ("mirror",), tmp_path / "cache")
    with pytest.raises(Gone, match="--or-newest takes today's packages in their place"):
        pinned.kernel("5.10")


def unpacked_kernel(folder: Path, debs: list[Path]) -> None:
    del debs
    for each in ("boot", "lib/modules/5.10.0/kernel/net"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    (folder / "boot/vmlinuz-5.10.0").write_text("a kernel")


def test_a_machine_that_does_not_end_is_ended(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    kernel = parts.Kernel(tmp_path / "empty", tmp_path / "empty")
    deaf = ["/bin/sh", "-c", "exec sleep 600"]
    machine = Machine((tmp_path / "empty",))
    with pytest.raises(NoReport, match="did not end"):
        emulated.run(deaf, kernel, machine, [], seconds=0.1, line=lambda _: None)


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
