"""What keeps pods from IMDS while a node starts, until NMI is up: a part of `podidentity check`.

Of a start-up taint the cluster knows whether NMI takes it off, not whether a new node has it. Of
what else closes a node NMI tells by events. `checks.nodes.open_while_starting` is the finding about
nodes that nothing closes; the lines here are only about the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

HEAD = "While a node starts, until NMI is up on it:"


def lines(taint: str, closed_by: Mapping[str, str]) -> Iterator[str]:
    """Yield lines for people: which nodes are closed, and by what. No node, no line.

    `taint` is the key that NMI takes off, "" for none. `closed_by` has for each node with NMI what
    closes it besides, "" where nothing is known.
    """
    alike: dict[str, list[str]] = {}
    for node, what in sorted(closed_by.items()):
        alike.setdefault(what, []).append(node)
    alike.pop("", None)
    if not closed_by or not (taint or alike):
        return
    yield HEAD
    if taint:
        yield f"  new nodes: closed, where their pools give them taint {taint}: NMI takes it off"
    for what, names in sorted(alike.items()):
        yield f"  restarts of {', '.join(names)}: closed by {what}"
