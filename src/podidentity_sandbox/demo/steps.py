"""The steps of a story as they are written down: what a person types, and what each must show.

Two stories are: `STORY`, with the sandbox's own commands, and examples/walkthrough, with the real
az and kubectl. Each file of their steps is a chapter:

    # The chapter's title

    ## 9a The step's title                     ## 12 in the pod: Typed into the shell there
    # must show: pod identity added            the name of its check in `checks`
    the commands, one or more lines

A number is that of the published walk-through's step, as docs/tutorials/first-token.md lists them;
steps that it has not have a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from podidentity_sandbox.demo import checks
from podidentity_sandbox.demo.story import Check, Step
from podidentity_sandbox.world import SandboxError

STORY = Path(__file__).with_name("steps")
_STEP = re.compile(
    r"## (?P<number>\d+|[a-z]+)[a-z]? (?P<where>in the pod: )?(?P<name>.+)\n"
    r"# must show: (?P<check>[a-z ]+)\n"
    r"(?P<command>(?s:.+))"
)


def find_walkthrough() -> Path:
    """Return the folder of the walk-through; raise SandboxError where there is no checkout."""
    folder = Path(__file__).parents[3] / "examples" / "walkthrough"
    if not (folder / "env.sh").exists():
        raise SandboxError(f"the walk-through is told from a checkout of the project: no {folder}")
    return folder


def read(folder: Path) -> list[tuple[str, list[Step]]]:
    """Return the chapters in `folder`, each a title and its steps; raise SandboxError."""
    return [_chapter(path) for path in sorted(folder.glob("*.sh"))]


def _chapter(path: Path) -> tuple[str, list[Step]]:
    title, _, text = path.read_text().partition("\n")
    if not title.startswith("# "):
        raise SandboxError(f"{path} does not start with the title of a chapter")
    return title.removeprefix("# "), list(_steps(path, text))


def _steps(path: Path, text: str) -> Iterator[Step]:
    for written in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]:
        found = _STEP.fullmatch(written.strip("\n"))
        check: Check | None = found and vars(checks).get(found["check"].replace(" ", "_"))
        if found is None or check is None:
            title = written.splitlines()[0]
            raise SandboxError(f"{path}: {title!r} starts no step with a check of ours")
        yield Step(
            number=found["number"],
            name=found["name"],
            command=found["command"],
            check=check,
            in_pod=bool(found["where"]),
            opens_pod=check is checks.opens_shell,
            exit=checks.FAILING.get(check, 0),
        )
