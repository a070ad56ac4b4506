"""The log of a take-over is of the commands that the page on it has."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT, Block, blocks_of

PAGE = [*blocks_of(ROOT / "docs/how-to/take-over.md")]
LOG = [*blocks_of(ROOT / "docs/explanation/take-over-log.md")]
HELM = "helm upgrade --install aad-pod-identity …"
"""A stand-in comes by its manifest in the place of the archived chart."""


def typed(blocks: list[Block]) -> list[str]:
    text = "".join(each.text for each in blocks).replace(" \\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines()]


def logged(block: Block) -> list[str]:
    return re.findall(r"^ *[0-9.]+ s  \$ (.*)$", block.text, re.MULTILINE)


def test_its_commands_are_those_of_the_page_there_and_back() -> None:
    _, there, back = LOG
    assert logged(there) == typed([each for each in PAGE if each.mark == "run=take-over"])
    *before, leave = [each for each in PAGE if each.mark == "run=take-over-back"]
    assert logged(back) == [*typed(before), HELM, *typed([leave])]
