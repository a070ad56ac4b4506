"""`./scripts/test-kernels`: runs the tests of the kernel under others than this machine's."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import click

from deploy.image.packages import Missing, need_programs
from tests.machine import emulated, parts, pins, selection

TESTS = ("tests/kernel", "tests/net")
_PATIENT = ("-v", "-o", "timeout=900")
"""A line for each test; and a test takes some ten times longer in an emulator."""
_MINUTES, _MINUTES_OF_RUNTIME = 30, 240
_SLOWER = {"PODIDENTITY_TEST_PATIENCE": "10"}
"""How much longer tests on a container runtime wait for what must come to pass."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="[KERNEL]... [PYTEST ARGUMENT]...")
@click.option(
    "--quick",
    is_flag=True,
    help="The tests of tests/machine/selection.py, which CI runs: a few minutes. On 5.10, or with "
    "--or-newest on the oldest kernel that Debian still has.",
)
@click.option(
    "--runtime",
    is_flag=True,
    help="The tests on a node with containerd, runc and crun (tests/acceptance/runtime), where the "
    "machine has cgroup v2 alone. On 6.12 unless kernels are named; hours on a busy machine.",
)
@click.option(
    "--later",
    is_flag=True,
    help="With --runtime: containerd 2 and what is beside it.",
)
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="Archive of Debian's packages, in place of those of this machine's apt; may be repeated.",
)
@click.option(
    "--minutes",
    type=float,
    help="After how long a machine is ended: 30 minutes, with --runtime 240.",
)
@click.option(
    "--or-newest",
    is_flag=True,
    help="Where archives have dropped a pinned package, take today's of the same kernel, and say "
    "so: Debian's signed lists vouch for it in place of the pins.",
)
@click.option("--renew-pins", is_flag=True, help="Write pins of today's packages, and run nothing.")
def test_kernels(
    *,
    words: tuple[str, ...],
    quick: bool,
    runtime: bool,
    later: bool,
    mirrors: tuple[str, ...],
    minutes: float | None,
    or_newest: bool,
    renew_pins: bool,
) -> None:
    """Run tests/kernel and tests/net under Debian's kernels 6.12, 6.1 and 5.10, or those named.

    Each kernel boots in an emulated machine: Debian's QEMU, fetched and unpacked into
    .cache/kernels if none is here; with /dev/kvm, or else some ten times slower without.
    The checkout is taken as it is. Other words go to pytest.

    \b
    Examples:
      ./scripts/test-kernels
      ./scripts/test-kernels 5.10
      ./scripts/test-kernels --quick --or-newest
      ./scripts/test-kernels --or-newest 6.12
      ./scripts/test-kernels 6.1 tests/kernel/test_drift.py -k flush
      ./scripts/test-kernels --runtime
      ./scripts/test-kernels --runtime 6.1 -k "systemd and proved"
    """  # noqa: D301 - click's own mark
    need_programs()
    if renew_pins:
        parts.renew(mirrors)
        click.echo(pins.FILE)
        return
    if runtime and quick:
        raise click.UsageError("--quick and --runtime are of different tests.")
    if later and not runtime:
        raise click.UsageError("--later is of --runtime.")
    kernels, arguments = chosen(words, quick=quick, runtime=runtime)
    store = parts.Parts(_say, mirrors, or_newest=or_newest)
    if quick and not kernels:
        kernels = [oldest(store) if or_newest else selection.KERNELS[0]]
    limit = 60 * (minutes or (_MINUTES_OF_RUNTIME if runtime else _MINUTES))
    with TemporaryDirectory() as folder:
        machine = emulated.Machine((store.system(),))
        if runtime:
            machine = with_runtime(store, Path(folder), later=later)
        ran = [ran_on(name, store, machine, arguments, seconds=limit) for name in kernels]
    said = [line for _, lines in ran for line in lines]
    said += [f"not as pinned: {part}" for part in sorted(store.unpinned)]
    click.echo("\n" + "\n".join(said))
    sys.exit(not all(good for good, _ in ran))


