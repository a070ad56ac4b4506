"""The documents' commands, run as a reader would, in one shell each."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from podidentity_sandbox.demo.shell import Shell
from tests.docs.blocks import DOCUMENTS, ROOT, blocks_of, promised
from tests.sandboxes import own

# A reader has one tutorial at a time; test runs may have several.
READERS, OURS = "tutorial", own("tutorial")
RUNNABLE = [path for path in DOCUMENTS if any(block.mark == "run" for block in blocks_of(path))]


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: str(path.relative_to(ROOT)))
async def test_a_document_read_from_top_to_bottom_works_and_shows_what_it_promises(
    path: Path,
) -> None:
    shell = await Shell.open(["bash", "--noprofile", "--norc"], os.environ)
    try:
        await shell.run(f"cd {ROOT}; export HOME=$(mktemp -d)")
        for block, following in pairwise([*blocks_of(path), None]):
            if block is None or block.mark != "run":
                continue
            where = f"{block.document}:{block.line}"
            ran = await shell.run(
                f"set -o pipefail; {block.text.replace(READERS, OURS)}", seconds=90
            )
            assert ran.exit == 0, f"{where}: {ran.output}"
            if following is not None and following.language == "text":
                assert promised(ran.output, following.text), f"{where}: {ran.output}"
    finally:
        await shell.run(f"podidentity sandbox down --name {OURS}", seconds=60)
        await shell.close()
