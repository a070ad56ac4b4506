"""What each kind of request leaves: a line, an audit record, numbers, an event."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from podidentity.core.attestation import Verdict
from podidentity.core.entitlements import Basis
from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    Refused,
    TokenRefused,
    TokenSourceDown,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Origin
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.tokens import TokenRequest
from podidentity.nmi.reporting.request_log import CLIENT_LEFT
from podidentity.nmi.request.outcome import Asked, Outcome
from podidentity.nmi.server.messages import Caller
from podidentity.telemetry.repeats import SAID, WINDOW
from podidentity.wire.metadata import Route
from tests.fakes import ADDRESS, CLIENT, RESOURCE_ID, VAULT, FakeClock, identity, pod
from tests.nmi.recorded import Recorded

ASKED = Asked(Caller(ADDRESS, 40_000), TokenRequest(resource=VAULT))
POD = pod()
GIVEN = Outcome(pod=POD, identity=identity(), basis=Basis.BINDING, origin=Origin.CACHE)
REFUSAL = Refusal(
    reason=Reason.OTHER_NAMESPACE,
    message="Only bank/b selects it.",
    next_step="Bind it in shop.",
    told="Nothing is bound.",
)


def refused(error: PodIdentityError, **more: Any) -> Outcome:
    return Outcome(error=error, **({"pod": POD} | more))


def recorded(outcome: Outcome, status: int, asked: Asked = ASKED) -> Recorded:
    clock = FakeClock()
    record = Recorded(clock)
    clock.advance(0.25)
    record.record.token(asked, outcome, status, 0.0)
    return record


def test_a_token_leaves_an_audit_record_that_says_who_got_what_and_why() -> None:
    (entry,) = recorded(GIVEN, 200).audit
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


def test_a_refusal_leaves_its_reason_everywhere() -> None:
    record = recorded(refused(Refused(REFUSAL)), 404)
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


def test_the_pods_owner_is_told_of_a_refusal_only_what_the_pod_may_know() -> None:
    assert recorded(refused(Refused(REFUSAL)), 404).told == [
        (POD, "OtherNamespace", "Nothing is bound.")
    ]
    open_refusal = replace(REFUSAL, told="")
    ((_, _, note),) = recorded(refused(Refused(open_refusal)), 404).told
    assert note == "Only bank/b selects it. Bind it in shop.", (
        "and what to do, if nothing is hidden"
    )


@pytest.mark.parametrize(
    ("outcome", "decision", "told"),
    [
        (refused(TokenRefused("Entra: wrong secret", status=401, error="x")), "failed", True),
        (refused(TokenSourceDown("IMDS hangs")), "failed", False),
        (refused(NotReady("not read yet"), pod=None), "failed", False),
        (refused(UnknownCaller("no pod"), pod=None), "refused", False),
        (
            refused(UnprovenCaller("x"), pod=None, claimed=(POD,), verdict=Verdict.FORGED),
            "refused",
            True,
        ),
        (
            refused(UnprovenCaller("x"), pod=None, claimed=(POD,), verdict=Verdict.GONE),
            "refused",
            False,
        ),
    ],
    ids=lambda value: type(value.error).__name__ if isinstance(value, Outcome) else str(value),
)
def test_every_way_to_fail_is_audited_and_told_to_whom_it_concerns(
    outcome: Outcome, decision: str, told: bool
) -> None:
    record = recorded(outcome, 403)
    assert record.audit[0]["decision"] == decision
    assert bool(record.told) is told


def test_a_forged_address_is_audited_and_told_as_a_claim() -> None:
    forged = refused(
        UnprovenCaller("not its"),
        pod=None,
        claimed=(POD,),
        verdict=Verdict.FORGED,
        detail="in cni-1",
    )
    record = recorded(forged, 403)
    (entry,) = record.audit
    assert (entry["pod"], entry["proof"]) == ({"claimed": ["shop/orders-0"]}, "in cni-1")
    assert record.told == [(POD, "UnprovenCaller", "not its")]


def test_a_token_that_another_asked_for_names_both() -> None:
    driver = ObjectRef("kube-system", "provider-x")
    outcome = replace(GIVEN, delegated=True, delegate=driver, detail=f"asked by {driver}")
    record = recorded(outcome, 200, ASKED._replace(named=POD.ref))
    (entry,) = record.audit
    assert (entry["delegated_by"], entry["pod"]["name"]) == (str(driver), "orders-0")
    assert record.scraped("aadpodidentity_nmi_operations_duration_seconds_count") == [
        'aadpodidentity_nmi_operations_duration_seconds_count{operation_type="/host/token/",'
        f'status_code="200",namespace="shop",resource="{VAULT}"}} 1'
    ]


def test_what_would_be_refused_is_said_while_it_is_only_observed() -> None:
    record = recorded(replace(GIVEN, observed=REFUSAL), 200)
    assert record.lines[0]["observed"] == "OtherNamespace"
    assert (record.audit[0]["decision"], record.audit[0]["observed"]) == (
        "granted",
        "OtherNamespace",
    )
    assert record.told == [(POD, "OtherNamespace", "Allowed for now: Nothing is bound.")]


def test_what_is_kept_of_a_request_is_not_used_for_an_object_that_has_changed() -> None:
    record = Recorded(FakeClock())
    first = record.record.given(ASKED, GIVEN)
    assert record.record.given(ASKED, GIVEN) is first
    changed = replace(GIVEN, identity=identity(client_id=None))
    assert "client_id" not in record.record.given(ASKED, changed).line.between


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
        record.record.token(ASKED, refused(Refused(REFUSAL)), 404, 0.0)
    await clock.somebody_sleeps()
    assert (len(record.lines), len(record.audit)) == (SAID, 100)
    clock.advance(WINDOW)
    await everybody_goes_on()
    last = record.lines[-1]
    assert (last["message"], last["who"], last["reason"]) == (
        "95 more like this",
        "shop/orders-0",
        "OtherNamespace",
    )
    task.cancel()


def test_whatever_one_client_writes_the_refusals_of_others_are_said() -> None:
    record = Recorded(FakeClock())
    for number in range(2000):
        told = f"parameter 'x{number}' is given twice"
        record.record.other(ASKED.caller, Route.TOKEN, 400, told, 0.0, reason="InvalidRequest")
    record.record.token(ASKED, refused(Refused(REFUSAL)), 404, 0.0)
    assert len(record.lines) == 6
    assert record.lines[-1]["reason"] == "OtherNamespace"


def test_tokens_are_never_left_unsaid() -> None:
    record = Recorded(FakeClock())
    for _ in range(100):
        record.record.token(ASKED, GIVEN, 200, 0.0)
    assert len(record.lines) == 100


def test_a_client_that_leaves_and_a_path_that_is_refused_are_counted_by_route() -> None:
    record = Recorded(FakeClock())
    record.record.other(ASKED.caller, Route.TOKEN, CLIENT_LEFT, "left", 0.0)
    record.record.other(ASKED.caller, Route.SUSPICIOUS, 400, "Invalid request", 0.0, path="/%2f")
    record.record.other(ASKED.caller, Route.FORWARD, 200, "metadata passed on", 0.0)
    assert [line.split("{")[1] for line in record.scraped("podidentity_nmi_requests_total")] == [
        'route="/metadata/identity/oauth2/token",status_code="499"} 1',
        'route="metadata",status_code="200"} 1',
        'route="refused",status_code="400"} 1',
    ]


@pytest.mark.parametrize("evil", ['a"},{"decision":"granted', "a\nb", "a\u2028b", "é", "\x00"])
def test_nobody_writes_an_audit_record_of_his_own(evil: str) -> None:
    record = recorded(
        refused(Refused(REFUSAL)), 404, ASKED._replace(request=TokenRequest(resource=evil))
    )
    (text,) = record.audited
    assert len(text.splitlines()) == 1
    assert json.loads(text)["audience"] == evil
    assert json.loads(text)["decision"] == "refused"
