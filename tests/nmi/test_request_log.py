"""What each kind of request leaves: a line, an audit record, numbers, an event."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from podidentity.core.attestation import Verdict
from podidentity.core.errors import (
    NotReady,
    Refused,
    TokenRefused,
    TokenSourceDown,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import ObjectRef, Pod, TokenRequest
from podidentity.nmi.reporting.request_log import CLIENT_LEFT, LINES_OF_NAMESPACE
from podidentity.nmi.request.decision import Evidence, Failed, Outcome, Rejected, TokenQuery
from podidentity.telemetry.log_limiter import CLIENTS, LINES, WINDOW
from podidentity.wire.imds import Route
from tests.fakes import ADDRESS, CLIENT, RESOURCE_ID, VAULT, FakeClock
from tests.nmi.outcomes import POD, QUERY, granted, refused
from tests.nmi.recorded import Recorded

REFUSAL = Refusal(
    reason=Reason.OTHER_NAMESPACE,
    message="Only bank/b selects it.",
    next_step="Bind it in shop.",
    told="Nothing is bound.",
)


def unproven(
    verdict: Verdict, detail: str = "", claimed: tuple[Pod, ...] = (POD,)
) -> Rejected | Failed:
    evidence = Evidence(verdict=verdict, detail=detail)
    return refused(UnprovenCaller("not its"), None, claimed=claimed, evidence=evidence)


async def recorded(outcome: Outcome, status: int, query: TokenQuery = QUERY) -> Recorded:
    clock = FakeClock()
    record = Recorded(clock)
    clock.advance(0.25)
    await record.record.token(query, outcome, status, 0.0)
    return record


async def test_a_token_leaves_an_audit_record_that_says_who_got_what_and_why() -> None:
    (entry,) = (await recorded(granted(), 200)).audit
    assert entry == {
        "time": "2026-11-25T09:46:40.250Z",
        "decision": "granted",
        "status": 200,
        "pod": {"namespace": "shop", "name": "orders-0", "uid": "uid-orders-0"},
        "service_account": "default",
        "node": "n1",
        "identity": {
            "namespace": "shop",
            "name": "orders",
            "client_id": CLIENT,
            "resource_id": RESOURCE_ID,
        },
        "audience": VAULT,
        "basis": "binding",
        "origin": "cache",
        "address": ADDRESS,
        "ms": 250.0,
    }


async def test_a_refusal_leaves_its_reason_everywhere() -> None:
    record = await recorded(refused(Refused(REFUSAL)), 404)
    (line,), (entry,) = record.lines, record.audit
    assert (line["reason"], line["message"]) == ("OtherNamespace", str(REFUSAL))
    assert (entry["decision"], entry["reason"], entry["status"]) == (
        "refused",
        "OtherNamespace",
        404,
    )
    assert record.scraped("podidentity_nmi_decisions") == [
        'podidentity_nmi_decisions_total{decision="refused",reason="OtherNamespace",basis=""} 1'
    ]


async def test_the_pods_owner_is_told_of_a_refusal_only_what_the_pod_may_know() -> None:
    record = await recorded(refused(Refused(REFUSAL)), 404)
    assert record.told == [(POD, "OtherNamespace", "Nothing is bound.")]
    open_refusal = replace(REFUSAL, told="")
    ((_, _, note),) = (await recorded(refused(Refused(open_refusal)), 404)).told
    assert note == "Only bank/b selects it. Bind it in shop.", (
        "and what to do, if nothing is hidden"
    )


@pytest.mark.parametrize(
    ("outcome", "decision", "told"),
    [
        (refused(TokenRefused("Entra: wrong secret", status=401, error="x")), "failed", True),
        (refused(TokenSourceDown("IMDS hangs")), "failed", False),
        (refused(NotReady("not read yet"), None), "failed", False),
        (refused(UnknownCaller("no pod"), None), "refused", False),
        (unproven(Verdict.FORGED), "refused", True),
    ],
    ids=lambda value: type(value.error).__name__ if hasattr(value, "error") else str(value),
)
async def test_every_way_to_fail_is_audited_and_told_to_whom_it_concerns(
    outcome: Outcome, decision: str, told: bool
) -> None:
    record = await recorded(outcome, 403)
    assert record.audit[0]["decision"] == decision
    assert bool(record.told) is told


async def test_a_forged_address_is_audited_and_told_as_a_claim() -> None:
    record = await recorded(unproven(Verdict.FORGED, "in cni-1"), 403)
    (entry,) = record.audit
    assert (entry["pod"], entry["proof"]) == ({"claimed": ["shop/orders-0"]}, "in cni-1")
    assert record.told == [(POD, "UnprovenCaller", "not its")]


async def test_a_token_that_another_asked_for_names_both() -> None:
    driver = ObjectRef("kube-system", "provider-x")
    asked_by = Evidence(delegated=True, delegate=driver, detail=f"asked by {driver}")
    record = await recorded(granted(evidence=asked_by), 200, QUERY._replace(asked_for=POD.ref))
    (entry,) = record.audit
    assert (entry["delegated_by"], entry["pod"]["name"]) == (str(driver), "orders-0")
    assert record.scraped("aadpodidentity_nmi_operations_duration_seconds_count") == [
        'aadpodidentity_nmi_operations_duration_seconds_count{operation_type="/host/token/",'
        f'status_code="200",namespace="shop",resource="{VAULT}"}} 1'
    ]


async def test_a_token_that_a_proxy_asked_for_names_the_proxy() -> None:
    proxy = ObjectRef("istio-system", "ztunnel-x")
    record = await recorded(granted(evidence=Evidence(verdict=Verdict.PROVEN, proxy=proxy)), 200)
    (entry,) = record.audit
    assert (entry["proxied_by"], entry["pod"]["name"]) == (str(proxy), "orders-0")
    assert "proxied_by" not in (await recorded(granted(), 200)).audit[0]


async def test_what_would_be_refused_is_said_while_it_is_only_observed() -> None:
    record = await recorded(granted(observed=REFUSAL), 200)
    assert record.lines[0]["observed"] == "OtherNamespace"
    assert (record.audit[0]["decision"], record.audit[0]["observed"]) == (
        "granted",
        "OtherNamespace",
    )
    assert record.told == [(POD, "OtherNamespace", "Allowed for now: Nothing is bound.")]


@pytest.mark.parametrize("claims", [True, False])
async def test_a_pod_that_an_unproved_client_names_is_recorded_as_its_claim_only(
    *, claims: bool
) -> None:
    named = QUERY._replace(asked_for=ObjectRef("shop", "web"))
    claimed = (POD,) if claims else ()
    record = await recorded(unproven(Verdict.FORGED, claimed=claimed), 403, named)
    (line,), (entry,) = record.lines, record.audit
    assert line["asked_for"] == "shop/web"
    assert {"pod", "namespace"}.isdisjoint(line)
    assert entry["asked_for"] == {"namespace": "shop", "name": "web"}
    assert entry.get("pod") == ({"claimed": ["shop/orders-0"]} if claims else None)


async def test_invented_names_at_the_host_route_silence_nobody() -> None:
    """A plain pod asks for 1,000 pods that it made up, each once."""
    record = Recorded(FakeClock())
    for number in range(1000):
        named = QUERY._replace(address="10.244.0.9", asked_for=ObjectRef("shop", f"web-{number}"))
        await record.record.token(named, refused(UnprovenCaller("no"), None), 403, 0.0)
    assert len(record.lines) == LINES
    await record.record.token(QUERY, refused(Refused(REFUSAL)), 404, 0.0)
    await record.record.token(QUERY, unproven(Verdict.FORGED), 403, 0.0)
    assert [line["reason"] for line in record.lines[LINES:]] == ["OtherNamespace", "UnprovenCaller"]


async def test_addresses_that_one_client_makes_up_silence_no_pod() -> None:
    record = Recorded(FakeClock())
    for number in range(2 * CLIENTS):
        forged = QUERY._replace(address=f"10.244.{number // 250}.{number % 250}")
        await record.record.token(forged, unproven(Verdict.FORGED), 403, 0.0)
    said = len(record.lines)
    await record.record.token(QUERY, refused(Refused(REFUSAL)), 404, 0.0)
    assert [line["reason"] for line in record.lines[said:]] == ["OtherNamespace"]


async def everybody_goes_on() -> None:
    """Return when whoever slept has gone on, as far as it could."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_loop_of_refusals_leaves_a_few_lines_and_their_number_and_all_audit_records() -> (
    None
):
    clock = FakeClock()
    record = Recorded(clock)
    task = asyncio.create_task(record.record.run())
    for _ in range(100):
        await record.record.token(QUERY, refused(Refused(REFUSAL)), 404, 0.0)
    await clock.somebody_sleeps()
    assert (len(record.lines), len(record.audit)) == (LINES, 100)
    clock.advance(WINDOW)
    await everybody_goes_on()
    last = record.lines[-1]
    assert (last["message"], last["who"], last["reason"]) == (
        "95 more like this",
        "shop/orders-0",
        "OtherNamespace",
    )
    task.cancel()


