"""A skipped test is a promise that nobody keeps on that machine: CI takes only those that it knows.

PODIDENTITY_SKIPS names the list (`.ci/skips.toml`: how a reason begins, and why it is taken). Any
other test that is skipped, or expected to fail and does, fails by it. Without the variable, as on
the machine of a person who has not everything, skips are shown and pass.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Generator
from pathlib import Path

import pytest


def taken(list_of_reasons: Path) -> tuple[str, ...]:
    """Return how the reasons that are taken begin."""
    return tuple(tomllib.loads(list_of_reasons.read_text()))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report, item.config)
    if report.failed:
        report.__dict__.pop("wasxfail", None)  # else it counts as one that may fail
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report, collector.config)
    return report


def _judge(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    given = os.environ.get("PODIDENTITY_SKIPS")
    if given is None or not report.skipped:
        return
    reason = _reason(report)
    if not reason.startswith(taken(config.rootpath / given)):
        report.outcome = "failed"
        report.longrepr = f"{reason!r} is no reason to skip a test here: {given} lists those"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail).removeprefix("reason: ")
    assert isinstance(report.longrepr, tuple)
    return report.longrepr[2].removeprefix("Skipped: ")
