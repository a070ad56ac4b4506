"""The emulated machine, as far as it can be judged without starting one."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import packages_distributions
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.image.packages import Gone, Missing
from deploy.image.pins import Deb
from tests.machine import emulated, initramfs, parts, pins, selection
from tests.machine.__main__ import TESTS, chosen, oldest, summary, with_runtime
from tests.machine.__main__ import test_kernels as command
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


@pytest.mark.parametrize(
    ("words", "kernels", "arguments"),
    [
        ((), ["6.12", "6.1", "5.10"], ["tests/kernel", "tests/net"]),
        (("5.10",), ["5.10"], ["tests/kernel", "tests/net"]),
        (("6.1", "-k", "flush"), ["6.1"], ["tests/kernel", "tests/net", "-k", "flush"]),
        (("tests/net",), ["6.12", "6.1", "5.10"], ["tests/net"]),
    ],
)
def test_words_name_kernels_and_others_go_to_pytest(
    words: tuple[str, ...], kernels: list[str], arguments: list[str]
) -> None:
    assert chosen(words) == (kernels, ["-v", "-o", "timeout=900", *arguments])


def test_a_kernel_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(Missing, match=r"5\.4 is none of the kernels 6\.12, 6\.1, 5\.10"):
        chosen(("5.4",))


def test_the_quick_selection_runs_on_no_kernel_but_one_that_is_named() -> None:
    quick = ["-v", "-o", "timeout=900", *selection.tests()]
    assert chosen((), quick=True) == ([], quick)
    assert chosen(("6.1", "-x"), quick=True) == (["6.1"], [*quick, "-x"])


def test_tests_on_a_container_runtime_run_on_the_newest_kernel_unless_one_is_named() -> None:
    patient = ["-v", "-o", "timeout=7200"]
    assert chosen((), runtime=True) == (["6.12"], [*patient, *selection.RUNTIME])
    assert chosen(("6.1", "-x"), runtime=True) == (["6.1"], [*patient, *selection.RUNTIME, "-x"])
    one = "tests/acceptance/runtime/test_kubelet.py"
    assert chosen((one,), runtime=True) == (["6.12"], [*patient, one])


@pytest.mark.parametrize("words", [["--later"], ["--runtime", "--quick"]])
def test_options_that_do_not_go_together_are_refused(words: list[str]) -> None:
    ran = CliRunner().invoke(command, words)
    assert ran.exit_code == 2
    assert "--runtime" in ran.output


def test_without_an_image_it_is_said_what_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PRODUCT", tmp_path)
    with pytest.raises(Missing, match=r"\./scripts/image makes it"):
        with_runtime(parts.Parts(print, ()), tmp_path, later=False)


@pytest.mark.parametrize("named", [each for group in selection.QUICK.values() for each in group])
def test_the_quick_selection_names_tests_that_there_are(named: str) -> None:
    file, _, test = named.partition("::")
    path = parts.PRODUCT / file
    assert path.exists()
    assert not test or re.search(rf"^(async )?def {test}\(", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("had", ["5.10", "6.1", "6.12"])
def test_the_oldest_kernel_that_can_be_had_is_taken_and_older_ones_are_told_of(
    had: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = parts.Parts(print, ("mirror",), or_newest=True)

    def kernel(name: str) -> None:
        if selection.KERNELS.index(name) < selection.KERNELS.index(had):
            raise Missing(f"Debian has no kernel {name} any more.")

    monkeypatch.setattr(store, "kernel", kernel)
    assert oldest(store) == had
    told = capsys.readouterr().err.count("NOT AS PINNED")
    assert told == selection.KERNELS.index(had)


def test_without_any_kernel_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise Gone("no archive of this machine has it")

    monkeypatch.setattr(parts, "fetch_debs", gone)
    monkeypatch.setattr(parts, "newest_of", gone)
    with pytest.raises(Missing, match="no archive of this machine has it"):
        oldest(parts.Parts(print, ("mirror",), tmp_path / "cache", or_newest=True))


def test_bytecode_of_the_machine_is_taken_without_a_look_at_the_time_of_its_file(
    tmp_path: Path,
) -> None:
    """For the machine's files have none. The word of flags: PEP 552."""
    (tmp_path / "one.py").write_text("made = True\n")
    subprocess.run(
        [sys.executable, "-c", parts.COMPILING, str(tmp_path), str(tmp_path)], check=True
    )
    (compiled,) = (tmp_path / "__pycache__").iterdir()
    assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01


