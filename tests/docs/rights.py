"""The tables in docs/reference/rights.md, made of what the commands and NMI's manifest say.

`python -m tests.docs.rights` (`scripts/reference`) writes them.
"""

from __future__ import annotations

from collections.abc import Iterable

from podidentity import manifests
from podidentity.cli.cluster_rights import Where, held_by
from podidentity.cli.needed_rights import COMMANDS
from podidentity.cli.parts import PARTS
from podidentity.cli.rights import FAILS, rows_of
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs/reference/rights.md"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def commands() -> str:
    """Return a table for each command, and one of the parts of their work."""
    text = []
    for name, needs in COMMANDS.items():
        text += [f"### podidentity {name}", ""]
        text += [
            _row(("where", "resource", "verbs", "only", "for", "without it")),
            "|---" * 6 + "|",
        ]
        for _, where, resource, verbs, only, parts, without in rows_of(name, needs):
            codes = [", ".join(f"`{each}`" for each in cell.split(",")) for cell in (verbs, only)]
            codes = ["" if cell == "`-`" else cell for cell in codes]
            shown = "" if parts == "-" else parts.replace(",", ", ")
            otherwise = "" if without == FAILS else without
            text.append(_row((where, f"`{resource}`", *codes, shown, otherwise)))
        text.append("")
    text += ["### Parts", "", _row(("part", "of the command's work")), "|---|---|"]
    text += [_row(each) for each in PARTS.items()]
    return "\n".join(text) + "\n"


def nmi() -> str:
    """Return the table of NMI's own rights."""
    (role,) = [
        each
        for each in manifests.nmi()
        if (each["kind"], each["metadata"]["name"]) == ("ClusterRole", manifests.ACCOUNT)
    ]
    text = [_row(("resource", "verbs")), "|---|---|"]
    text += [
        _row((f"`{each.resource}`", ", ".join(f"`{verb}`" for verb in each.verbs)))
        for each in held_by([role])
    ]
    return "\n".join(text) + "\n"


def mic() -> str:
    """Return the table of MIC's own rights."""
    text = [_row(("where", "resource", "verbs", "only")), "|---" * 4 + "|"]
    text += [
        _row(
            (
                {Where.NMI: "MIC's namespace"}.get(each.where, each.where.value),
                f"`{each.resource}`",
                ", ".join(f"`{verb}`" for verb in each.verbs),
                ", ".join(f"`{name}`" for name in each.names),
            )
        )
        for each in held_by(manifests.mic())
    ]
    return "\n".join(text) + "\n"


def written(page: str) -> str:
    """Return the page with the tables as they should be."""
    for name, end, table in (
        ("rights", "rights", commands()),
        ("nmi", "nmi", nmi()),
        ("mic", "mic", mic()),
    ):
        before, begin, rest = page.partition(f"<!-- {name}: written by scripts/reference -->\n")
        _, close, after = rest.partition(f"<!-- end of {end} -->\n")
        if not (begin and close):
            raise ValueError(f"{PAGE} has lost the lines that mark the table {name}")
        page = f"{before}{begin}\n{table}\n{close}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
