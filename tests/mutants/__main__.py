"""`./scripts/mutants`: would the unit tests notice? See `--help`.

Why a runner of our own: mutmut (3.8) changes functions without decorators alone, so no property and
no table of ours, where much is decided; cosmic-ray (8.7) starts all tests for each mutant, and
changes the files of the checkout. Neither draws a sample by a seed, and both end what takes too
long by a clock. This is a page each of what to change, which tests reach it, and how to run them.
"""

from __future__ import annotations

import functools
import json
import os
import random
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import click

from tests.mutants import measuring
from tests.mutants.exchanging import Exchanging, Task, run_exchanging
from tests.mutants.measuring import Kept, Reach, measure
from tests.mutants.mutations import Mutation, mutated, mutations
from tests.mutants.running import (
    ARGUMENTS,
    FUEL_MORE,
    FUEL_TIMES,
    Forked,
    Outcome,
    libraries,
    preload,
    run_mutant,
    side_by_side,
)

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
UNITS = (
    *("tests/core", "tests/wire", "tests/adapters", "tests/nmi", "tests/mic", "tests/cli"),
    "tests/kernel/test_source_bindings.py",
)
LONG = (
    "tests/nmi/test_fuzz.py",
    "tests/nmi/test_odd_ends.py",
    "tests/mic/test_exhaustive.py",
    "tests/mic/test_first_thousand_seeds.py",
    "tests/mic/test_second_thousand_seeds.py",
    "tests/mic/test_third_thousand_seeds.py",
)
"""Hours of hostile bytes in minutes, against the listener, every fault of a small world, and worlds
by the thousand: too long for each mutant."""

# The rules, the formats, and the pages of nmi, mic and adapters that decide who gets what.
NMI = ("caller", "decision", "errors", "hold", "host_token")
MIC = (
    *("conditions", "controller", "driver", "election", "gates", "grants", "hosts", "neighbours"),
    *("objects", "policies", "questions", "records", "signin"),
)
ADAPTERS = (
    *(
        "azure_transport",
        "cluster",
        "imds",
        "node_identity",
        "path_permissions",
        "permission_cache",
    ),
    "token_cache",
)
PAGES = (
    "backoff.py",
    "core/*.py",
    "wire/*.py",
    *(f"nmi/request/{name}.py" for name in NMI),
    "nmi/policies.py",
    "nmi/rules.py",
    "nmi/sync/prefetch.py",
    *(f"mic/{name}.py" for name in MIC),
    *(f"adapters/{name}.py" for name in ADAPTERS),
    "adapters/entra/client_credentials.py",
    "adapters/entra/issuer.py",
    "client_connections.py",
    "credential_plugin.py",
    "kubeconfig.py",
    "kernel/source_bindings.py",
    "cli/detachment.py",
    "cli/kept_options.py",
)
BATCH = 12
"""Files of tests that are measured in one process."""
MEASURING = 1800
"""CPU seconds: a batch that takes more does not end."""
CHEAP = 3.0
"""CPU seconds: a file of tests that takes less runs whole, for what its fixtures reach."""