def test_each_part_of_the_machine_is_pinned_and_no_archive_is_named() -> None:
    found = pins.read()
    assert found.keys() == {*pins.KERNELS, *pins.ROOTS}
    assert "://" not in pins.FILE.read_text()
    for part, roots in pins.ROOTS.items():
        assert {each.name for each in found[part]} >= roots.keys()
    for kernel in pins.KERNELS:
        (deb,) = found[kernel]
        assert deb.version.startswith(f"{kernel}.")


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


def test_a_package_that_is_gone_is_said_with_what_renews_the_pins(tmp_path: Path) -> None:
    store = parts.Parts(print, mirrors=(tmp_path.as_uri(),), cache=tmp_path / "cache")
    with pytest.raises(Gone, match=r"cannot be fetched.*test-kernels --renew-pins"):
        store.kernel("5.10")


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


def test_a_line_of_kernels_that_debian_has_left_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "newest_of", lambda *_, **__: [replace(TODAYS, name="linux-base")])
    with pytest.raises(Missing, match=r"bullseye has no kernel 5\.10 any more"):
        parts.newest("5.10", ("mirror",))


def test_an_emulator_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    kernel = parts.Kernel(tmp_path / "empty", tmp_path / "empty")
    machine = Machine((tmp_path / "empty",))
    with pytest.raises(Missing, match="QEMU cannot be started"):
        emulated.run(["/nowhere/qemu"], kernel, machine, [], seconds=5, line=lambda _: None)


def test_a_machine_that_does_not_end_is_ended(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    kernel = parts.Kernel(tmp_path / "empty", tmp_path / "empty")
    deaf = ["/bin/sh", "-c", "exec sleep 600"]
    machine = Machine((tmp_path / "empty",))
    with pytest.raises(NoReport, match="did not end"):
        emulated.run(deaf, kernel, machine, [], seconds=0.1, line=lambda _: None)


def test_a_machine_has_its_archives_its_variables_and_what_was_built_beside_the_checkout(
    tmp_path: Path,
) -> None:
    """The command is `sh`, which keeps what it is told to start the machine with."""
    system, modules, kept = (tmp_path / name for name in ("system", "modules", "kept"))
    for archive in (system, modules):
        with archive.open("wb") as file:
            initramfs.write(file, [(f"{archive.name}.file", parts.PRODUCT / "LICENSE")])
    built = parts.PRODUCT / ".cache/built"
    built.parent.mkdir(exist_ok=True)
    built.write_text("by somebody")
    try:
        with pytest.raises(NoReport, match="without a report"):
            emulated.run(
                ["/bin/sh", "-c", f"until [ $1 = -initrd ]; do shift; done; cp $2 {kept}", "sh"],
                parts.Kernel(system, modules),
                Machine((system,), built=(built,), variables={"PATIENCE": "it's 10"}),
                ["tests/net", "-k", "one or two"],
                seconds=60,
                line=print,
            )
    finally:
        built.unlink()
    found = {name: data for name, _, data in members(kept.read_bytes())}
    assert found["tests.environment"].decode() == """export PATIENCE='it'"'"'s 10'\n"""
    assert found["tests.arguments"].decode() == "tests/net\n-k\none or two\n"
    assert found["product/.cache/built"] == b"by somebody"
    assert {"system.file", "modules.file", "product/pyproject.toml"} <= found.keys()


def test_what_is_written_for_the_kernel_is_an_archive_that_others_read(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "usr/bin").mkdir(parents=True)
    (folder / "usr/bin/sh").write_text("odd")
    (folder / "usr/bin/sh").chmod(0o755)
    (folder / "bin").symlink_to("usr/bin")
    archive = BytesIO()
    initramfs.write(archive, initramfs.tree(folder))
    assert members(archive.getvalue()) == [
        ("bin", 0o120777, b"usr/bin"),
        ("usr", 0o040755, b""),
        ("usr/bin", 0o040755, b""),
        ("usr/bin/sh", 0o100755, b"odd"),
        ("TRAILER!!!", 0, b""),
    ]


def members(archives: bytes) -> list[tuple[str, int, bytes]]:
    """Read name, mode and data, as the kernel's documentation of early user space has the form.

    Several archives may follow each other.
    """
    found, at = [], 0
    while at < len(archives):
        assert archives[at : at + 6] == b"070701"
        fields = [int(archives[at + 6 + 8 * each : at + 14 + 8 * each], 16) for each in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = archives[at + 110 : at + 110 + length].removesuffix(b"\0").decode()
        data = (at + 110 + length + 3) // 4 * 4
        found.append((name, mode, archives[data : data + size]))
        at = (data + size + 3) // 4 * 4
    return found