async def test_whatever_one_client_writes_the_refusals_of_others_are_said() -> None:
    record = Recorded(FakeClock())
    for number in range(2000):
        told = f"parameter 'x{number}' is given twice"
        record.record.other(ADDRESS, Route.TOKEN, 400, told, 0.0, reason="InvalidRequest")
    await record.record.token(QUERY, refused(Refused(REFUSAL)), 404, 0.0)
    assert len(record.lines) == 6
    assert record.lines[-1]["reason"] == "OtherNamespace"


async def test_a_namespace_with_many_refused_pods_fills_no_log_and_silences_no_other() -> None:
    clock = FakeClock()
    record = Recorded(clock)
    task = asyncio.create_task(record.record.run())
    for number in range(250):
        refusal = refused(Refused(REFUSAL), replace(POD, ref=ObjectRef("red", f"p{number}")))
        await record.record.token(QUERY, refusal, 404, 0.0)
    assert len(record.lines) == LINES_OF_NAMESPACE
    await record.record.token(QUERY, refused(Refused(REFUSAL)), 404, 0.0)
    assert record.lines[-1]["reason"] == "OtherNamespace"
    assert len(record.lines) == LINES_OF_NAMESPACE + 1
    await clock.somebody_sleeps()
    clock.advance(WINDOW)
    await everybody_goes_on()
    assert (record.lines[-1]["message"], record.lines[-1]["who"]) == ("150 more like this", "red")
    task.cancel()


