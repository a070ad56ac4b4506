from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity.adapters.token_cache import TokenCache
from podidentity.core.decision import Ambiguity, Authorization, Use
from podidentity.core.resources import ClientId, IdentityType, ObjectRef, Origin
from podidentity.nmi.reporting.debug import Debug, OnLoopback, permissions_shown, tokens_shown
from podidentity.nmi.reporting.pod_outcomes import PodOutcomes
from podidentity.nmi.request.decision import Decider, DecisionPolicy
from podidentity.nmi.server.messages import Handler
from tests.fakes import (
    CLIENT,
    OTHER_CLIENT,
    VAULT,
    FakeClock,
    FakePermissions,
    FakeTokenSource,
    binding,
    cluster,
    grant,
    identity,
    pod,
)
from tests.nmi.talking import Reply, listening, talking

POLICY, OBSERVE = DecisionPolicy(), DecisionPolicy(authorization=Authorization.OBSERVE)
USE = Use(ObjectRef("shop", "default"), CLIENT)


def debug(
    *objects: Any, known: bool | None = True, how: DecisionPolicy = POLICY, **parts: Any
) -> OnLoopback:
    return OnLoopback(page(*objects, known=known, how=how, **parts))


def page(
    *objects: Any, known: bool | None = True, how: DecisionPolicy = POLICY, **parts: Any
) -> Debug:
    clock = FakeClock()
    watched, permissions = cluster(clock, *objects), FakePermissions()
    if known is not None:
        permissions.allowed[USE] = known
    decider = Decider(cluster=watched, permissions=permissions, clock=clock, policy=how)
    return Debug(watched, decider.current, parts, PodOutcomes(clock))


async def ask(handler: Handler, target: str = "/debug", host: str = "127.0.0.1:8087") -> Reply:
    async with listening(handler) as listener, talking(listener) as talk:
        return await talk.ask(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


async def test_it_shows_each_pod_and_what_it_may_use_and_why_not() -> None:
    lonely = pod("lonely", labels={})
    reply = await ask(debug(pod(), lonely, identity(), binding()))
    lost, found = reply.json["pods"]
    assert (lost["pod"], lost["refused"][0]["reason"]) == ("shop/lonely", "NoLabel")
    assert found["entitled"] == [
        {
            "identity": {"name": "shop/orders", "type": "user_assigned", "client_id": CLIENT},
            "basis": "binding",
            "binding": "shop/orders-binding",
            "awaited": None,
        }
    ]


async def test_it_shows_the_last_token_and_the_last_refusal_of_a_pod() -> None:
    reply = await ask(debug(pod(), identity(), binding()), "/debug?pod=shop/orders-0")
    assert (reply.json["token_seconds_ago"], reply.json["last_refusal"]) == (None, None)


async def test_it_shows_what_each_part_knows() -> None:
    reply = await ask(debug(watches=lambda: [{"what": "pods"}], rules=lambda: ("gone",)))
    assert reply.json["watches"] == [{"what": "pods"}]
    assert reply.json["rules"] == ["gone"]
    assert reply.json["synced"] is True


async def test_it_follows_the_rules_for_one_pod() -> None:
    handler = debug(pod(), identity(), binding())
    reply = await ask(handler, "/debug?pod=shop/orders-0")
    assert reply.json["entitled"][0]["binding"] == "shop/orders-binding"
    assert (await ask(handler, "/debug?pod=shop/x")).status == 404
    assert (await ask(handler, "/debug?pod=x")).status == 404


def bank() -> list[Any]:
    other = identity("bank", client_id=ClientId.parse(OTHER_CLIENT))
    return [other, binding("bank-binding", identity="bank")]


@pytest.mark.parametrize(
    ("known", "how", "says"),
    [
        (True, POLICY, {"given": True}),
        (False, POLICY, {"refused": "NotPermitted"}),
        (None, POLICY, {"to_be_asked": f"shop/default use {CLIENT}"}),
        (False, OBSERVE, {"given": True, "observed": "NotPermitted"}),
    ],
    ids=["permitted", "denied", "not known", "observed"],
)
async def test_it_shows_what_a_request_without_an_id_would_get(
    known: bool | None, how: DecisionPolicy, says: dict[str, object]
) -> None:
    handler = debug(pod(), identity(), binding(), known=known, how=how)
    found = (await ask(handler, "/debug?pod=shop/orders-0")).json["decision"]
    assert found.pop("identity")["client_id"] == CLIENT
    for kind in ("refused", "observed"):
        found[kind] = found[kind] and found[kind]["reason"]
    assert {name: value for name, value in found.items() if value} == says


async def test_several_identities_are_shown_as_refused_where_that_was_chosen() -> None:
    chosen = DecisionPolicy(ambiguity=Ambiguity.REJECT)
    handler = debug(pod(), identity(), binding(), *bank(), how=chosen)
    found = (await ask(handler, "/debug?pod=shop/orders-0")).json
    assert len(found["entitled"]) == 2
    assert found["decision"]["refused"]["reason"] == "SeveralIdentities"
    assert found["decision"]["given"] is False


async def test_tokens_are_shown_without_what_is_secret() -> None:
    clock = FakeClock()
    source = FakeTokenSource()
    tokens = TokenCache(dict.fromkeys(IdentityType, source), clock)
    fetched = await tokens.fetch(grant(), VAULT)
    assert (fetched.token.value, fetched.origin) == ("token-1", Origin.IMDS)
    handler = debug(tokens=lambda: tokens_shown(tokens.entries(), clock.time()))
    reply = await ask(handler)
    assert reply.json["tokens"] == [
        {
            "identity": {"name": "shop/orders", "type": "user_assigned", "client_id": CLIENT},
            "tenant": "",
            "audience": VAULT,
            "fetched_for": "shop/orders-0",
            "expires_in": 86_399,
        }
    ]
    assert "token-1" not in reply.body.decode()
    await tokens.close()


def test_permissions_are_shown_with_their_age() -> None:
    assert permissions_shown([(USE, True, 12.34)]) == [
        {
            "service_account": "shop/default",
            "name": CLIENT,
            "allowed": True,
            "asked_seconds_ago": 12.3,
        }
    ]


@pytest.mark.parametrize("host", ["localhost:8087", "127.0.0.1", "[::1]:8087"])
async def test_it_is_asked_by_loopbacks_own_names(host: str) -> None:
    assert (await ask(debug(), host=host)).status == 200


@pytest.mark.parametrize("host", ["evil.example:8087", "10.0.0.4", "127.0.0.1.evil.example", ""])
async def test_a_page_in_a_browser_cannot_be_led_here_by_a_name_of_its_own(host: str) -> None:
    assert (await ask(debug(), host=host)).status == 403


@pytest.mark.parametrize("target", ["/", "/debug/x", "/metrics", "/metadata/identity/oauth2/token"])
async def test_nothing_else_is_there(target: str) -> None:
    assert (await ask(debug(), target)).status == 404


async def test_what_is_shown_is_json_whatever_a_pod_is_named() -> None:
    odd = pod(ref=ObjectRef("shop", 'x"}\n'))
    shown = await page(odd)._all()
    assert json.loads(shown.body)["pods"][0]["pod"] == 'shop/x"}\n'
