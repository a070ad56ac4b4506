from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from podidentity.adapters.entra.client_credentials import MOST, Assertions
from podidentity.core.errors import NotYetKnown, TokenRefused, TokenSourceDown, TokenUnavailable
from podidentity.core.resources import ObjectRef
from podidentity.wire.kube import KubeError
from tests.fakes import FakeClock, FakeKubeApi, FakeTokenSource, identity, pod

WEB = ObjectRef("shop", "web")
AUDIENCE = "api://AzureADTokenExchange"


class Minting(FakeKubeApi):
    """An API server that mints tokens of an hour."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.failure: KubeError | None = None

    async def ask(self, path: str, question: Mapping[str, Any]) -> bytes:
        self.asked.append((path, question))
        if self.failure is not None:
            raise self.failure
        ends = datetime.fromtimestamp(self.clock.time() + 3600, UTC).isoformat()
        token = f"assertion-{len(self.asked)}"
        return json.dumps({"status": {"token": token, "expirationTimestamp": ends}}).encode()


def made() -> tuple[Assertions, Minting, FakeTokenSource, FakeClock]:
    clock, imds = FakeClock(), FakeTokenSource(life=1000)
    server = Minting(clock)
    return Assertions(server, imds, clock), server, imds, clock


async def test_a_service_accounts_token_is_bound_to_the_pod_and_kept_for_most_of_its_life() -> None:
    assertions, server, _, clock = made()
    texts = []
    for seconds in (0, 2879, 1):
        clock.advance(seconds)
        texts.append(await assertions.of_account(WEB, AUDIENCE, pod()))
    assert texts == ["assertion-1", "assertion-1", "assertion-2"]
    path, body = server.asked[0]
    assert path == "/api/v1/namespaces/shop/serviceaccounts/web/token"
    assert body["spec"]["boundObjectRef"]["uid"] == pod().uid


async def test_each_account_audience_and_pod_has_its_own() -> None:
    assertions, *_ = made()
    texts = [
        await assertions.of_account(WEB, AUDIENCE, pod()),
        await assertions.of_account(WEB, AUDIENCE, pod(uid="again")),
        await assertions.of_account(WEB, "api://another", pod()),
        await assertions.of_account(ObjectRef("shop", "db"), AUDIENCE, pod()),
        await assertions.of_account(ObjectRef("bank", "web"), AUDIENCE, pod()),
        await assertions.of_account(WEB, AUDIENCE, None),
    ]
    assert len(set(texts)) == len(texts)


async def test_a_clock_that_jumps_makes_one_anew_not_old() -> None:
    assertions, server, _, clock = made()
    await assertions.of_account(WEB, AUDIENCE, pod())
    clock.advance(10**9)
    await assertions.of_account(WEB, AUDIENCE, pod())
    assert len(server.asked) == 2


async def test_one_that_was_not_accepted_is_forgotten_once() -> None:
    assertions, _, _, _ = made()
    text = await assertions.of_account(WEB, AUDIENCE, pod())
    assert assertions.forget(text)
    assert not assertions.forget(text)
    assert await assertions.of_account(WEB, AUDIENCE, pod()) == "assertion-2"


async def test_a_managed_identitys_token_is_an_assertion_too() -> None:
    assertions, _, imds, clock = made()
    managed = identity(client_id=None)
    texts = []
    for seconds in (0, 799, 1):
        clock.advance(seconds)
        imds.now = clock.time
        texts.append(await assertions.of_identity(managed, AUDIENCE, pod()))
    assert texts == ["token-1", "token-1", "token-2"]
    assert imds.asked[0] == (managed, AUDIENCE, False)


async def test_as_many_are_kept_as_a_node_needs() -> None:
    assertions, server, _, _ = made()
    for number in range(MOST + 1):
        await assertions.of_account(WEB, f"api://{number}", pod())
    await assertions.of_account(WEB, f"api://{MOST}", pod())
    assert len(server.asked) == MOST + 1
    await assertions.of_account(WEB, "api://0", pod())
    assert len(server.asked) == MOST + 2


async def test_the_assertions_of_one_namespace_end_none_of_another() -> None:
    """Nor those of accounts that stand for its identities, which have one namespace together."""
    assertions, server, _, _ = made()
    stands = ObjectRef("podidentity-identities", "podidentity-1")
    await assertions.of_account(WEB, AUDIENCE, pod())
    await assertions.of_account(stands, AUDIENCE, None, "shop")
    for number in range(MOST + 1):
        account = ObjectRef("podidentity-identities", f"podidentity-{number + 2}")
        await assertions.of_account(account, AUDIENCE, None, "greedy")
    asked = len(server.asked)
    await assertions.of_account(WEB, AUDIENCE, pod())
    await assertions.of_account(stands, AUDIENCE, None, "shop")
    assert len(server.asked) == asked


async def test_what_was_not_used_for_longest_makes_room() -> None:
    assertions, server, _, _ = made()
    for number in (*range(MOST), 0, MOST):
        await assertions.of_account(WEB, f"api://{number}", pod())
    await assertions.of_account(WEB, "api://0", pod())
    assert len(server.asked) == MOST + 1
    await assertions.of_account(WEB, "api://1", pod())
    assert len(server.asked) == MOST + 2


@pytest.mark.parametrize(
    ("failure", "kind", "why"),
    [
        (KubeError("no", status=404), NotYetKnown, "does not exist, or the pod is gone"),
        (KubeError("no", status=403), TokenRefused, "does not let NMI request tokens of"),
        (KubeError("no", status=500), TokenSourceDown, "gave no token of"),
        (KubeError("unreachable"), TokenSourceDown, "gave no token of"),
    ],
)
async def test_what_the_api_server_refuses_is_told(
    failure: KubeError, kind: type[TokenUnavailable], why: str
) -> None:
    assertions, server, _, _ = made()
    server.failure = failure
    with pytest.raises(kind, match=why) as caught:
        await assertions.of_account(WEB, AUDIENCE, pod())
    assert "ServiceAccount shop/web" in str(caught.value)


async def test_an_answer_without_a_token_is_none() -> None:
    class Empty(FakeKubeApi):
        async def ask(self, path: str, question: Mapping[str, Any]) -> bytes:
            del path, question
            return b"{}"

    assertions = Assertions(Empty(), FakeTokenSource(), FakeClock())
    with pytest.raises(TokenSourceDown, match="without a token"):
        await assertions.of_account(WEB, AUDIENCE, pod())
