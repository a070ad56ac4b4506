"""A whole scrape, to the byte, and read by Prometheus' own tool where there is one."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from podidentity import __version__
from podidentity.adapters.path_permissions import Access
from podidentity.core.attestation import AttestationMode, Verdict
from podidentity.core.data_path import Backend, Hop
from podidentity.core.errors import UnprovenCaller
from podidentity.nmi.reporting.endpoints import KEPT, Reviewed, Scrapes
from podidentity.nmi.reporting.metrics import (
    NmiMetrics,
    add_attestation,
    add_connections,
    add_data_path,
    add_interception,
    add_tokens,
    add_watches,
    add_writers,
    kubernetes_errors,
)
from podidentity.nmi.request.decision import Evidence
from podidentity.nmi.server.messages import Caller, Request
from podidentity.telemetry.metrics import Registry
from podidentity.telemetry.process import add_process
from podidentity.wire.imds import Route
from tests.fakes import (
    ADDRESS,
    VAULT,
    FakeClock,
    identity,
    pod,
)
from tests.nmi.outcomes import QUERY, granted, refused
from tests.nmi.recorded import MemoryWriter, Recorded

GOLDEN = Path(__file__).with_name("scrape.txt")


class Net:
    repairs = 2
    dropped_resets = 3
    verdicts = dict.fromkeys(Verdict, 0) | {Verdict.PROVEN: 2}

    def interception_problems(self) -> tuple[str, ...]:
        return ()


class Watch:
    what, synced, trouble, age, stale = "pods of node n1", True, "", 12.5, 0.0


class Lost(Watch):
    what, trouble, age, stale = "azureidentities", "away", 300.0, 300.0


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
    ask_others(record)
    add_all(metrics)
    return record


def ask_others(record: Recorded) -> None:
    metrics = record.metrics
    for outcome in ("ok", "TokenThrottled"):
        record.record.issued(identity(), outcome, 0.0)
    kubernetes_errors(metrics)("GET", "/api/v1/pods")
    metrics.events.of("written").value += 1


def add_all(metrics: NmiMetrics) -> None:
    add_interception(metrics.registry, Net())
    add_attestation(metrics.registry, AttestationMode.KERNEL, Net())
    add_data_path(metrics.registry, lambda: Hop.PROVED, lambda: Backend.LRP)
    add_watches(metrics.registry, lambda: [Watch(), Lost()])
    add_connections(metrics.registry, lambda: 7)
    add_tokens(metrics.registry, lambda: 3)
    add_writers(metrics.registry, {"log": MemoryWriter(), "audit": MemoryWriter()})


def request(target: str = "/metrics") -> Request:
    return Request(Caller("10.0.0.1", 1), method="GET", raw_target=target.encode())


async def scrape(registry: Registry, *, public: bool = False) -> str:
    response = await Scrapes(registry, FakeClock(), public=public)(request())
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
    if promtool is None:
        pytest.skip("promtool is not installed: ./scripts/setup as root does it")
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
    scrapes = Scrapes(registry, clock, public=True)
    for _ in range(100):
        await scrapes(request())
    assert len(looks) == 1
    clock.advance(KEPT + 0.1)
    await scrapes(request("/metrics?x=1"))
    assert len(looks) == 2


async def test_nothing_else_is_there() -> None:
    assert (await Scrapes(Registry(), FakeClock(), public=True)(request("/debug"))).status == 404


async def test_what_every_pod_can_read_names_no_tenant() -> None:
    registry = (await lived()).metrics.registry
    text = await scrape(registry, public=True)
    assert "shop" in await scrape(registry)
    for named in ("shop", "vault.azure.net", pod().ref.name, pod().uid, ADDRESS):
        assert named not in text


async def test_the_labels_that_would_name_a_tenant_are_there_and_empty_and_sums_are_the_same() -> (
    None
):
    """Old dashboards sum over them, and find them in `by` clauses."""
    metrics = NmiMetrics(Registry())
    for namespace in ("shop", "tenant"):
        for resource in (VAULT, "other"):
            metrics.operations.of("t", "200", namespace, resource).observe(0.003)
    metrics.operations.of("t", "403", "shop", VAULT).observe(7)
    text = await scrape(metrics.registry, public=True)
    name = "aadpodidentity_nmi_operations_duration_seconds"
    labels = 'operation_type="t",status_code="200",namespace="",resource=""'
    assert f"{name}_count{{{labels}}} 4\n" in text
    assert f'{name}_bucket{{{labels},le="0.002"}} 0\n' in text
    assert f'{name}_bucket{{{labels},le="0.005"}} 4\n' in text
    assert f"{name}_sum{{{labels}}} 0.012\n" in text
    assert (
        f'{name}_count{{operation_type="t",status_code="403",namespace="",resource=""}} 1' in text
    )
    assert metrics.operations.of("t", "200", "shop", VAULT).counts[2] == 1, (
        "nothing is counted twice"
    )


def test_a_label_that_can_name_a_tenant_is_private() -> None:
    metrics = NmiMetrics(Registry())
    add_all(metrics)
    suspicious = {"namespace", "resource", "pod", "identity", "audience", "client_id", "address"}
    # Kinds of objects that are watched, not audiences.
    known = {
        ("podidentity_watch_up", "resource"),
        ("podidentity_watch_silence_seconds", "resource"),
    }
    found = {
        (each.head.name, label)
        for each in metrics.registry
        for label in each.head.labels
        if label in suspicious and label not in each.head.private
    }
    assert found == known


async def test_a_large_scrape_lets_others_work_all_the_time() -> None:
    """500 series, as a tenant can make them, are 16,000 lines."""
    metrics = NmiMetrics(Registry())
    for number in range(500):
        metrics.operations.of("t", "200", f"n{number}", VAULT).observe(1)
    scrapes = Scrapes(metrics.registry, FakeClock(), public=False)
    asking = asyncio.create_task(scrapes(request()))
    turns = 0
    while not asking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    assert (await asking).body.count(b"\n") > 14_000


async def test_a_client_that_leaves_spoils_no_scrape_of_the_others() -> None:
    metrics = NmiMetrics(Registry())
    scrapes = Scrapes(metrics.registry, FakeClock(), public=False)
    leaving, staying = (asyncio.create_task(scrapes(request())) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).status == 200


class Reviewing:
    """Lets one token pass."""

    def __init__(self) -> None:
        self.says = Access.ALLOWED
        self.asked: list[tuple[bytes, str]] = []

    async def access(self, authorization: bytes, address: str) -> Access:
        self.asked.append((authorization, address))
        return self.says


@pytest.mark.parametrize(
    ("says", "status"),
    [
        (Access.ALLOWED, 200),
        (Access.DENIED, 403),
        (Access.UNKNOWN_TOKEN, 401),
        (Access.TOO_OFTEN, 429),
        (Access.UNDECIDED, 503),
    ],
)
async def test_the_whole_is_for_callers_with_the_permission(says: Access, status: int) -> None:
    registry, reviewer = (await lived()).metrics.registry, Reviewing()
    reviewer.says = says
    scrapes = Reviewed(Scrapes(registry, FakeClock(), public=False), reviewer, role="readers")
    asked = request()
    asked.fields = [(b"AUTHORIZATION", b"Bearer x")]
    answer = await scrapes(asked)
    assert (answer.status, b"shop" in answer.body) == (status, status == 200)
    assert reviewer.asked == [(b"Bearer x", "10.0.0.1")]


async def test_of_two_tokens_in_one_request_none_counts() -> None:
    reviewer = Reviewing()
    page = Scrapes(Registry(), FakeClock(), public=False)
    scrapes = Reviewed(page, reviewer, role="readers")
    asked = request()
    asked.fields = [(b"Authorization", b"Bearer x"), (b"authorization", b"Bearer y")]
    await scrapes(asked)
    assert reviewer.asked == [(b"", "10.0.0.1")]