@dataclass(frozen=True)
class Mutant:
    """A mutation of a file of the product."""

    file: str
    """As `src/podidentity/core/decision.py`."""
    mutation: Mutation

    @property
    def name(self) -> str:
        """As the list of equivalents has it; it stays when lines move."""
        return f"{self.file}::{self.mutation.where}: {self.mutation.change}"

    @property
    def module(self) -> str:
        return self.file.removeprefix("src/").removesuffix(".py").replace("/", ".")

    @property
    def package(self) -> str:
        return self.file.split("/")[2]


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant."""

    mutant: Mutant
    outcome: str
    """killed, survived, equivalent."""
    by: str
    """The test that failed, "fuel" if it never ended; of an equivalent the reason."""
    seconds: float


@functools.cache
def source_of(file: str) -> str:
    """Return the text of a file of the product, as it was when it was first asked for."""
    return (ROOT / file).read_text()


def all_mutants(pages: Sequence[str] = PAGES) -> list[Mutant]:
    """Return every mutant of the pages, in a fixed order."""
    paths = [path for page in pages for path in sorted((SOURCE / "podidentity").glob(page))]
    files = [str(path.relative_to(ROOT)) for path in paths]
    return [Mutant(file, each) for file in files for each in mutations(source_of(file))]


def sample_of(mutants: Sequence[Mutant], size: int, seed: int) -> list[Mutant]:
    """Return so many of them, by the seed alone: a larger sample begins with the smaller one."""
    drawn = [*mutants]
    random.Random(seed).shuffle(drawn)  # noqa: S311 - to be drawn again
    return drawn[:size] if size else drawn


def equivalents() -> dict[str, str]:
    """Return the names of mutants that change nothing that counts, with the reasons."""
    return {
        str(name): str(reason) for name, reason in tomllib.loads(EQUIVALENT.read_text()).items()
    }


def unit_tests(folders: Sequence[str] = UNITS) -> list[str]:
    """Return the files of unit tests."""
    found = [
        path
        for each in folders
        for path in (
            (ROOT / each).glob("**/test_*.py") if (ROOT / each).is_dir() else [ROOT / each]
        )
    ]
    return sorted({str(path.relative_to(ROOT)) for path in found} - {*LONG})


# ---- Which tests


def measured(files: Sequence[str], pages: Sequence[Path], workers: int) -> dict[str, Reach]:
    """Return what each file of tests reaches; measure what is not known yet."""
    kept = Kept(
        ROOT / ".cache/mutants",
        ROOT,
        product=SOURCE.glob("podidentity/**/*.py"),
        helpers=[
            path
            for folder in (*UNITS, "tests")
            for path in (ROOT / folder).glob("*.py" if folder == "tests" else "**/*.py")
            if not path.name.startswith("test_")
        ]
        + [Path(measuring.__file__)],
    )
    found = {name: kept.get(name) for name in files}
    missing = [name for name, reach in found.items() if reach is None]
    batches = [missing[start : start + BATCH] for start in range(0, len(missing), BATCH)]
    with tempfile.TemporaryDirectory() as folder:

        def start(batch: Sequence[str]) -> Forked:
            def work() -> int:
                modules = [str(path) for path in pages]
                for name, reach in measure(batch, modules, ROOT, ARGUMENTS).items():
                    kept.put(name, reach)
                return 0

            output = Path(folder, Path(batch[0]).stem)
            return Forked.of(work, output, MEASURING, may_sleep=inf)

        waiting = ((batch, functools.partial(start, batch)) for batch in batches)
        for batch, outcome in side_by_side(waiting, workers):
            if outcome.code:
                raise click.ClickException(f"{batch}: {outcome.failure}")
            click.echo(f"measured {len(batch)} files of tests: {outcome.seconds:.0f} s", err=True)
    found |= {name: kept.get(name) for name in missing}
    reaches = {name: reach for name, reach in found.items() if reach is not None}
    for each in sorted({each for reach in reaches.values() for each in reach.failing}):
        click.echo(f"fails without any mutation, and counts for nothing: {each}", err=True)
    return reaches


Files = dict[str, Sequence[str] | None]
"""Files of tests → the node ids to run there; None: all."""


def reaching(mutant: Mutant, reaches: Mapping[str, Reach], most: float) -> Files:
    """Return the tests to run, in this order: those of the module's own file, then the others."""
    ids = _ids(mutant, reaches)
    own = [name for name in ids if name.endswith(f"/test_{Path(mutant.file).stem}.py")]
    worth = {name: reaches[name].seconds / len(ids[name]) for name in ids}
    others = sorted({*ids} - {*own}, key=lambda name: worth[name])
    files: Files = {}
    for name in (*own, *others):
        if most > 0:
            whole = reaches[name].seconds < CHEAP and not reaches[name].failing
            files[name] = None if whole else ids[name]
            most -= reaches[name].seconds
    return files


def _ids(mutant: Mutant, reaches: Mapping[str, Reach]) -> dict[str, Sequence[str]]:
    """Return the tests that reach a mutant's line, by their files.

    A line that runs when its module is loaded is reached by each test that runs any of the module.
    """
    of_module = {name: reach.lines.get(mutant.file, {}) for name, reach in reaches.items()}
    line = str(mutant.mutation.line)
    found = {name: lines[line] for name, lines in of_module.items() if line in lines}
    if found:
        return found
    return {
        name: sorted({each for ids in lines.values() for each in ids})
        for name, lines in of_module.items()
        if lines
    }


# ---- What becomes of them


