"""What a Prometheus has of NMI and MIC, for the queries of the dashboards.

It is what the programs expose, scraped every minute of an hour from an instance each: counters rise
by what they stand at. promtool evaluates the queries over it with Prometheus' own engine.
https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from podidentity.core.hosts import HostIdentities
from podidentity.core.resources import Assignment
from podidentity.mic.calls import CreateRecord, Failure, Fault, ReadHost, UpdateRecord
from podidentity.mic.metrics import add_state
from podidentity.telemetry.metrics import render
from tests.docs.blocks import ROOT
from tests.fakes import NOW
from tests.mic.test_metrics import MACHINE, REF, SET, Scene, stored

_HOUR = 60
"""Scrapes."""


def of_nmi() -> str:
    """Return what NMI exposes, that has given and refused tokens."""
    return (ROOT / "tests/nmi/scrape.txt").read_text()


def of_mic() -> str:
    """Return what MIC exposes, that leads, and that Azure and the API server refused something."""
    scene = Scene()
    add_state(
        scene.registry,
        leading=lambda: True,
        elections=lambda: 1,
        paused=lambda: (False, 0),
        watched=lambda: [("pods", True)],
    )
    created, assigned = stored(Assignment.CREATED), stored(Assignment.ASSIGNED)
    assert created.record
    assert assigned.record
    scene.done(UpdateRecord(REF, assigned.record, "u", "1", NOW - 2), assigned)
    scene.done(CreateRecord(created.record, NOW), Failure(kind=Fault.CONFLICT))
    scene.done(ReadHost(SET), HostIdentities(), 1)
    scene.done(ReadHost(MACHINE), Failure(kind=Fault.THROTTLED), 1)
    return render(scene.registry)


def _series(scrape: str, instance: str) -> Iterator[dict[str, str]]:
    """Yield what an hour of scrapes is, in promtool's notation."""
    kinds = {}
    for line in scrape.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name] = kind
        elif line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            metric, brace, labels = name.partition("{")
            at = f'{{instance="{instance}"{"," if brace else "}"}{labels}'
            rises = kinds.get(metric) != "gauge"
            yield {
                "series": metric + at,
                "values": f"{value}+{value if rises else 0}x{_HOUR}",
            }


def without_value(promtool: str, folder: Path, queries: Sequence[str]) -> str:
    """Return which queries find no number at the end of that hour, in promtool's words; "" none."""
    found = [
        # NaN, as of a quantile of nothing, is no number, and compares so.
        {
            "expr": f"count(({_bare(query)}) >= 0) > bool 0",
            "eval_time": f"{_HOUR}m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for query in queries
    ]
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [*_series(of_nmi(), "nmi:9090"), *_series(of_mic(), "mic:8888")],
        "promql_expr_test": found,
    }
    written = folder / "queries.yaml"
    written.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    ran = subprocess.run(
        [promtool, "test", "rules", written], capture_output=True, text=True, check=False
    )
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def _bare(query: str) -> str:
    """Return a query that does not say zero where nothing is, and asks of all what it counts."""
    bare = query.removesuffix(" or vector(0)")
    return bare if bare == query else bare.replace(" == 0)", ")")


def lost(ours: Any, known: Any, *at: str) -> Iterator[str]:
    """Yield the places of what we say in a dashboard, and Grafana's model has otherwise or not."""
    if isinstance(ours, dict) and isinstance(known, dict):
        for key, value in ours.items():
            yield from lost(value, known.get(key), *at, key)
    elif isinstance(ours, list) and isinstance(known, list) and len(ours) == len(known):
        for number, pair in enumerate(zip(ours, known, strict=True)):
            yield from lost(*pair, *at, str(number))
    elif ours != known:
        yield ".".join(at)
