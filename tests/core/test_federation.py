from __future__ import annotations

from dataclasses import replace

import pytest

from podidentity.core.decision import Basis, Entitlement, uses_of
from podidentity.core.federation import account_name, has_an_account, stand_in, subject_of
from podidentity.core.resources import (
    AssertionSubject,
    AzureIdentity,
    Federation,
    Grant,
    IdentityType,
    ObjectRef,
    ResourceId,
)
from tests.fakes import CLIENT, RESOURCE_ID, identity, pod
from tests.principals import federated, principal

VIA = Federation(via=ResourceId.parse(RESOURCE_ID))


def test_an_identitys_own_account_is_named_by_a_hash_of_where_it_is() -> None:
    assert account_name(ObjectRef("shop", "orders")) == (
        "podidentity-644f7b8cf5aca6aec34d5cd7d59560ba"
    )
    names = {
        account_name(ObjectRef(namespace, name))
        for namespace in ("a", "a-b", "b")
        for name in ("b-c", "c", "b")
    }
    assert len(names) == 9
    assert all(len(name) <= 63 for name in names)


def test_the_subject_is_the_pods_account_or_the_identitys() -> None:
    asked = Grant(identity=federated(), pod=pod(service_account="web"))
    own = account_name(asked.identity.ref)
    by_pod, by_identity = Federation(), Federation(subject=AssertionSubject.IDENTITY)
    assert subject_of(asked, by_pod, "ours") == ObjectRef("shop", "web")
    assert subject_of(asked, by_identity, "ours") == ObjectRef("ours", own)


@pytest.mark.parametrize(
    ("signs_in", "own"),
    [
        (identity(), False),
        (principal(), False),
        (federated(), False),
        (federated(Federation(subject=AssertionSubject.IDENTITY)), True),
        (federated(VIA), False),
        (federated(replace(VIA, subject=AssertionSubject.IDENTITY)), False),
    ],
    ids=["managed", "secret", "pod", "identity", "via", "identity and via"],
)
def test_an_account_of_its_own_signs_in_where_it_is_the_subject_and_nothing_stands_in(
    signs_in: AzureIdentity, *, own: bool
) -> None:
    assert has_an_account(signs_in) is own


def test_a_managed_identity_stands_in_only_where_it_is_named() -> None:
    assert stand_in(federated(), Federation()) is None
    found = stand_in(federated(), VIA)
    assert found is not None
    assert (found.type, found.client_id) == (IdentityType.USER_ASSIGNED, None)
    assert str(found.resource_id) == RESOURCE_ID


def test_who_signs_in_by_a_managed_identity_must_be_allowed_to_use_it_too() -> None:
    bound = Entitlement(identity=federated(VIA))
    assert [use.name for use in uses_of(pod(), bound)] == [CLIENT, RESOURCE_ID.lower()]
    assert len(uses_of(pod(), Entitlement(identity=federated()))) == 1
    annotated = Entitlement(identity=federated(), basis=Basis.SERVICE_ACCOUNT)
    assert uses_of(pod(), annotated) == ()
