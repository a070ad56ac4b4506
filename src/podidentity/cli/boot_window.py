"""What keeps pods from IMDS while a node starts, until NMI is up: a part of `podidentity check`.

Of a start-up taint the cluster knows whether NMI takes it off, not whether a new node has it. Of
what else closes a node NMI tells by events; a node of which nothing is told counts as open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

HEAD = "While a node starts, until NMI is up on it:"
WAYS = "How to close it: docs/how-to/close-the-boot-window.md"


def lines(taint: str, closed_by: Mapping[str, str]) -> Iterator[str]:
    """Yield lines for a terminal: which nodes are closed, and by what. No node, no line.

    `taint` is the key that NMI takes off, "" for none. `closed_by` has for each node with NMI what
    closes it besides, "" where nothing is known.
    """
    if not closed_by:
        return
    yield HEAD
    yield (
        f"  new nodes: closed, where their pools give them taint {taint}: NMI takes it off"
        if taint
        else _open("  new nodes: NMI takes no start-up taint off")
    )
    for what, names in sorted(_alike(closed_by).items()):
        where = f"  restarts of {', '.join(names)}"
        yield f"{where}: closed by {what}" if what else _open(f"{where}: nothing known closes them")
    if not taint or "" in closed_by.values():
        yield WAYS


def _alike(closed_by: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node, what in sorted(closed_by.items()):
        found.setdefault(what, []).append(node)
    return found


def _open(text: str) -> str:
    return click.style(f"{text}: pods reach every identity of the machine", fg="red")
