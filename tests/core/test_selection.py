from __future__ import annotations

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from podidentity.core.matching import Entitlement, match
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import Pod
from podidentity.core.selection import Ambiguity, select
from podidentity.core.tokens import TokenRequest
from tests.core.worlds import (
    NUMBERS,
    World,
    binding,
    client_id,
    identity,
    object_id,
    pod,
    pods,
    resource_id,
    worlds,
)

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


@given(worlds(), pods(), requests())
def test_an_answer_is_always_among_what_the_pod_may_use(
    world: World, asker: Pod, request: TokenRequest
) -> None:
    matched = match(asker, world)
    found = select(matched, request)
    assert isinstance(found, Refusal) or found in matched.entitlements


@given(worlds(), pods(), requests())
def test_who_asks_for_an_id_gets_that_id_or_a_refusal(
    world: World, asker: Pod, request: TokenRequest
) -> None:
    found = select(match(asker, world), request)
    if isinstance(found, Entitlement) and request.asked is not None:
        ids = {found.identity.client_id, found.identity.object_id, found.identity.resource_id}
        assert request.asked in ids


@given(worlds(), pods(), requests())
def test_an_identity_that_the_pod_may_use_is_never_refused_to_it(
    world: World, asker: Pod, request: TokenRequest
) -> None:
    matched = match(asker, world)
    ids = {
        each
        for entitlement in matched.entitlements
        for each in (
            entitlement.identity.client_id,
            entitlement.identity.object_id,
            entitlement.identity.resource_id,
        )
    }
    if request.asked in ids:
        assert isinstance(select(matched, request), Entitlement)


def test_the_random_worlds_yield_both_asked_answers_and_refusals() -> None:
    def finds(kind: type, *, entitled: bool) -> None:
        def holds(case: tuple[World, Pod, TokenRequest]) -> bool:
            world, asker, request = case
            matched = match(asker, world)
            return (
                request.asked is not None
                and bool(matched.entitlements) is entitled
                and isinstance(select(matched, request), kind)
            )

        find(st.tuples(worlds(), pods(), requests()), holds)

    finds(Entitlement, entitled=True)
    finds(Refusal, entitled=True)
    finds(Refusal, entitled=False)


def test_without_an_id_the_heaviest_binding_answers() -> None:
    found = select(match(pod(), TWO), TokenRequest(resource=VAULT))
    assert isinstance(found, Entitlement)
    assert found.identity.ref.name == "beta"


def test_at_equal_weight_the_first_name_answers() -> None:
    world = World(
        [binding("blue", "z", "alpha", "app"), binding("blue", "a", "beta", "app")],
        [identity("blue", "beta", 2), identity("blue", "alpha", 1)],
    )
    found = select(match(pod(), world), TokenRequest(resource=VAULT))
    assert isinstance(found, Entitlement)
    assert found.identity.ref.name == "alpha"


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
    assert isinstance(found, Entitlement)


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
    found = select(match(pod(), TWO), request_)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.NOT_AMONG
    assert found.public == (
        f"Pod blue/pod may not use the identity {request_.asked}. It may use: "
        "beta (00000000-0000-0000-0000-000000000002), "
        "alpha (00000000-0000-0000-0000-000000000001)."
    )


def test_a_resource_id_is_found_whatever_its_case() -> None:
    asked = resource_id(1, group="g")
    found = select(match(pod(), TWO), TokenRequest(resource=VAULT, resource_id=asked))
    assert isinstance(found, Entitlement)
    assert found.identity.ref.name == "alpha"


def test_an_identity_whose_object_id_nobody_wrote_down_is_not_found_by_object_id() -> None:
    bare = identity("blue", "alpha")
    world = World(
        [binding("blue", "b", "alpha", "app")],
        [type(bare)(ref=bare.ref, type=bare.type, client_id=bare.client_id)],
    )
    found = select(match(pod(), world), TokenRequest(resource=VAULT, object_id=object_id(1)))
    assert isinstance(found, Refusal)
