"""The third thousand seeds of the simulation (`scenarios`)."""

from __future__ import annotations

import pytest

from tests.mic.scenarios import failing, hundreds


@pytest.mark.parametrize("seeds", hundreds(2), ids=str)
def test_whatever_fails_all_that_must_hold_holds_and_all_settles(seeds: range) -> None:
    assert not (replay := failing(seeds)), replay
