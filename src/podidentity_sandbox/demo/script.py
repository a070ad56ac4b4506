"""Reads the walk-through as its author keeps it: examples/walkthrough/steps, one file a chapter.

A file starts with `# ` and the chapter's title. Each step starts with a line `## ID Title`, or
`## ID in the pod: Title` where it is typed into the shell inside the pod; its commands follow. The
number in the id is that of the published walk-through's step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from podidentity_sandbox.world import SandboxError

_STEP = re.compile(r"## (?P<id>(?P<number>\d+)[a-z]?) (?P<where>in the pod: )?(?P<title>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
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
    scenes: tuple[Scene, ...]


def find_walkthrough() -> Path:
    """Return the folder of the walk-through; raise SandboxError where there is no checkout."""
    folder = Path(__file__).parents[3] / "examples" / "walkthrough"
    if not (folder / "env.sh").exists():
        raise SandboxError(f"the walk-through is told from a checkout of the project: no {folder}")
    return folder


def read(folder: Path) -> list[Chapter]:
    """Return the chapters in `folder` in order; raise SandboxError for what is no step."""
    return [_chapter(path) for path in sorted((folder / "steps").glob("*.sh"))]


def _chapter(path: Path) -> Chapter:
    title, *lines = path.read_text().splitlines()
    if not title.startswith("# "):
        raise SandboxError(f"{path} does not start with the title of a chapter")
    return Chapter(title=title.removeprefix("# "), scenes=tuple(_scenes(path, lines)))


def _scenes(path: Path, lines: list[str]) -> Iterator[Scene]:
    starts = [number for number, line in enumerate(lines) if line.startswith("## ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        found = _STEP.fullmatch(lines[start])
        command = "\n".join(lines[start + 1 : end]).strip("\n")
        if found is None or not command:
            raise SandboxError(f"{path}: {lines[start]!r} starts no step")
        yield Scene(
            id=found["id"],
            number=found["number"],
            title=found["title"],
            in_pod=bool(found["where"]),
            command=command,
        )