def with_runtime(store: parts.Parts, folder: Path, *, later: bool) -> emulated.Machine:
    """Return a machine with a container runtime and the product's image; raise Missing.

    What is made anew each time is made in `folder`.
    """
    images = tuple((parts.PRODUCT / "dist/image").glob("podidentity-*.tar"))
    if not images:
        raise Missing("dist/image has no image: ./scripts/image makes it.")
    tools = parts.PRODUCT / ".venvs" / ("runtime-later" if later else "runtime")
    return emulated.Machine(
        (store.system(), store.runtime(tools), store.bytecode(folder)),
        memory=5120,
        time_of_its_own=True,
        built=images,
        variables=_SLOWER,
    )


def ran_on(
    name: str,
    store: parts.Parts,
    machine: emulated.Machine,
    arguments: list[str],
    *,
    seconds: float,
) -> tuple[bool, list[str]]:
    """Run the tests under a kernel; return whether that is good, and what to say of it."""
    kernel, emulator = store.kernel(name), store.emulator()
    began = monotonic()
    prefix = click.style(f"{name:>5} | ", dim=True)

    def show(line: str) -> None:
        click.echo(prefix + line)

    try:
        report = emulated.run(emulator, kernel, machine, arguments, seconds=seconds, line=show)
    except emulated.NoReport as error:
        return False, [f"{name}: no result after {monotonic() - began:.0f} s: {error}"]
    return report.good, summary(name, report, monotonic() - began)


def _say(words: str) -> None:
    loud = words.startswith("NOT AS PINNED")
    click.secho(f"test-kernels: {words}", err=True, fg="red" if loud else None, bold=loud)


def chosen(
    words: tuple[str, ...], *, quick: bool = False, runtime: bool = False
) -> tuple[list[str], list[str]]:
    """Return the kernels that words name and the arguments of pytest.

    If words name no kernel it is all of them; the newest with `runtime`; none with `quick`, which
    then takes the oldest.
    """
    named = [each for each in words if re.fullmatch(r"\d+\.\d+", each)]
    for each in named:
        if each not in pins.KERNELS:
            raise Missing(f"{each} is none of the kernels {', '.join(pins.KERNELS)}.")
    arguments = [each for each in words if each not in named]
    if quick:
        return named, [*_PATIENT, *selection.tests(), *arguments]
    if runtime:
        if not any(each.startswith("tests/") for each in arguments):
            arguments = [*selection.RUNTIME, *arguments]
        return named or [selection.KERNELS[-1]], ["-v", "-o", "timeout=7200", *arguments]
    if not any(each.startswith("tests/") for each in arguments):
        arguments = [*TESTS, *arguments]
    return named or list(pins.KERNELS), [*_PATIENT, *arguments]


def oldest(store: parts.Parts) -> str:
    """Return the oldest kernel that can be had; raise Missing if it is none."""
    *others, newest = selection.KERNELS
    for name in others:
        try:
            store.kernel(name)
        except Missing as error:
            _say(f"NOT AS PINNED: no kernel {name}, a newer one takes its place: {error}")
        else:
            return name
    store.kernel(newest)
    return newest


def summary(name: str, report: emulated.Report, seconds: float) -> list[str]:
    """Return what became of the tests under a kernel, as people read it."""
    skipped = sum(report.skipped.values())
    head = f"{name}: {report.passed} passed, {len(report.failed)} failed, {skipped} skipped"
    return [
        f"{head} in {seconds:.0f} s",
        *(f"  failed   {each}" for each in report.failed),
        *(f"  skipped  {count}: {reason}" for reason, count in sorted(report.skipped.items())),
        f"  modules  {' '.join(report.modules)}",
    ]


def main() -> None:
    """Run the command line."""
    try:
        test_kernels(standalone_mode=False, prog_name="./scripts/test-kernels")
    except Missing as error:
        click.echo(f"test-kernels: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