def judge(mutant: Mutant, outcome: Outcome) -> Verdict:
    """Return the verdict."""
    by = [line for line in outcome.said.splitlines() if line.startswith("KILLED BY ")]
    if outcome.code in {0, 5}:
        return Verdict(mutant, "survived", "", outcome.seconds)
    said = by[0].removeprefix("KILLED BY ") if by else ""
    if outcome.code < 0:
        said = said or "fuel"
    elif outcome.code == 70:
        raise click.ClickException(f"{mutant.name}: {outcome.said[-2000:]}")
    return Verdict(mutant, "killed", said or "it cannot be loaded", outcome.seconds)


def run(
    mutants: Sequence[Mutant], reaches: Mapping[str, Reach], workers: int, most: float
) -> Iterator[Verdict]:
    """Yield what becomes of each, as it is known."""
    plans = {each: reaching(each, reaches, most) for each in mutants}
    with tempfile.TemporaryDirectory() as folder:
        for each in mutants:
            if not plans[each]:
                yield Verdict(each, "survived", "no test reaches it", 0.0)
        left = list[Mutant]()
        for file in dict.fromkeys(each.file for each in mutants):
            of_file = [each for each in mutants if each.file == file and plans[each]]
            for mutant, outcome in exchanged(of_file, plans, reaches, workers, Path(folder)):
                if outcome is None:
                    left.append(mutant)
                else:
                    yield judge(mutant, outcome)
        waiting = (
            (each, functools.partial(_alone, each, plans[each], reaches, Path(folder)))
            for each in left
        )
        for mutant, outcome in side_by_side(waiting, workers):
            yield judge(mutant, outcome)


def _fuel(files: Files, reaches: Mapping[str, Reach]) -> float:
    return FUEL_MORE + FUEL_TIMES * sum(reaches[name].seconds for name in files)


def _waits(files: Files, reaches: Mapping[str, Reach]) -> float:
    return max((reaches[name].waits for name in files), default=0.0)


def _alone(mutant: Mutant, files: Files, reaches: Mapping[str, Reach], folder: Path) -> Forked:
    """Start the tests of a mutant in a process that has loaded nothing of ours."""
    path = ROOT / mutant.file
    tree = mutated(source_of(mutant.file), mutant.mutation.number)
    work = functools.partial(run_mutant, mutant.module, path, tree, files)
    output = folder / f"{id(mutant)}"
    return Forked.of(work, output, _fuel(files, reaches), may_sleep=_waits(files, reaches))


def exchanged(
    mutants: Sequence[Mutant],
    plans: Mapping[Mutant, Files],
    reaches: Mapping[str, Reach],
    workers: int,
    folder: Path,
) -> Iterator[tuple[Mutant, Outcome | None]]:
    """Yield what becomes of the mutants of one file; None: its tests need a process of its own."""
    if not mutants:
        return
    by_number = {each.mutation.number: each for each in mutants}
    tasks = [
        Task(number, plans[each], _fuel(plans[each], reaches), _waits(plans[each], reaches))
        for number, each in by_number.items()
    ]
    said, to = os.pipe()
    path = ROOT / mutants[0].file
    plugin = Exchanging(path, source_of(mutants[0].file), tasks, folder, workers, to)
    files = sorted({name for task in tasks for name in task.files})
    output = folder / "exchanging"
    forked = Forked.of(functools.partial(run_exchanging, plugin, files), output, fuel=3600)
    os.close(to)
    with os.fdopen(said) as lines:
        for line in lines:
            number, outcome = json.loads(line)
            yield by_number.pop(number), None if outcome is None else Outcome(*outcome)
    os.waitpid(forked.pid, 0)
    if by_number:
        raise click.ClickException(f"{path}: {output.read_text(errors='replace')[-3000:]}")


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the numbers of each package, and of all."""
    head = ("package", "mutants", "killed", "survived", "equivalent", "killed of the rest")
    rows: list[tuple[str, ...]] = [head]
    packages = sorted({each.mutant.package for each in verdicts})
    for package in (*packages, "all"):
        of = [each for each in verdicts if package in {each.mutant.package, "all"}]
        count = Counter(each.outcome for each in of)
        rest = count["killed"] + count["survived"]
        share = f"{100 * count['killed'] / rest:.1f} %" if rest else "-"
        numbers = (len(of), count["killed"], count["survived"], count["equivalent"])
        rows.append((package, *map(str, numbers), share))
    widths = [len(cell) for cell in head]
    return "\n".join(
        "  ".join([row[0].ljust(8), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def as_json(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as the file of results has it."""
    mutant = verdict.mutant
    return {
        "mutant": mutant.name,
        "line": mutant.mutation.line,
        "package": mutant.package,
        "outcome": verdict.outcome,
        "by": verdict.by,
        "seconds": round(verdict.seconds, 2),
    }


