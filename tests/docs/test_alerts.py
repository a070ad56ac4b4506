from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from tests.docs.blocks import ROOT

ALERTS = ROOT / "docs/how-to/alerts.yaml"
SCRAPE = (ROOT / "tests/nmi/scrape.txt").read_text()
PAGE = (ROOT / "docs/reference/metrics.md").read_text()
RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_each_alert_asks_for_numbers_that_there_are_and_says_what_to_do(
    rule: dict[str, str],
) -> None:
    names = re.findall(r"podidentity_\w+", rule["expr"])
    assert names
    for name in names:
        assert f"# TYPE {name} " in SCRAPE
    assert rule["alert"] in (ROOT / "docs/how-to/watch-nmi.md").read_text()


def test_prometheus_reads_the_alerts() -> None:
    promtool = shutil.which("promtool")
    if promtool:
        subprocess.run([promtool, "check", "rules", ALERTS], check=True, capture_output=True)


@pytest.mark.parametrize("name", re.findall(r"^# TYPE (\S+)", SCRAPE, re.MULTILINE))
def test_each_metric_is_on_its_page(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_each_metric_of_the_page_is_scraped() -> None:
    for name in re.findall(r"^\| `((?:aad)?podidentity_\w+)`", PAGE, re.MULTILINE):
        assert f"# TYPE {name} " in SCRAPE
