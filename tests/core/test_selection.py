from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.authorities import Tenant
from podidentity.core.decision import Ambiguity, decide, granted, select
from podidentity.core.entitlements import Entitlement
from podidentity.core.errors import InvalidRequest
from podidentity.core.matching import Rules, match
from podidentity.core.permission import Authorization, Use
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import AzureIdentity, Pod
from podidentity.core.tokens import TokenRequest
from tests.core.objects import (
    TENANT,
    binding,
    client_id,
    identity,
    object_id,
    pod,
    principal,
    resource_id,
)
from tests.core.test_decision import refusal_of
from tests.core.worlds import NUMBERS, World, occurs, pods, rules, worlds

VAULT = "https://vault.azure.net"
TWO = World(
    [
        binding("blue", "b1", "alpha", "app", 1),
        binding("blue", "b2", "beta", "app", 5),
    ],
    [identity("blue", "alpha", 1), identity("blue", "beta", 2)],
)


@st.composite
def requests(draw: st.DrawFn) -> TokenRequest:
    number = draw(st.sampled_from(NUMBERS))
    return draw(
        st.sampled_from(
            [
                TokenRequest(resource=VAULT),
                TokenRequest(resource=VAULT, client_id=client_id(number)),
                TokenRequest(resource=VAULT, object_id=object_id(number)),
                TokenRequest(resource=VAULT, resource_id=resource_id(number)),
            ]
        )
    )


def answered(found: tuple[Entitlement, ...] | Refusal) -> bool:
    """Whether there is something that may answer."""
    return bool(found) and not isinstance(found, Refusal)


def _ids(identity: AzureIdentity) -> set[object]:
    known = identity.client_id, identity.object_id, identity.resource_id
    return {each for each in known if each is not None}


@given(worlds(), pods(), rules(), requests())
def test_an_answer_is_always_among_what_the_pod_may_use(
    world: World, asker: Pod, chosen: Rules, request: TokenRequest
) -> None:
    matched = match(asker, world, chosen)
    found = select(matched, request)
    if not isinstance(found, Refusal):
        assert found or request.asked
        assert matched.exception or set(found) <= set(matched.entitlements)


@given(worlds(), pods(), rules(), requests())
def test_who_asks_for_an_id_gets_that_id_or_none(
    world: World, asker: Pod, chosen: Rules, request: TokenRequest
) -> None:
    found = select(match(asker, world, chosen), request)
    if found and not isinstance(found, Refusal) and request.asked is not None:
        [only] = found
        assert request.asked in _ids(only.identity)


@given(worlds(), pods(), rules(), requests())
def test_an_identity_that_the_pod_may_use_is_never_refused_to_it(
    world: World, asker: Pod, chosen: Rules, request: TokenRequest
) -> None:
    matched = match(asker, world, chosen)
    if any(request.asked in _ids(each.identity) for each in matched.entitlements):
        assert answered(select(matched, request))


@given(worlds(), pods(), rules(), requests())
def test_the_same_request_gets_the_same_in_whatever_order_the_cluster_is_listed(
    world: World, asker: Pod, chosen: Rules, request: TokenRequest
) -> None:
    found = select(match(asker, world, chosen), request)
    again = select(match(asker, world.turned(), chosen), request)
    assert isinstance(found, Refusal) == isinstance(again, Refusal)
    assert isinstance(found, Refusal) or found == again


@pytest.mark.parametrize(("refused", "entitled"), [(False, True), (True, True), (True, False)])
def test_the_random_worlds_yield_both_asked_answers_and_refusals(
    refused: bool, entitled: bool
) -> None:
    def holds(case: tuple[World, Pod, Rules, TokenRequest]) -> bool:
        world, asker, chosen, request = case
        matched = match(asker, world, chosen)
        return (
            request.asked is not None
            and bool(matched.entitlements) is entitled
            and answered(select(matched, request)) is not refused
        )

    occurs(st.tuples(worlds(), pods(), rules(), requests()), holds)


def every(use: Use) -> bool:
    del use
    return True


def names(found: object) -> list[str]:
    """Return the names of what may answer, best first."""
    assert isinstance(found, tuple), found
    return [each.identity.ref.name for each in found]


def test_without_an_id_the_heaviest_binding_answers_and_the_others_stand_behind_it() -> None:
    assert names(select(match(pod(), TWO), TokenRequest(resource=VAULT))) == ["beta", "alpha"]


def test_at_equal_weight_the_first_name_answers() -> None:
    world = World(
        [binding("blue", "z", "alpha", "app"), binding("blue", "a", "beta", "app")],
        [identity("blue", "beta", 2), identity("blue", "alpha", 1)],
    )
    found = select(match(pod(), world), TokenRequest(resource=VAULT))
    assert names(found) == ["alpha", "beta"]


