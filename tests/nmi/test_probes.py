from __future__ import annotations

from collections.abc import Sequence

import pytest

from podidentity.nmi.reporting.endpoints import Probes
from podidentity.nmi.server.messages import Caller, Request
from tests.fakes import FakeClock
from tests.nmi.talking import listening, talking


def request(target: str) -> Request:
    return Request(Caller("10.0.0.1", 1), method="GET", raw_target=target.encode())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_healthz_is_that_of_the_archived_project(clock: FakeClock) -> None:
    async with listening(Probes({}, clock)) as listener, talking(listener) as talk:
        reply = await talk.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (reply.status, reply.body) == (200, b"Active")


async def test_readyz_is_true_while_nothing_is_wrong(clock: FakeClock) -> None:
    probes = Probes({"rules": lambda: (), "watches": list}, clock)
    response = await probes(request("/readyz?verbose"))
    assert response.status == 200
    checks = b'{"rules":"ok","watches":"ok"}'
    rest = b'"attestation":"kernel","path":{},"tokens":{},"warnings":[]'
    assert response.body == b'{"ready":true,"checks":%b,%b}' % (checks, rest)


async def test_readyz_says_all_that_is_wrong(clock: FakeClock) -> None:
    probes = Probes({"rules": lambda: ("gone", "odd"), "watches": lambda: ()}, clock)
    response = await probes(request("/readyz"))
    assert response.status == 503
    checks = b'{"rules":["gone","odd"],"watches":"ok"}'
    rest = b'"attestation":"kernel","path":{},"tokens":{},"warnings":[]'
    assert response.body == b'{"ready":false,"checks":%b,%b}' % (checks, rest)


async def test_readyz_looks_again_each_second_and_not_more_often(clock: FakeClock) -> None:
    looks = 0

    def look() -> Sequence[str]:
        nonlocal looks
        looks += 1
        return ("down",) if looks == 1 else ()

    probes = Probes({"rules": look}, clock)
    assert [(await probes(request("/readyz"))).status for _ in range(5)] == [503] * 5
    clock.advance(1.1)
    assert (await probes(request("/readyz"))).status == 200
    assert looks == 2


@pytest.mark.parametrize("path", ["/", "/metrics", "/debug/pprof/", "/readyz/x"])
async def test_nothing_else_is_served_there(clock: FakeClock, path: str) -> None:
    assert (await Probes({}, clock)(request(path))).status == 404


async def test_readyz_names_what_proves_callers(clock: FakeClock) -> None:
    response = await Probes({}, clock, attestation="namespace")(request("/readyz"))
    assert b'"attestation":"namespace"' in response.body
