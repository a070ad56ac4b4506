"""A whole scrape, to the byte, and read by Prometheus' own tool where there is one."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from podidentity import __version__
from podidentity.core.attestation import AttestationMode, Verdict
from podidentity.core.errors import TokenThrottled, UnprovenCaller
from podidentity.nmi.reporting.instrumented import (
    MeasuredAttestor,
    MeasuredIssuers,
    kubernetes_errors,
)
from podidentity.nmi.reporting.metrics import (
    NmiMetrics,
    add_attestation,
    add_connections,
    add_interception,
    add_process,
    add_tokens,
    add_watches,
    add_writers,
)
from podidentity.nmi.reporting.scrapes import MEMORY, Scrapes
from podidentity.nmi.request.outcome import Evidence
from podidentity.nmi.server.messages import Caller, Request
from podidentity.telemetry.metrics import Registry
from podidentity.wire.metadata import Route
from tests.fakes import (
    ADDRESS,
    VAULT,
    FakeAttestor,
    FakeClock,
    FakeTokenSource,
    grant,
    pod,
)
from tests.nmi.outcomes import QUERY, granted, refused
from tests.nmi.recorded import MemoryWriter, Recorded

GOLDEN = Path(__file__).with_name("scrape.txt")


class Net:
    repairs = 2

    def interception_problems(self) -> tuple[str, ...]:
        return ()


class Watch:
    what, synced, trouble, age = "pods of node n1", True, "", 12.5


class Lost(Watch):
    what, trouble, age = "azureidentities", "away", 300.0


async def lived() -> Recorded:
    """Return the numbers of an agent that has seen a little of everything."""
    clock = FakeClock()
    record = Recorded(clock)
    metrics = record.metrics
    evidence = Evidence(verdict=Verdict.FORGED)
    forged = refused(UnprovenCaller("x"), None, claimed=(pod(),), evidence=evidence)
    await record.record.token(QUERY, granted(), 200, 0.0)
    clock.advance(0.003)
    await record.record.token(QUERY, granted(), 200, 0.0)
    await record.record.token(QUERY._replace(asked_for=pod().ref), granted(), 200, 0.0)
    await record.record.token(QUERY, forged, 403, 0.0)
    record.record.other(ADDRESS, Route.TOKEN, 400, "no header", 0.0)
    await ask_others(metrics, clock)
    add_all(metrics)
    return record


async def ask_others(metrics: NmiMetrics, clock: FakeClock) -> None:
    attestor = MeasuredAttestor(FakeAttestor(), metrics)
    await attestor.prove(ADDRESS, 1, [pod()])
    await attestor.prove_local("127.0.0.1", 1)
    tokens = FakeTokenSource()
    issuer = MeasuredIssuers({grant().identity.type: tokens}, metrics, clock)
    await issuer.issue(grant(), VAULT)
    tokens.failures = [TokenThrottled("slow", retry_after=1)]
    with pytest.raises(TokenThrottled):
        await issuer.issue(grant(), VAULT)
    kubernetes_errors(metrics)("GET", "/api/v1/pods")
    metrics.events.of("written").value += 1


def add_all(metrics: NmiMetrics) -> None:
    add_interception(metrics.registry, Net())
    add_attestation(metrics.registry, AttestationMode.KERNEL)
    add_watches(metrics.registry, lambda: [Watch(), Lost()])
    add_connections(metrics.registry, lambda: 7)
    add_tokens(metrics.registry, lambda: 3)
    add_writers(metrics.registry, {"log": MemoryWriter(), "audit": MemoryWriter()})


def request(target: str = "/metrics") -> Request:
    return Request(Caller("10.0.0.1", 1), method="GET", raw_target=target.encode())


async def scrape(registry: Registry) -> str:
    response = await Scrapes(registry, FakeClock())(request())
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    return response.body.decode()


async def test_a_scrape_is_as_it_is_written_down() -> None:
    text = await scrape((await lived()).metrics.registry)
    assert text.replace(__version__, "VERSION") == GOLDEN.read_text()


async def test_prometheus_own_tool_has_nothing_against_a_scrape_but_the_old_names() -> None:
    registry = (await lived()).metrics.registry
    add_process(registry)
    text = await scrape(registry)
    assert text.endswith("\n")
    promtool = shutil.which("promtool")
    if promtool:
        checked = await asyncio.to_thread(
            subprocess.run,
            [promtool, "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        said = [line for line in checked.stderr.splitlines() if line.strip()]
        assert {line.split(" ")[0] for line in said} <= {
            "aadpodidentity_imds_operations_errors_count",
            "aadpodidentity_kubernetes_api_operations_errors_count",
        }, checked.stderr


S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 2, 3, 4, 5, 10)
N = (0.5, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)


@pytest.mark.parametrize(("name", "bounds"), [("imds_operations", S), ("nmi_operations", N)])
def test_buckets_of_the_archived_project_are_all_there(
    name: str, bounds: tuple[float, ...]
) -> None:
    start = f"aadpodidentity_{name}_duration_seconds_bucket"
    lines = [line for line in GOLDEN.read_text().splitlines() if line.startswith(start)]
    found = {line.partition('le="')[2].partition('"')[0] for line in lines}
    assert {*map(str, bounds), "+Inf"} <= found


async def test_a_scrape_is_kept_for_a_second_whoever_asks_how_often() -> None:
    clock, registry = FakeClock(), Registry()
    looks: list[float] = []

    def look() -> list[tuple[tuple[str, ...], float]]:
        looks.append(1.0)
        return [((), 1.0)]

    registry.gauge("g", "", look)
    scrapes = Scrapes(registry, clock)
    for _ in range(100):
        await scrapes(request())
    assert len(looks) == 1
    clock.advance(MEMORY + 0.1)
    await scrapes(request("/metrics?x=1"))
    assert len(looks) == 2


async def test_nothing_else_is_there() -> None:
    assert (await Scrapes(Registry(), FakeClock())(request("/debug"))).status == 404
