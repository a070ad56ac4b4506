"""Runs tests in an emulated machine, and reads what became of them."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from threading import Event, Timer
from xml.etree import ElementTree

from deploy.image.packages import Missing
from tests.machine import initramfs
from tests.machine.parts import PRODUCT, Kernel

_ON_A_BUSY_MACHINE = "no_timer_check"
"""The kernel looks whether its timer ticks, and gives up where this machine lets it wait."""


@dataclass(frozen=True)
class Machine:
    """What a machine has beside its kernel; unless it says otherwise for tests of the kernel."""

    archives: tuple[Path, ...]
    """What is unpacked in it."""
    memory: int = 1536
    """MiB: the system takes a quarter, twice while it is unpacked."""
    time_of_its_own: bool = False
    """Whether time passes in it by what it has done, as far as it is emulated.

    So it is a slow machine that has all of its processor, however busy this one is: nothing in it
    comes too late because others work here. Where it would only wait, its time goes on at once.
    https://www.qemu.org/docs/master/devel/tcg-icount.html
    """
    built: tuple[Path, ...] = ()
    """Files of the checkout that git does not know."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the environment of the tests."""


@dataclass(frozen=True)
class Report:
    """What became of the tests in a machine."""

    passed: int
    failed: tuple[str, ...]
    """Each with what it said first."""
    skipped: Mapping[str, int]
    """How many, by reason."""
    modules: tuple[str, ...]
    """What the kernel had loaded at the end."""

    @property
    def good(self) -> bool:
        """Whether something passed, and nothing failed."""
        return self.passed > 0 and not self.failed


class NoReport(Exception):
    """The machine ended without a report."""


def run(
    emulator: Sequence[str],
    kernel: Kernel,
    machine: Machine,
    arguments: Sequence[str],
    *,
    seconds: float,
    line: Callable[[str], None],
) -> Report:
    """Start a machine, run pytest in it with `arguments`, and give each line of its console."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        archive, written = folder / "initramfs", folder / "report"
        _write_archive(archive, machine, kernel, arguments, folder)
        emulates = accelerator()
        counting = machine.time_of_its_own and emulates == "tcg"
        command = [
            *(*emulator, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-machine", "pc", "-accel", emulates, "-cpu", "max", "-smp", "1"),
            *(("-icount", "shift=0,sleep=off") if counting else ()),
            *("-m", str(machine.memory)),
            *("-kernel", str(kernel.image), "-initrd", str(archive)),
            *("-append", f"console=ttyS0 quiet panic=-1 rdinit=/init {_ON_A_BUSY_MACHINE}"),
            *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
            *("-serial", f"file:{written}"),
        ]
        try:
            emulating = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise Missing(f"QEMU cannot be started: {error}.") from error
        timed_out = Event()

        def end() -> None:
            timed_out.set()
            emulating.kill()

        limit = Timer(seconds, end)
        with emulating:
            limit.start()
            try:
                assert emulating.stdout is not None
                for each in emulating.stdout:
                    line(each.rstrip())
                emulating.wait()
            finally:
                limit.cancel()
                emulating.kill()
        if timed_out.is_set():
            raise NoReport(f"it did not end in {seconds:.0f} s")
        return read(written.read_text() if written.exists() else "")


def accelerator() -> str:
    """Return by what QEMU runs the machine: `kvm` where the processor can, or `tcg`.

    A /dev/kvm without VMX and SVM, as some virtual machines have it, does not run these kernels.
    """
    flags = Path("/proc/cpuinfo").read_text().split()
    able = "vmx" in flags or "svm" in flags
    return "kvm" if able and os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"


def _checkout(built: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return the checkout's files as they are now, and those built in it, as in the machine."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PRODUCT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    files = sorted(PRODUCT / each for each in listed.split("\0") if each)
    return [
        (f"product/{each.relative_to(PRODUCT)}", each)
        for each in (*files, *built)
        if each.is_file()
    ]


def _write_archive(
    place: Path, machine: Machine, kernel: Kernel, arguments: Sequence[str], folder: Path
) -> None:
    """Write all that the machine has in memory."""
    asked, told = folder / "arguments", folder / "environment"
    asked.write_text("".join(f"{each}\n" for each in arguments))
    variables = machine.variables.items()
    told.write_text("".join(f"export {name}={quote(value)}\n" for name, value in variables))
    beside = [("tests.arguments", asked), ("tests.environment", told)]
    with place.open("wb") as archive:
        for each in (*machine.archives, kernel.modules):
            archive.write(each.read_bytes())
        initramfs.write(archive, [*_checkout(machine.built), *beside])


def read(written: str) -> Report:
    """Return what a report in JUnit's form says; the modules are in a comment before it."""
    comment, _, xml = written.partition("-->")
    try:
        cases = list(ElementTree.fromstring(xml.strip()).iter("testcase"))  # noqa: S314 - our own
    except ElementTree.ParseError as error:
        raise NoReport("it ended without a report; its last lines are above") from error
    failed, skipped, passed = [], Counter[str](), 0
    for case in cases:
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        skip = case.find("skipped")
        wrong = [*case.findall("failure"), *case.findall("error")]
        if wrong:
            failed.append(f"{name}: {wrong[0].get('message', '').partition(chr(10))[0]}")
        elif skip is not None:
            skipped[skip.get("message", "")] += 1
        else:
            passed += 1
    _, _, modules = comment.partition("modules:")
    return Report(passed, tuple(failed), skipped, tuple(modules.split()))
