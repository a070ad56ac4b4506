"""What Azure's SDKs make of pod identity: tokens, secrets, blobs, and each refusal in its words."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import pytest

from tests.acceptance.sdks.situations import EXPECTED, ROOT, SDKS, Outcomes, every_outcome

# The SDKs are run once, by whichever test comes first.
ROWS = [
    (sdk, situation, row) for sdk in SDKS for situation in EXPECTED for row in EXPECTED[situation]
]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcomes]:
    subprocess.run([ROOT / "scripts/setup-sdks"], check=True)
    return asyncio.run(every_outcome())


@pytest.mark.parametrize(
    ("sdk", "situation", "row"), ROWS, ids=[f"{s}, {where}: {r['it']}" for s, where, r in ROWS]
)
def test_an_sdk_in_a_pod(
    outcomes: dict[str, Outcomes], sdk: str, situation: str, row: dict[str, Any]
) -> None:
    outcome = outcomes[situation][sdk, row["it"]]
    if "value" in row:
        assert outcome.get("value") == row["value"], outcome
    else:
        error, words = row["sdks"][sdk]
        assert outcome.get("error") == error, outcome
        assert words in outcome["message"]
    assert outcome["seconds"] < row.get("within", 10)
