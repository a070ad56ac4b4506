"""The walk-through with the real az and kubectl: its steps as files, and what each must show.

Each file of examples/walkthrough/steps is a chapter. It starts with `# ` and the chapter's title.
Each step starts with a line `## ID Title`, or `## ID in the pod: Title` where it is typed into the
shell inside the pod; its commands follow. The number in the id is that of the published
walk-through's step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from podidentity_sandbox.demo import checks as az
from podidentity_sandbox.demo import checks as check
from podidentity_sandbox.demo.story import Check, Step
from podidentity_sandbox.world import SandboxError

# ---- The files

_STEP = re.compile(r"## (?P<id>(?P<number>\d+)[a-z]?) (?P<where>in the pod: )?(?P<title>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptStep:
    """A step as it is written down."""

    id: str
    number: str
    title: str
    in_pod: bool
    command: str

    @property
    def opens_pod(self) -> bool:
        """Whether it opens the shell inside the pod, at a terminal."""
        return self.command.startswith("kubectl exec ") and " -it " in self.command


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """A file of steps."""

    title: str
    steps: tuple[ScriptStep, ...]


def find_walkthrough() -> Path:
    """Return the folder of the walk-through; raise SandboxError where there is no checkout."""
    folder = Path(__file__).parents[3] / "examples" / "walkthrough"
    if not (folder / "env.sh").exists():
        raise SandboxError(f"the walk-through is told from a checkout of the project: no {folder}")
    return folder


def read(folder: Path) -> list[Chapter]:
    """Return the chapters in `folder` in order; raise SandboxError for text that is no step."""
    return [_chapter(path) for path in sorted((folder / "steps").glob("*.sh"))]


def _chapter(path: Path) -> Chapter:
    title, *lines = path.read_text().splitlines()
    if not title.startswith("# "):
        raise SandboxError(f"{path} does not start with the title of a chapter")
    return Chapter(title=title.removeprefix("# "), steps=tuple(_read_steps(path, lines)))


def _read_steps(path: Path, lines: list[str]) -> Iterator[ScriptStep]:
    starts = [number for number, line in enumerate(lines) if line.startswith("## ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        found = _STEP.fullmatch(lines[start])
        command = "\n".join(lines[start + 1 : end]).strip("\n")
        if found is None or not command:
            raise SandboxError(f"{path}: {lines[start]!r} starts no step")
        yield ScriptStep(
            id=found["id"],
            number=found["number"],
            title=found["title"],
            in_pod=bool(found["where"]),
            command=command,
        )


# ---- The check of each step

EXPECTED: Mapping[str, Check] = {
    "0": check.succeeded,
    "1": az.registered,
    "1b": az.colleague_signed_in,
    "2a": az.enabled,
    "2b": check.succeeded,
    "3": check.one_nmi_a_node,
    "4a": az.made,
    "4b": az.vault_made,
    "4c": az.secret_kept,
    "4d": az.identity_made,
    "4e": az.account_made,
    "4f": az.container_made,
    "4g": az.made_before,
    "5": check.ids_of_the_identity,
    "6": az.may_read_the_vault,
    "7a": az.role_given,
    "7b": az.role_given,
    "8": check.created,
    "8b": az.role_assigned,
    "9a": az.pod_identity_added,
    "9b": az.identity_and_binding,
    "9c": az.on_the_scale_set,
    "9d": az.cluster_may_use_it,
    "10a": check.created,
    "10b": az.running,
    "11": check.opens_shell,
    "12": check.token_of_the_identity,
    "13": check.secret,
    "14": check.log_names_everything,
    "15": az.signed_in_as_the_identity,
    "16a": az.uploaded,
    "16b": az.in_the_container,
    "17a": check.succeeded,
    "17b": check.created,
    "17c": check.created,
    "17d": check.secret,
    "18a": check.created,
    "18b": check.leaks,
    "19": check.identity_not_found,
    "20a": check.created,
    "20b": check.refused_elsewhere,
    "20c": az.log_says_why,
    "20d": check.explained,
    "21a": check.succeeded,
    "21b": check.vault_refuses,
    "22a": check.succeeded,
    "22b": check.fails_closed,
    "22c": check.succeeded,
    "22d": check.token_again,
    "23a": az.pod_identity_deleted,
    "23b": az.objects_gone,
    "23c": az.off_the_scale_set,
    "23d": az.refused_again,
}
"""By the step's id."""

_PATIENCE = 90.0
"""Seconds for one step; the longest waits for Azure to know a role everywhere."""


def steps_of(chapters: Sequence[Chapter]) -> list[tuple[str, list[Step]]]:
    """Return the steps of the story; raise SandboxError unless each has its check."""
    ids = [written.id for chapter in chapters for written in chapter.steps]
    if sorted(ids) != sorted(EXPECTED):
        odd = ", ".join(sorted(set(ids) ^ set(EXPECTED)) or sorted(ids))
        raise SandboxError(f"steps and expectations do not pair: {odd}")
    return [(chapter.title, [_step(written) for written in chapter.steps]) for chapter in chapters]


def _step(written: ScriptStep) -> Step:
    return Step(
        number=written.number,
        name=written.title,
        command=written.command,
        check=EXPECTED[written.id],
        in_pod=written.in_pod,
        opens_pod=written.opens_pod,
        at_terminal=written.opens_pod,
        seconds=_PATIENCE,
    )
