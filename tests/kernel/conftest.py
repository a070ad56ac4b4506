from __future__ import annotations

import os

import pytest

KINDS = ["root", "rootless"] if os.geteuid() == 0 else ["rootless"]


@pytest.fixture(params=KINDS)
def rootless(request: pytest.FixtureRequest) -> bool:
    """Both kinds of world where this process is root; else the one that it can make."""
    return bool(request.param == "rootless")
