"""Identities with auxiliary tenants: a token of the tenant that is named, or all, as before."""

from __future__ import annotations

import pytest

from podidentity.core.authorities import Tenant
from podidentity.core.errors import InvalidRequest, TokenSourceDown
from podidentity.core.tokens import TokenRequest
from podidentity.nmi.policies import policy_of
from podidentity.settings import Compat, NmiSettings
from tests.core.objects import TENANT, principal
from tests.fakes import VAULT, binding, identity, pod
from tests.nmi.worlds import World

FIRST, SECOND = Tenant("contoso.example"), Tenant("fabrikam.example")
MANY = principal("shop", "orders", auxiliary_tenants=(FIRST, SECOND))


def world(*, array: bool = False) -> World:
    return World(pod(), MANY, binding(), tenant_array=array)


def asked(tenant: Tenant | None) -> TokenRequest:
    return TokenRequest(resource=VAULT, tenant=tenant)


@pytest.mark.parametrize(
    ("tenant", "fetched"), [(None, None), (TENANT, None), (FIRST, FIRST), (SECOND, SECOND)]
)
async def test_a_request_gets_one_token_of_the_tenant_that_it_names(
    tenant: Tenant | None, fetched: Tenant | None
) -> None:
    one = world()
    outcome = await one.ask(asked(tenant))
    assert (outcome.token is not None, outcome.others) == (True, ())
    assert [grant.tenant for grant in one.tokens.grants] == [fetched]


async def test_a_tenant_that_the_identity_does_not_name_is_refused() -> None:
    outcome = await world().ask(asked(Tenant("evil.example")))
    assert isinstance(outcome.error, InvalidRequest)


async def test_the_old_switch_fetches_all_the_primary_one_first() -> None:
    all_of_them = world(array=True)
    outcome = await all_of_them.ask()
    assert outcome.token is not None
    assert [each.value for each in (outcome.token, *outcome.others)] == [
        "token-1",
        "token-2",
        "token-3",
    ]
    assert [grant.tenant for grant in all_of_them.tokens.grants] == [None, FIRST, SECOND]


async def test_with_the_switch_a_named_tenant_still_gets_one() -> None:
    assert (await world(array=True).ask(asked(SECOND))).others == ()


async def test_an_identity_of_one_tenant_gets_one() -> None:
    one = World(pod(), identity(), binding(), tenant_array=True)
    assert (await one.ask()).others == ()


async def test_one_tenant_that_fails_fails_all() -> None:
    failing = world(array=True)
    failing.tokens.failures = [TokenSourceDown("away")]
    outcome = await failing.ask()
    assert (outcome.token, outcome.others) == (None, ())
    assert isinstance(outcome.error, TokenSourceDown)


def test_the_switch_is_off_unless_it_is_on() -> None:
    assert not policy_of(NmiSettings(node="n1")).tenant_array
    assert policy_of(NmiSettings(node="n1", compat=Compat(tenant_array=True))).tenant_array
