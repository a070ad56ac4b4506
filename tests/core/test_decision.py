"""The whole decision: the identity that answers, its permission, and the grant."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.decision import (
    MOST_TRIED,
    Allowed,
    Ambiguity,
    Authorization,
    Basis,
    Decision,
    Denied,
    Entitlement,
    Permitted,
    Rules,
    Undecided,
    Use,
    current_grants,
    decide,
    granted,
    match,
    permission_name,
    select,
    uses_of,
)
from podidentity.core.errors import InvalidRequest
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    AzureIdentity,
    AzurePodIdentityException,
    ClientId,
    Grant,
    IdentityType,
    ObjectRef,
    Pod,
    Tenant,
    TokenRequest,
    WorkloadIdentity,
)
from tests import fakes
from tests.core.objects import (
    TENANT,
    binding,
    client_id,
    exception,
    identity,
    object_id,
    pod,
    principal,
    record,
    resource_id,
    system,
)
from tests.core.worlds import NUMBERS, World, occurs, pods, rules, worlds
from tests.fakes import CLIENT, OTHER_CLIENT, FakeClock, cluster, grant

ANY = TokenRequest(resource="r")
ACCOUNT = ObjectRef("blue", "default")
TWO = World(
    [binding("blue", "b1", "alpha", "app", 1), binding("blue", "b2", "beta", "app", 5)],
    [identity("blue", "alpha", 1), identity("blue", "beta", 2)],
)


def asking(number: int) -> TokenRequest:
    return TokenRequest(resource="r", client_id=client_id(number))


def rbac(*names: object, unknown: tuple[object, ...] = ()) -> Permitted:
    """Return an RBAC that grants these names, and knows nothing of some."""
    granted, open_ = {str(each) for each in names}, {str(each) for each in unknown}
    return lambda use: None if use.name in open_ else use.name in granted


def two(request: TokenRequest, permitted: Permitted, **how: Authorization) -> Decision:
    return decide(match(pod(), TWO), request, permitted, **how)  # type: ignore[arg-type]


def answers(found: Decision) -> str:
    """Return the name of the identity that answers, or the reason, or the question."""
    if isinstance(found, Allowed):
        return found.identity.ref.name
    if isinstance(found, Denied):
        return found.refusal.reason.value
    return f"ask {found.question}"


def refusal_of(found: Decision) -> Refusal:
    assert isinstance(found, Denied), found
    return found.refusal


@pytest.mark.parametrize(
    ("request_", "permitted", "expected"),
    [
        (ANY, rbac(client_id(1), client_id(2)), "beta"),
        (ANY, rbac(client_id(1)), "alpha"),
        (ANY, rbac(), "NotPermitted"),
        (ANY, rbac(unknown=(client_id(2),)), f"ask blue/default use {client_id(2)}"),
        (ANY, rbac(unknown=(client_id(1),)), f"ask blue/default use {client_id(1)}"),
        (ANY, rbac(client_id(2), unknown=(client_id(1),)), "beta"),
        # The first one may be permitted: nothing else is given before that is known.
        (ANY, rbac(client_id(1), unknown=(client_id(2),)), f"ask blue/default use {client_id(2)}"),
        (asking(1), rbac(client_id(1)), "alpha"),
        (asking(1), rbac(client_id(2)), "NotPermitted"),
        (asking(1), rbac(unknown=(client_id(1),)), f"ask blue/default use {client_id(1)}"),
        (asking(1), rbac(unknown=(client_id(2),)), f"ask blue/default use {client_id(2)}"),
        (asking(3), rbac(client_id(1), client_id(3)), "NotAmongThePodsIdentities"),
        (asking(3), rbac(unknown=(client_id(2),)), f"ask blue/default use {client_id(2)}"),
    ],
)
def test_what_is_entitled_is_given_where_it_is_permitted(
    request_: TokenRequest, permitted: Permitted, expected: str
) -> None:
    assert answers(two(request_, permitted)) == expected


ALPHA, BETA = f"alpha ({client_id(1)})", f"beta ({client_id(2)})"


@pytest.mark.parametrize(
    ("request_", "permitted", "usable"),
    [
        (asking(3), rbac(client_id(1), client_id(2)), f"{BETA}, {ALPHA}"),
        (asking(3), rbac(client_id(1)), ALPHA),
        (asking(3), rbac(), "none"),
        (asking(1), rbac(client_id(2)), BETA),
        (asking(1), rbac(), "none"),
        (ANY, rbac(), "none"),
    ],
)
def test_a_refusal_names_what_the_pod_may_use_and_is_permitted_and_nothing_else(
    request_: TokenRequest, permitted: Permitted, usable: str
) -> None:
    refusal = refusal_of(two(request_, permitted))
    assert refusal.public.endswith(f" It may use: {usable}.")


def test_a_missing_permission_says_who_lacks_what_and_how_to_grant_it() -> None:
    refusal = refusal_of(two(asking(1), rbac(client_id(2))))
    assert str(refusal) == (
        f"Service account blue/default of pod blue/pod may not use the identity {client_id(1)} of "
        f"AzureIdentity blue/alpha. It may use: beta ({client_id(2)}). An operator grants it: "
        f"podidentity grant --namespace blue --identity {client_id(1)}."
    )


def test_observing_gives_the_token_and_tells_what_would_have_been_refused() -> None:
    found = two(ANY, rbac(client_id(1)), authorization=Authorization.OBSERVE)
    assert isinstance(found, Allowed)
    assert answers(found) == "beta"
    assert found.observed is not None
    assert found.observed.reason is Reason.NOT_PERMITTED
    # What it may use instead nobody has looked at.
    assert found.observed.message == (
        f"Service account blue/default of pod blue/pod may not use the identity {client_id(2)} of "
        "AzureIdentity blue/beta."
    )
    unknown = two(ANY, rbac(unknown=(client_id(2),)), authorization=Authorization.OBSERVE)
    assert answers(unknown) == f"ask blue/default use {client_id(2)}"
    permitted = two(ANY, rbac(client_id(2)), authorization=Authorization.OBSERVE)
    assert isinstance(permitted, Allowed)
    assert (answers(permitted), permitted.observed) == ("beta", None)
    among = two(asking(3), rbac(), authorization=Authorization.OBSERVE)
    assert "beta" in refusal_of(among).public


def test_with_authorization_off_nobody_is_asked() -> None:
    def never(use: Use) -> bool:
        raise AssertionError(use)

    assert answers(two(ANY, never, authorization=Authorization.OFF)) == "beta"
    assert answers(two(asking(3), never, authorization=Authorization.OFF)).startswith("NotAmong")


def test_an_identity_on_its_way_to_the_node_is_waited_for_though_another_is_there() -> None:
    world = replace(TWO, records=[record("blue", "alpha", "Assigned")])
    matched = match(pod(), world, Rules(standard=True))
    found = decide(matched, ANY, rbac(client_id(1), client_id(2)))
    assert (answers(found), found.identity) == ("NotAssigned", TWO.identities[1])
    assert answers(decide(matched, ANY, rbac(client_id(1)))) == "alpha"
    assert answers(decide(matched, asking(1), rbac(client_id(1)))) == "alpha"


def test_what_is_not_permitted_is_not_waited_for() -> None:
    found = decide(match(pod(), TWO, Rules(standard=True)), ANY, rbac())
    assert answers(found) == "NotPermitted"


def test_of_thousands_of_bindings_a_request_asks_for_a_few() -> None:
    many = range(2_000)
    world = World(
        [binding("blue", f"b{n}", f"i{n:04}", "app") for n in many],
        [identity("blue", f"i{n:04}", client_id=None, resource_id=None) for n in many],
    )
    asked: list[Use] = []

    def permitted(use: Use) -> bool:
        asked.append(use)
        return False

    assert answers(decide(match(pod(), world), ANY, permitted)) == "NotPermitted"
    assert len(asked) <= 6 * MOST_TRIED


ELEVEN = World(
    [binding("blue", f"b{n}", f"i{n:02}", "app") for n in range(1, 12)],
    [identity("blue", f"i{n:02}", n) for n in range(1, 12)],
)


@pytest.mark.parametrize("request_", [ANY, asking(2), asking(12)], ids=["none", "bound", "other"])
def test_a_refusal_says_that_not_all_of_many_identities_were_looked_at(
    request_: TokenRequest,
) -> None:
    refusal = refusal_of(decide(match(pod(), ELEVEN), request_, rbac(client_id(11))))
    assert refusal.public.endswith(
        " It may use: none. Only the first 10 of 11 were checked; name one by client_id."
    )
    assert answers(decide(match(pod(), ELEVEN), asking(11), rbac(client_id(11)))) == "i11"


@pytest.mark.parametrize("how", [Authorization.OFF, Authorization.OBSERVE])
def test_where_nobody_has_to_be_asked_all_of_many_identities_are_counted(
    how: Authorization,
) -> None:
    refusal = refusal_of(decide(match(pod(), ELEVEN), asking(12), rbac(), authorization=how))
    assert refusal.public.endswith(f"i10 ({client_id(10)}) and 1 more.")


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (identity("blue", "alpha", 2), str(client_id(2))),
        (system("blue", "alpha"), "system-assigned"),
        (
            identity("blue", "alpha", client_id=None),
            "/subscriptions/s/resourcegroups/g/providers"
            "/microsoft.managedidentity/userassignedidentities/id-1",
        ),
        (identity("blue", "alpha", client_id=None, resource_id=None), ""),
    ],
)
def test_the_name_to_be_granted_is_the_client_id_or_what_stands_for_it(
    made: object, name: str
) -> None:
    assert permission_name(made) == name  # type: ignore[arg-type]


def test_an_excepted_pod_needs_no_permission() -> None:
    world = World(all_exceptions=[exception("blue", "e", {"tier": "web"})])
    matched = match(pod(more={"tier": "web"}), world, Rules(exception_namespaces=None))
    found = decide(matched, asking(1), rbac())
    assert isinstance(found, Allowed)
    assert found.entitlement.basis is Basis.EXCEPTION


PERMITTED = st.dictionaries(
    st.sampled_from(["system-assigned", *[str(client_id(n)) for n in range(1, 4)]]),
    st.sampled_from([True, True, False, None]),
)


@given(worlds(), pods(), rules(), st.sampled_from([ANY, asking(1), asking(2)]), PERMITTED)
def test_nothing_is_given_without_all_the_permissions_it_needs(
    world: World,
    asker: Pod,
    chosen: Rules,
    request: TokenRequest,
    known: dict[str, bool | None],
) -> None:
    found = decide(match(asker, world, chosen), request, lambda use: known.get(use.name, False))
    if isinstance(found, Allowed):
        for use in uses_of(asker, found.entitlement):
            assert known[use.name] is True


@pytest.mark.parametrize("kind", [Allowed, Denied, Undecided])
def test_each_kind_of_decision_occurs_for_bound_pods(kind: type[Decision]) -> None:
    def yields(case: tuple[World, Pod, dict[str, bool | None]]) -> bool:
        world, asker, known = case
        matched = match(asker, world)
        found = decide(matched, ANY, lambda use: known.get(use.name, False))
        return bool(matched.bindings and matched.entitlements) and isinstance(found, kind)

    occurs(st.tuples(worlds(), pods(), PERMITTED), yields)


VAULT = "https://vault.azure.net"


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
    """Return the names of the identities that may answer, best first."""
    assert isinstance(found, tuple), found
    return [each.identity.ref.name for each in found]


def test_without_an_id_the_heaviest_binding_answers_and_the_others_stand_behind_it() -> None:
    assert names(select(match(pod(), TWO), TokenRequest(resource=VAULT))) == ["beta", "alpha"]


def test_of_two_identities_that_have_the_id_the_heavier_one_answers_alone() -> None:
    alike = World(
        TWO.all_bindings,
        [identity("blue", "alpha", 1), identity("blue", "beta", 2, resource_id=resource_id(1))],
    )
    found = select(match(pod(), alike), TokenRequest(resource="r", resource_id=resource_id(1)))
    assert isinstance(found, tuple)
    assert [each.identity.ref.name for each in found] == ["beta"]


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
        f"Identity not found: pod blue/pod has no identity {request_.asked}. It may use: "
        "beta (00000000-0000-0000-0000-000000000002), "
        "alpha (00000000-0000-0000-0000-000000000001)."
    )


def test_who_asks_for_an_id_does_not_learn_whether_it_exists_elsewhere() -> None:
    beside, elsewhere = identity("blue", "beside", 3), identity("green", "theirs", 4)
    bound = [binding("blue", "b3", "beside", "other"), binding("green", "b", "theirs", "app")]
    others = World([*TWO.all_bindings, *bound], [*TWO.identities, beside, elsewhere])

    def told(number: int) -> Refusal:
        request = TokenRequest(resource=VAULT, client_id=client_id(number))
        return refusal_of(decide(match(pod(), others), request, every))

    nowhere = told(5)
    for number in (3, 4):
        as_nowhere = str(told(number)).replace(str(client_id(number)), str(client_id(5)))
        assert (as_nowhere, told(number).reason) == (str(nowhere), nowhere.reason)
        assert told(number).public.count(str(client_id(number))) == 1


def test_an_identity_is_named_with_its_client_id_or_with_what_it_has_instead() -> None:
    world = World(
        [binding("blue", "b1", "alpha", "app"), binding("blue", "b2", "beta", "app")],
        [identity("blue", "alpha", client_id=None), system("blue", "beta")],
    )
    refusal = refusal_of(decide(match(pod(), world), asking(3), every))
    assert refusal.public.endswith(f" It may use: alpha ({resource_id(1)}), beta.")


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


ORDERS = ObjectRef("shop", "orders")


def stands(given: Grant, *objects: object) -> list[Grant]:
    return list(current_grants(given, cluster(FakeClock(), *objects)))


def test_an_identity_stands_as_it_is_now() -> None:
    changed = fakes.identity(client_id=ClientId.parse(OTHER_CLIENT))
    assert stands(grant(), changed) == [grant(changed)]
    assert stands(grant(), fakes.identity("another")) == []


def test_an_annotated_service_account_stands_while_it_names_the_same_client() -> None:
    given = grant(fakes.identity(type=IdentityType.FEDERATED))
    account = WorkloadIdentity(ref=ORDERS, client_id=ClientId.parse(CLIENT))
    another = WorkloadIdentity(ref=ORDERS, client_id=ClientId.parse(OTHER_CLIENT))
    assert stands(given, account) == [given]
    assert stands(given, another) == []


def test_an_exception_stands_while_it_is_there() -> None:
    given = grant(fakes.identity())
    found = AzurePodIdentityException(ref=ORDERS, pod_labels={"a": "b"})
    assert stands(given, found) == [given]
    assert stands(given) == []


def test_objects_of_one_name_do_not_hide_each_other() -> None:
    given = grant(fakes.identity(type=IdentityType.FEDERATED))
    account = WorkloadIdentity(ref=ORDERS, client_id=ClientId.parse(CLIENT))
    assert given in stands(given, fakes.identity(), account)
