"""Identities with auxiliary tenants: a token of the tenant that is named, or all, as before."""

from __future__ import annotations

import pytest

from podidentity.core.errors import InvalidRequest, TokenSourceDown
from podidentity.core.resources import Tenant, TokenRequest
from podidentity.nmi.policies import policy_of
from podidentity.nmi.request.decision import Granted
from podidentity.settings import Compat, NmiSettings
from tests.core.objects import TENANT, principal
from tests.fakes import VAULT, binding, identity, pod
from tests.nmi.worlds import World, error_of

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
    assert isinstance(outcome, Granted)
    assert outcome.others == ()
    assert [grant.tenant for grant in one.tokens.grants] == [fetched]


async def test_a_tenant_that_the_identity_does_not_name_is_refused() -> None:
    outcome = await world().ask(asked(Tenant("evil.example")))
    assert isinstance(error_of(outcome), InvalidRequest)


async def test_the_old_switch_fetches_all_the_primary_one_first() -> None:
    all_of_them = world(array=True)
    outcome = await all_of_them.ask()
    assert isinstance(outcome, Granted)
    assert [each.value for each in (outcome.fetched.token, *outcome.others)] == [
        "token-1",
        "token-2",
        "token-3",
    ]
    assert [grant.tenant for grant in all_of_them.tokens.grants] == [None, FIRST, SECOND]


async def test_with_the_switch_a_named_tenant_still_gets_one() -> None:
    outcome = await world(array=True).ask(asked(SECOND))
    assert isinstance(outcome, Granted)
    assert outcome.others == ()


async def test_an_identity_of_one_tenant_gets_one() -> None:
    one = World(pod(), identity(), binding(), tenant_array=True)
    outcome = await one.ask()
    assert isinstance(outcome, Granted)
    assert outcome.others == ()


async def test_one_tenant_that_fails_fails_all() -> None:
    failing = world(array=True)
    failing.tokens.failures = [TokenSourceDown("away")]
    outcome = await failing.ask()
    assert isinstance(error_of(outcome), TokenSourceDown)


def test_the_switch_is_off_unless_it_is_on() -> None:
    assert not policy_of(NmiSettings(node="n1")).tenant_array
    assert policy_of(NmiSettings(node="n1", compat=Compat(tenant_array=True))).tenant_array
