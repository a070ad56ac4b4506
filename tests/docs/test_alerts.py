from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from podidentity.mic.metrics import MicMetrics, add_state
from podidentity.telemetry.metrics import Registry, render
from podidentity.wire.debug_access import METRICS_AUDIENCE
from tests.docs.blocks import ROOT, blocks_of

ALERTS = ROOT / "docs/how-to/alerts.yaml"
SCRAPE = (ROOT / "tests/nmi/scrape.txt").read_text()
PAGE = (ROOT / "docs/reference/metrics.md").read_text()
RULES, RULES_OF_MIC = (each["rules"] for each in yaml.safe_load(ALERTS.read_text())["groups"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_each_alert_asks_for_numbers_that_there_are_and_says_what_to_do(
    rule: dict[str, str],
) -> None:
    names = re.findall(r"podidentity_\w+", rule["expr"])
    assert names
    for name in names:
        assert f"# TYPE {name} " in SCRAPE
    assert rule["alert"] in (ROOT / "docs/how-to/watch-nmi.md").read_text()


@pytest.mark.parametrize("rule", RULES_OF_MIC, ids=lambda rule: str(rule["alert"]))
def test_each_alert_of_mic_asks_for_numbers_that_there_are_and_says_what_to_do(
    rule: dict[str, str],
) -> None:
    registry = Registry()
    MicMetrics(registry, lambda: 0.0)
    add_state(
        registry,
        leading=lambda: True,
        elections=lambda: 1,
        paused=lambda: (False, 0),
        watched=list,
    )
    scrape = render(registry)
    names = re.findall(r"podidentity_\w+", rule["expr"])
    assert names
    for name in names:
        assert f"# TYPE {name} " in scrape
    assert rule["alert"] in (ROOT / "docs/how-to/watch-nmi.md").read_text()


@pytest.mark.parametrize("rule", [*RULES, *RULES_OF_MIC], ids=lambda rule: str(rule["alert"]))
def test_each_alert_leads_to_its_section(rule: dict[str, Any]) -> None:
    page, _, section = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert section in {heading.lower() for heading in headings}


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: ./scripts/setup as root does it")
    return found


def test_prometheus_reads_the_alerts(promtool: str) -> None:
    subprocess.run([promtool, "check", "rules", ALERTS], check=True, capture_output=True)


def test_prometheus_reads_what_the_documents_tell_it_to_scrape(
    promtool: str, tmp_path: Path
) -> None:
    """Its operator makes relabelings of a PodMonitor part of such a configuration."""
    volumes, (job,) = _yamls_of("docs/reference/metrics.md")
    [source] = volumes["volumes"][0]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == METRICS_AUDIENCE
    [monitor] = _yamls_of("docs/how-to/watch-nmi.md")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint.keys() == {"relabelings"}, "a port would be looked for, and none is declared"
    pods = {
        "job_name": "pods",
        "kubernetes_sd_configs": [{"role": "pod"}],
        "relabel_configs": [
            {_snake(key): value for key, value in each.items()} for each in endpoint["relabelings"]
        ],
    }
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(yaml.safe_dump({"scrape_configs": [job, pods]}))
    check = [promtool, "check", "config", "--syntax-only", str(configuration)]
    subprocess.run(check, check=True, capture_output=True)


def _yamls_of(document: str) -> list[Any]:
    blocks = blocks_of(ROOT / document)
    return [yaml.safe_load(block.text) for block in blocks if block.language == "yaml"]


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


@pytest.mark.parametrize("name", re.findall(r"^# TYPE (\S+)", SCRAPE, re.MULTILINE))
def test_each_metric_is_on_its_page(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_each_metric_of_the_page_is_scraped() -> None:
    for name in re.findall(r"^\| `((?:aad)?podidentity_\w+)`", PAGE, re.MULTILINE):
        assert f"# TYPE {name} " in SCRAPE