def _load_libraries(files: Sequence[str]) -> None:
    """Load what most tests need of others, once for all processes to come."""
    with tempfile.TemporaryDirectory() as folder:
        look = functools.partial(libraries, files[::5], ("podidentity", "tests"))
        forked = Forked.of(look, Path(folder, "said"), fuel=600, may_sleep=inf)
        ((_, outcome),) = side_by_side(iter([("", lambda: forked)]), 1)
    (loaded,) = (
        line.removeprefix("LOADED ")
        for line in outcome.said.splitlines()
        if line.startswith("LOADED ")
    )
    preload(json.loads(loaded))


@click.command()
@click.option("--sample", default=100, show_default=True, help="How many mutants; 0: all.")
@click.option("--seed", default=1, show_default=True, help="Which ones; the same seed, the same.")
@click.option("--page", "pages", multiple=True, help="As core/decision.py or wire/*.py.")
@click.option(
    "--tests", "folders", multiple=True, default=UNITS, help="As tests/mic, or a file there."
)
@click.option("--match", default="", help="Only mutants whose name has this in it.")
@click.option(
    "--json", "to", type=click.Path(path_type=Path), help="Write the verdicts there, too."
)
@click.option("--list", "listing", is_flag=True, help="Name the mutants, and run nothing.")
@click.option("--workers", default=2, show_default=True, help="Processes side by side.")
@click.option("--most", default=60.0, show_default=True, help="CPU seconds of tests for a mutant.")
def main(
    *,
    sample: int,
    seed: int,
    pages: tuple[str, ...],
    folders: tuple[str, ...],
    match: str,
    to: Path | None,
    listing: bool,
    workers: int,
    most: float,
) -> None:
    """Change a line of the product, and see whether a unit test notices; do so many times.

    Of each mutant the tests run that reach the changed line, in a process of their own; no file is
    changed. Survivors are printed with their names: write the test that notices, or put the name
    into tests/mutants/equivalent.toml with the reason why nobody could.

    Which tests reach which lines is measured at the first time, in some minutes, and kept in
    .cache/mutants.

    \b
    Examples:
      ./scripts/mutants --sample 300 --seed 1 --json mutants.json
      ./scripts/mutants --page core/decision.py --sample 0
      ./scripts/mutants --match has_an_account --sample 0
      ./scripts/mutants --page mic/gates.py --sample 0 --tests tests/mic
    """  # noqa: D301 - click's own mark
    known = equivalents()
    everything = all_mutants(pages or PAGES)
    if unknown := {*known} - {each.name for each in all_mutants()}:
        raise click.ClickException(f"equivalent.toml names no mutant: {sorted(unknown)}")
    matching = [each for each in everything if match in each.name]
    mutants = sample_of(matching, sample, seed)
    if listing:
        for each in mutants:
            click.echo(each.name)
        return
    click.echo(f"{len(mutants)} of {len(matching)} mutants, seed {seed}")
    verdicts = [
        Verdict(each, "equivalent", known[each.name], 0) for each in mutants if each.name in known
    ]
    files = unit_tests(folders)
    _load_libraries(files)
    paths = [path for page in PAGES for path in sorted((SOURCE / "podidentity").glob(page))]
    reaches = measured(files, paths, workers)
    asked = [each for each in mutants if each.name not in known]
    for verdict in run(asked, reaches, workers, most):
        verdicts.append(verdict)
        click.echo(
            f"{verdict.outcome:8} {verdict.seconds:5.1f} s  line {verdict.mutant.mutation.line} of"
            f" {verdict.mutant.name}  {verdict.by}"
        )
    click.echo(table(verdicts))
    if to is not None:
        to.write_text(json.dumps([as_json(each) for each in verdicts], indent=1))
    if any(each.outcome == "survived" for each in verdicts):
        sys.exit(1)


if __name__ == "__main__":
    os.chdir(ROOT)
    main(prog_name="./scripts/mutants")
