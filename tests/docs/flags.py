"""The table of the agent's flags in docs/reference/nmi.md, made of the settings themselves.

`python -m tests.docs.flags` (`scripts/reference`) writes it.
"""

from __future__ import annotations

from podidentity.cli.nmi import shown
from podidentity.settings import OLD_FLAGS, settings_flags
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs/reference/nmi.md"
BEGIN, END = "<!-- flags: written by scripts/reference -->\n", "<!-- end of flags -->\n"


def table() -> str:
    """Return the rows of all flags, and of those without effect."""
    rows = ["| flag | default | variable | meaning |", "|---|---|---|---|"]
    for _, flag, default in settings_flags():
        names = ", ".join(f"`{name}`" for name in flag.names)
        choices = f" One of {', '.join(f'`{each}`' for each in flag.choices)}." * bool(flag.choices)
        repeated = " May be repeated." * flag.repeated
        variable = f"`{flag.envvar}`" if flag.envvar else ""
        text = f"{flag.text}{choices}{repeated}".replace("|", "\\|")
        rows.append(f"| {names} | {shown(flag, default)} | {variable} | {text} |")
    rows += [f"| `--{each.name}` | | | {each.text} |" for each in OLD_FLAGS]
    return "\n".join(" ".join(row.split()) for row in rows) + "\n"


def written(page: str) -> str:
    """Return the page with the table as it should be."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} has lost the lines that mark the table of flags")
    return f"{before}{begin}\n{table()}\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