async def test_tokens_are_never_left_unsaid() -> None:
    record = Recorded(FakeClock())
    for _ in range(100):
        await record.record.token(QUERY, granted(), 200, 0.0)
    assert len(record.lines) == 100


async def test_a_client_that_leaves_and_a_path_that_is_refused_are_counted_by_route() -> None:
    record = Recorded(FakeClock())
    record.record.other(ADDRESS, Route.TOKEN, CLIENT_LEFT, "left", 0.0)
    record.record.other(ADDRESS, Route.SUSPICIOUS, 400, "Invalid request", 0.0, path="/%2f")
    record.record.other(ADDRESS, Route.FORWARD, 200, "metadata passed on", 0.0)
    assert [line.split("{")[1] for line in record.scraped("podidentity_nmi_requests_total")] == [
        'route="/metadata/identity/oauth2/token",status_code="499"} 1',
        'route="metadata",status_code="200"} 1',
        'route="refused",status_code="400"} 1',
    ]


@pytest.mark.parametrize("evil", ['a"},{"decision":"granted', "a\nb", "a\u2028b", "é", "\x00"])
async def test_nobody_writes_an_audit_record_of_his_own(evil: str) -> None:
    record = await recorded(
        refused(Refused(REFUSAL)), 404, QUERY._replace(request=TokenRequest(resource=evil))
    )
    (text,) = record.audited
    assert len(text.splitlines()) == 1
    assert json.loads(text)["audience"] == evil
    assert json.loads(text)["decision"] == "refused"
