from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import DOCUMENTS, ROOT, Block, blocks_of, promised

COMMANDS = [
    block for path in DOCUMENTS for block in blocks_of(path) if block.language in {"sh", "bash"}
]
RUN = {
    "run",
    "setup",
    "run=another-port",
    "run=az",
    "run=az-in-pod",
    "run=boot",
    "run=cluster",
    "run=image",
    "run=node",
    "run=release",
    "run=runtime",
    "run=sandbox",
    "run=take-over",
    "run=take-over-back",
    "run=take-over-leftovers",
}


def shown(block: Block) -> str:
    return f"{block.document}:{block.line}"


@pytest.mark.parametrize("block", COMMANDS, ids=shown)
def test_each_command_of_the_documents_is_run_by_a_test_or_says_what_it_needs(block: Block) -> None:
    """`run`: by tests/acceptance/test_documents.py; `setup`: by .ci/run; else a real thing.

    `run=az`, `run=az-in-pod`: by tests/acceptance/test_walkthrough.py.
    `run=another-port`: by tests/acceptance/test_take_over.py.
    `run=boot`: by tests/acceptance/planes/test_boot_window.py.
    `run=cluster`: by tests/acceptance/test_seeing.py and test_leaving.py, the changelog's by
    test_from_0_1.py.
    `run=image`: by tests/deploy/test_image.py.
    `run=runtime`: by tests/acceptance/runtime/test_by_hand.py.
    `run=sandbox`: by tests/sandbox/world/test_commands.py.
    `run=take-over`, `run=take-over-back`, `run=take-over-leftovers`: by
    tests/acceptance/test_take_over.py.
    `run=node`: by tests/kernel/test_interception.py.
    `run=release`: by tests/deploy/test_release.py.
    `bench`: a benchmark, run by hand, because its figures are of a machine.
    """
    assert block.mark in {*RUN, "bench", "needs=azure", "needs=az", "needs=key", "needs=node"}


def test_most_commands_are_run() -> None:
    run = [block for block in COMMANDS if block.mark in RUN]
    assert len(run) >= 60
    assert len(run) > len(COMMANDS) / 2


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_link_to_a_file_or_heading_of_ours_leads_somewhere(path: Path) -> None:
    for file, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", path.read_text()):
        target = path.parent / file if file else path
        assert target.exists(), file
        assert not heading or heading in headings(target), f"{file}#{heading}"


def headings(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in found}


@pytest.mark.parametrize(
    ("output", "pattern", "holds"),
    [
        ("a b", "a   b\n", True),
        ("a xyz b", "a … b", True),
        ("a b c", "a … b", False),
        ("nmi-1 Running 3s", "nmi-… Running …", True),
        ("", "…", True),
        ("x", "y", False),
    ],
)
def test_an_ellipsis_in_a_promised_output_stands_for_anything(
    output: str, pattern: str, *, holds: bool
) -> None:
    assert promised(output, pattern) is holds
