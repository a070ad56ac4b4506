"""What all acceptance tests share: a failure tells weather and agents' logs; weather takes time.

In a storm (`./scripts/test --storm`) a failure that names what the weather did is expected: it
shows as xfailed, with the line of the journal: what struck since the test began, or the very object
that the refusal names. Any other one is a fault.

To replay a failure, say its weather and seed in PODIDENTITY_TEST_WEATHER (a name or a file) and
PODIDENTITY_TEST_WEATHER_SEED.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

import pytest

from podidentity_sandbox import weather
from tests.acceptance.causes import cause, names
from tests.acceptance.sandbox import SAID, STORM, STRUCK, TIMEOUT, UP, said_by_agents

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test of this folder the time that the weather takes."""
    for item in items:
        if item.path.is_relative_to(_HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,  # noqa: ARG001 - pytest's name
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with a failure which weather its sandboxes have."""
    report = yield
    if report.failed:
        told = [f"{name}: {weather.read(folder)}" for name, folder in UP.items()]
        report.sections.append(("weather", "\n".join(told)))
        struck = [*STRUCK, *(each for at in UP.values() for each in weather.journal(at))]
        said = "\n".join([str(call.excinfo and call.excinfo.value), *SAID])
        # What a fixture of the file ended with is shown for each of its tests.
        since = _FILE_BEGAN[0] if report.when == "setup" else _BEGAN[0]
        for name, folder in UP.items():
            report.sections.append((f"agents of {name}", said_by_agents(folder, since)))
        if STORM and (found := cause(said, struck, since)):
            report.outcome = "skipped"
            named = next(line for line in said.splitlines() if names(line, found))
            what = " ".join(str(found).split())
            report.wasxfail = f"the storm: {what}, named in: {named.strip()[:_LONGEST]}"
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget what was said in the test before, and what befell the sandboxes of another file."""
    SAID.clear()
    _BEGAN[0] = time.time()
    if item.path != _FILE.setdefault("of", item.path):
        _FILE["of"] = item.path
        _FILE_BEGAN[0] = _BEGAN[0]
        STRUCK.clear()


_LONGEST = 300
_BEGAN = [0.0]
"""When the test that runs began, in seconds since the epoch."""
_FILE_BEGAN = [0.0]
"""When the first test of its file began."""
_FILE: dict[str, Path] = {}
"""The file of the test that runs."""
