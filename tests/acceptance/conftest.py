"""What all acceptance tests share: the weather is told when one fails, and it takes its time.

To replay a failure, say its weather and seed in PODIDENTITY_TEST_WEATHER (a name or a file) and
PODIDENTITY_TEST_WEATHER_SEED.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from podidentity_sandbox import weather
from tests.acceptance.sandbox import UP

TIMEOUT = 400
"""Seconds of a test: in real weather a change of the machines alone takes up to a minute."""
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test of this folder the time that the weather takes."""
    for item in items:
        if item.path.is_relative_to(_HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,  # noqa: ARG001 - pytest's name
    call: pytest.CallInfo[None],  # noqa: ARG001
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with a failure which weather its sandboxes have."""
    report = yield
    if report.failed:
        told = [f"{name}: {weather.read(folder)}" for name, folder in UP.items()]
        report.sections.append(("weather", "\n".join(told)))
    return report