def test_several_identities_and_none_asked_are_refused_in_the_words_of_imds_if_so_set() -> None:
    found = select(match(pod(), TWO), TokenRequest(resource=VAULT), Ambiguity.REJECT)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.AMBIGUOUS
    assert found.public == (
        "Multiple user assigned identities exist, please specify the clientId / resourceId of "
        "the identity in the token request"
    )


def test_one_identity_and_none_asked_is_not_ambiguous() -> None:
    world = World([binding("blue", "b", "alpha", "app")], [identity("blue", "alpha")])
    found = select(match(pod(), world), TokenRequest(resource=VAULT), Ambiguity.REJECT)
    assert names(found) == ["alpha"]


@pytest.mark.parametrize(
    "request_",
    [
        TokenRequest(resource=VAULT, client_id=client_id(3)),
        TokenRequest(resource=VAULT, object_id=object_id(3)),
        TokenRequest(resource=VAULT, resource_id=resource_id(3)),
    ],
    ids=["client id", "object id", "resource id"],
)
def test_who_asks_for_what_he_may_not_use_is_told_what_he_may(request_: TokenRequest) -> None:
    found = refusal_of(decide(match(pod(), TWO), request_, every))
    assert found.reason is Reason.NOT_AMONG
    assert found.public == (
        f"Pod blue/pod may not use the identity {request_.asked}. It may use: "
        "beta (00000000-0000-0000-0000-000000000002), "
        "alpha (00000000-0000-0000-0000-000000000001)."
    )


def test_a_message_names_ten_identities_of_thousands() -> None:
    many = range(2_000)
    world = World(
        [binding("blue", f"b{n}", f"i{n:04}", "app") for n in many],
        [identity("blue", f"i{n:04}") for n in many],
    )
    asked = TokenRequest(resource=VAULT, client_id=client_id(3))
    found = refusal_of(decide(match(pod(), world), asked, every, authorization=Authorization.OFF))
    assert found.public.endswith(f"i0009 ({client_id(1)}) and 490 more.")
    assert len(found.public) < 1_000


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (TokenRequest(resource=VAULT, client_id=client_id(1)), "alpha"),
        (TokenRequest(resource=VAULT, client_id=client_id(2)), "beta"),
        (TokenRequest(resource=VAULT, object_id=object_id(1)), "alpha"),
        (TokenRequest(resource=VAULT, object_id=object_id(2)), "beta"),
        (TokenRequest(resource=VAULT, resource_id=resource_id(2)), "beta"),
        (TokenRequest(resource=VAULT, resource_id=resource_id(1, group="g")), "alpha"),
    ],
    ids=repr,
)
def test_an_identity_is_found_by_each_of_its_ids_whatever_their_case(
    request_: TokenRequest, name: str
) -> None:
    assert names(select(match(pod(), TWO), request_)) == [name]


def test_an_identity_whose_object_id_nobody_wrote_down_is_not_found_by_object_id() -> None:
    world = World([binding("blue", "b", "alpha", "app")], [identity("blue", "alpha")])
    world.identities = [identity("blue", "alpha", object_id=None, resource_id=None)]
    for asked in (
        TokenRequest(resource=VAULT, object_id=object_id(1)),
        TokenRequest(resource=VAULT, resource_id=resource_id(1)),
    ):
        assert select(match(pod(), world), asked) == ()


OTHER = Tenant.parse("contoso.example")


@pytest.mark.parametrize(
    ("made", "tenant", "granted_tenant"),
    [
        (principal("blue", "alpha"), None, None),
        (principal("blue", "alpha"), TENANT, None),
        (principal("blue", "alpha", auxiliary_tenants=(OTHER,)), OTHER, OTHER),
        # IMDS gives tokens of its own tenant, whatever it is told.
        (identity("blue", "alpha"), OTHER, None),
    ],
)
def test_a_tenant_may_be_asked_for_that_the_identity_names(
    made: AzureIdentity, tenant: Tenant | None, granted_tenant: Tenant | None
) -> None:
    world = World([binding("blue", "b", "alpha", "app")], [made])
    [found] = match(pod(), world).entitlements
    grant = granted(found, pod(), TokenRequest(resource=VAULT, tenant=tenant))
    assert (grant.identity, grant.pod, grant.tenant) == (made, pod(), granted_tenant)


def test_a_tenant_that_the_identity_does_not_name_is_no_valid_request() -> None:
    world = World([binding("blue", "b", "alpha", "app")], [principal("blue", "alpha")])
    [found] = match(pod(), world).entitlements
    with pytest.raises(InvalidRequest, match=r"contoso\.example, which is none of alpha"):
        granted(found, pod(), TokenRequest(resource=VAULT, tenant=OTHER))
