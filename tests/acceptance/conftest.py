"""What all acceptance tests share: a failure tells weather and agents' logs; weather takes time.

To replay a failure, say its weather and seed in PODIDENTITY_TEST_WEATHER (a name or a file) and
PODIDENTITY_TEST_WEATHER_SEED.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

import pytest

from podidentity_sandbox import weather
from tests.acceptance.sandbox import TIMEOUT, UP, said_by_agents

_HERE = Path(__file__).parent
_BEGAN = pytest.StashKey[float]()
"""When the test began, in seconds since the epoch."""
_FILES_BEGAN: dict[Path, float] = {}
"""When the first test of each file began."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test of this folder the time that the weather takes."""
    for item in items:
        if item.path.is_relative_to(_HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note when a test and its file began: logs that were written before are not shown."""
    item.stash[_BEGAN] = time.time()
    _FILES_BEGAN.setdefault(item.path, item.stash[_BEGAN])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001 - pytest's name
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with a failure which weather its sandboxes have, and what the agents said."""
    report = yield
    if report.failed:
        told = [f"{name}: {weather.read(folder)}" for name, folder in UP.items()]
        report.sections.append(("weather", "\n".join(told)))
        # What a fixture of the file ended with is shown for each of its tests.
        since = _FILES_BEGAN[item.path] if report.when == "setup" else item.stash[_BEGAN]
        for name, folder in UP.items():
            report.sections.append((f"agents of {name}", said_by_agents(folder, since)))
    return report
