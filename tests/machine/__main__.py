"""`./scripts/test-kernels`: runs the tests of the kernel under others than this machine's."""

from __future__ import annotations

import re
import sys
from time import monotonic

import click

from deploy.image.packages import Missing, need_programs
from tests.machine import emulated, parts, pins, selection

TESTS = ("tests/kernel", "tests/net")
_PATIENT = ("-v", "-o", "timeout=900")
"""A line for each test; and a test takes some ten times longer in an emulator."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="[KERNEL]... [PYTEST ARGUMENT]...")
@click.option(
    "--quick",
    is_flag=True,
    help="The tests of tests/machine/selection.py, which CI runs: a few minutes. On 5.10, or with "
    "--or-newest on the oldest kernel that Debian still has.",
)
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="Archive of Debian's packages, in place of those of this machine's apt; may be repeated.",
)
@click.option(
    "--minutes", default=30.0, show_default=True, help="After how long a machine is ended."
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
    mirrors: tuple[str, ...],
    minutes: float,
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
    """  # noqa: D301 - click's own mark
    need_programs()
    if renew_pins:
        parts.renew(mirrors)
        click.echo(pins.FILE)
        return
    kernels, arguments = chosen(words, quick=quick)
    store = parts.Parts(_say, mirrors, or_newest=or_newest)
    emulator, system = store.emulator(), store.system()
    if quick and not kernels:
        kernels = [oldest(store) if or_newest else selection.KERNELS[0]]
    said, good = [], True
    for name in kernels:
        kernel = store.kernel(name)
        began = monotonic()
        prefix = click.style(f"{name:>5} | ", dim=True)

        def show(line: str, prefix: str = prefix) -> None:
            click.echo(prefix + line)

        try:
            report = emulated.run(
                emulator,
                kernel,
                system,
                arguments,
                seconds=minutes * 60,
                line=show,
            )
        except emulated.NoReport as error:
            said.append(f"{name}: no result after {monotonic() - began:.0f} s: {error}")
            good = False
            continue
        said += [*summary(name, report, monotonic() - began)]
        good = good and report.good
    said += [f"not as pinned: {part}" for part in sorted(store.unpinned)]
    click.echo("\n" + "\n".join(said))
    sys.exit(not good)


def _say(words: str) -> None:
    loud = words.startswith("NOT AS PINNED")
    click.secho(f"test-kernels: {words}", err=True, fg="red" if loud else None, bold=loud)


def chosen(words: tuple[str, ...], *, quick: bool = False) -> tuple[list[str], list[str]]:
    """Return the kernels that words name and the arguments of pytest.

    If words name no kernel it is all of them; none with `quick`, which then takes the oldest.
    """
    named = [each for each in words if re.fullmatch(r"\d+\.\d+", each)]
    for each in named:
        if each not in pins.KERNELS:
            raise Missing(f"{each} is none of the kernels {', '.join(pins.KERNELS)}.")
    arguments = [each for each in words if each not in named]
    if quick:
        return named, [*_PATIENT, *selection.tests(), *arguments]
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
