"""What was granted stands as long as the object that names its identity."""

from __future__ import annotations

from podidentity.core.decision import current_grants
from podidentity.core.ids import ClientId, ObjectRef
from podidentity.core.resources import AzurePodIdentityException, IdentityType, WorkloadIdentity
from podidentity.core.tokens import Grant
from tests.fakes import CLIENT, OTHER_CLIENT, FakeClock, cluster, grant, identity

ACCOUNT = ObjectRef("shop", "orders")


def stands(given: Grant, *objects: object) -> list[Grant]:
    return list(current_grants(given, cluster(FakeClock(), *objects)))


def test_an_identity_stands_as_it_is_now() -> None:
    changed = identity(client_id=ClientId.parse(OTHER_CLIENT))
    assert stands(grant(), changed) == [grant(changed)]
    assert stands(grant(), identity("another")) == []


def test_an_annotated_service_account_stands_while_it_names_the_same_client() -> None:
    given = grant(identity(type=IdentityType.FEDERATED))
    account = WorkloadIdentity(ref=ACCOUNT, client_id=ClientId.parse(CLIENT))
    another = WorkloadIdentity(ref=ACCOUNT, client_id=ClientId.parse(OTHER_CLIENT))
    assert stands(given, account) == [given]
    assert stands(given, another) == []


def test_an_exception_stands_while_it_is_there() -> None:
    given = grant(identity())
    found = AzurePodIdentityException(ref=ACCOUNT, pod_labels={"a": "b"})
    assert stands(given, found) == [given]
    assert stands(given) == []


def test_objects_of_one_name_do_not_hide_each_other() -> None:
    given = grant(identity(type=IdentityType.FEDERATED))
    account = WorkloadIdentity(ref=ACCOUNT, client_id=ClientId.parse(CLIENT))
    assert given in stands(given, identity(), account)
