"""The fenced blocks of the documents, and how a promised output is compared with a real one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\S*)[ \t]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FOLDERS = ("docs", "examples", "extensions", "sandbox")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(page for each in _FOLDERS for page in (ROOT / each).rglob("*.md"))]
)


@dataclass(frozen=True)
class Block:
    document: str
    line: int
    language: str
    mark: str
    """The words after the language of a code block: run, setup, needs=azure."""
    text: str


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text()
    return [
        Block(
            str(path.relative_to(ROOT)),
            text.count("\n", 0, found.start()) + 1,
            found[1],
            found[2],
            found[3],
        )
        for found in _FENCE.finditer(text)
    ]


def promised(output: str, pattern: str) -> bool:
    """Whether `output` matches `pattern`: `…` matches anything, and spaces are folded."""

    def folded(text: str) -> str:
        return " ".join(text.split())

    parts = (re.escape(folded(part)) for part in folded(pattern).split("…"))
    return re.fullmatch(r"\s*.*?\s*".join(parts), folded(output), re.DOTALL) is not None
