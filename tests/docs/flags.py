"""The tables of flags in docs/reference/nmi.md and mic.md, made of the settings themselves.

`python -m tests.docs.flags` (`scripts/reference`) writes them.
"""

from __future__ import annotations

from pathlib import Path

from podidentity.cli.nmi import shown
from podidentity.settings import (
    OLD_FLAGS,
    OLD_FLAGS_OF_MIC,
    MicSettings,
    NmiSettings,
    settings_flags,
)
from tests.docs.blocks import ROOT

PAGES = {
    ROOT / "docs/reference/nmi.md": (NmiSettings, OLD_FLAGS),
    ROOT / "docs/reference/mic.md": (MicSettings, OLD_FLAGS_OF_MIC),
}
BEGIN, END = "<!-- flags: written by scripts/reference -->\n", "<!-- end of flags -->\n"


def table(page: Path) -> str:
    """Return the rows of all flags of a page, and of those without effect."""
    settings, old = PAGES[page]
    rows = ["| flag | default | variable | meaning |", "|---|---|---|---|"]
    for _, flag, default in settings_flags(settings):
        names = ", ".join(f"`{name}`" for name in flag.names)
        choices = f" One of {', '.join(f'`{each}`' for each in flag.choices)}." * bool(flag.choices)
        repeated = " May be repeated." * flag.repeated
        variable = f"`{flag.envvar}`" if flag.envvar else ""
        text = f"{flag.text}{choices}{repeated}".replace("|", "\\|")
        rows.append(f"| {names} | {shown(flag, default)} | {variable} | {text} |")
    rows += [f"| `--{each.name}` | | | {each.text} |" for each in old]
    return "\n".join(" ".join(row.split()) for row in rows) + "\n"


def written(page: Path) -> str:
    """Return the text of a page with the table as it should be."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has lost the lines that mark the table of flags")
    return f"{before}{begin}\n{table(page)}\n{end}{after}"


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(written(each))
