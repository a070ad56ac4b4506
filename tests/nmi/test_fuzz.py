"""A hundred thousand hostile requests: no token, nothing asked of IMDS but metadata, no error."""

from __future__ import annotations

import pytest

from podidentity.nmi.request.pipeline import RequestPipeline
from podidentity.nmi.server.messages import Limits
from tests.nmi.fuzzing import attack, leads_to_a_credential
from tests.nmi.hostile import Attacker, streams

REQUESTS = 100_000
ROOM = 32 << 20
"""Bytes; what the fakes remember of the requests is in it."""


@pytest.mark.timeout(900)
async def test_no_hostile_request_gets_a_token_or_leads_to_a_credential_of_the_node() -> None:
    findings = await attack(REQUESTS, seed=1)
    assert findings.tokens == 0
    assert findings.credentials_asked == []
    assert findings.errors == []
    assert findings.left_open == 0
    assert findings.held_bytes < Limits().held_bytes // 8
    assert findings.grown < ROOM
    # What was sent got far enough to be worth it.
    assert findings.handled > REQUESTS / 3
    assert {200, 400, 403, 404, 405, 413, 431} <= set(findings.answers)
    assert len(findings.forwarded) > 20


async def test_an_agent_without_its_checks_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestPipeline, "_check_headers", lambda *_: None)
    monkeypatch.setattr("podidentity.wire.imds._route", lambda *_: _forward())
    findings = await attack(2000, seed=1)
    assert findings.credentials_asked
    assert not findings.clean


def _forward() -> object:
    from podidentity.wire.imds import Route

    return Route.FORWARD


def test_the_same_seed_writes_the_same_bytes() -> None:
    assert list(streams(7, 500)) == list(streams(7, 500))
    assert list(streams(7, 500)) != list(streams(8, 500))


def test_packets_are_the_whole_stream() -> None:
    attacker = Attacker(1)
    for _ in range(200):
        _, data = attacker.stream(without_header=False)
        assert b"".join(attacker.split(data)) == data


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/metadata/identity/oauth2/token", ""),
        ("/metadata/instance/../identity/issuecredential", ""),
        ("/metadata/instance/%2e%2e/identity/issuecredential", ""),
        ("/metadata/instance%5c..%5cidentity", ""),
        ("/metadata/instance", "/../../identity/issuecredential"),
        ("/metadata/scheduledevents", ""),
        ("/metadata/identity/info", "/../issuecredential"),
    ],
)
def test_a_target_that_may_lead_to_a_credential_is_known(path: str, query: str) -> None:
    assert leads_to_a_credential(path, query)
    assert not leads_to_a_credential("/metadata/instance/compute/vmId", "api-version=2021-02-01")
