"""The archived project's own unit cases of selection and exceptions, in our objects.

TestGetIdentitiesStandardClient, TestGetIdentitiesManagedClient, TestIsPodExcepted, ParseResourceID:
https://github.com/Azure/aad-pod-identity pkg/nmi, pkg/pod and pkg/cloudprovider. RedactClientID is
in test_old_answers, the router's paths are in tests/wire/test_imds.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from podidentity.core.decision import Allowed, Denied, Rules, decide, match
from podidentity.core.refusals import Reason
from podidentity.core.resources import ClientId, InvalidId, ResourceId, TokenRequest
from tests.core.objects import (
    binding,
    client_id,
    exception,
    identity,
    pod,
    record,
    resource_id,
)
from tests.core.worlds import World

Asked = ClientId | ResourceId | None
Namespaced = tuple[str, int]
BLUE_1, BLUE_2 = ("blue", 1), ("blue", 2)


def outcome(world: World, asked: Asked, rules: Rules) -> str:
    """Return the name of the identity that answers, or the reason why none does."""
    request = TokenRequest(
        resource="r",
        client_id=asked if isinstance(asked, ClientId) else None,
        resource_id=asked if isinstance(asked, ResourceId) else None,
    )
    found = decide(match(pod(), world, rules), request, lambda use: bool(use.name))
    if isinstance(found, Allowed):
        return found.identity.ref.name
    assert isinstance(found, Denied)
    return str(found.refusal.reason)


def world_of(*identities: Namespaced, **states: str) -> World:
    """Return a world in which `azid1`, `azid2`, … are bound; `states`: the records' words."""
    names = {number: f"azid{number}" for _, number in identities}
    return World(
        [binding(ns, f"b{n}", names[n], "app") for ns, n in identities],
        [identity(ns, names[n], n) for ns, n in identities],
        records=[record("blue", name, state) for name, state in states.items()],
    )


@pytest.mark.parametrize(
    ("world", "asked", "expected"),
    [
        # No identities.
        (world_of(), None, Reason.NO_BINDING),
        # A record without a state is read as Assigned: test_manifests_others.
        (world_of(BLUE_1, BLUE_2, azid1="Assigned", azid2="Assigned"), None, "azid1"),
        # No id asked, in state Created only.
        (world_of(BLUE_1, BLUE_2, azid1="Created", azid2="Created"), None, Reason.NOT_ASSIGNED),
        # No id asked, only the second is bound and assigned.
        (world_of(BLUE_2, azid2="Assigned"), None, "azid2"),
        # A client id, whose identity is not assigned.
        (
            world_of(BLUE_1, BLUE_2, azid1="Created", azid2="Assigned"),
            client_id(1),
            Reason.NOT_ASSIGNED,
        ),
        # A client id, whose identity is assigned.
        (world_of(BLUE_1, BLUE_2, azid1="Created", azid2="Assigned"), client_id(2), "azid2"),
        # A resource id, whose identity is assigned.
        (world_of(BLUE_1, BLUE_2, azid1="Created", azid2="Assigned"), resource_id(2), "azid2"),
        # A client id in the pod's namespace, among others.
        (world_of(BLUE_2, ("green", 1), ("green", 3), azid2="Assigned"), client_id(2), "azid2"),
        # No id asked: the one of the pod's namespace.
        (world_of(("green", 1), ("green", 2), ("blue", 3), azid3="Assigned"), None, "azid3"),
    ],
)
def test_standard_mode_answers_as_the_archived_client_did(
    world: World, asked: Asked, expected: str
) -> None:
    assert outcome(world, asked, Rules(standard=True)) == expected


@pytest.mark.parametrize(
    ("world", "asked", "expected"),
    [
        (world_of(), None, Reason.NO_BINDING),
        (world_of(BLUE_2), client_id(1), Reason.NOT_AMONG),
        (world_of(BLUE_1), client_id(1), "azid1"),
        (world_of(BLUE_1), resource_id(2), Reason.NOT_AMONG),
        (world_of(BLUE_1, BLUE_2), resource_id(2), "azid2"),
        (world_of(BLUE_1, BLUE_2), None, "azid1"),
    ],
)
def test_managed_mode_answers_as_the_archived_client_did(
    world: World, asked: Asked, expected: str
) -> None:
    assert outcome(world, asked, Rules()) == expected


@pytest.mark.parametrize(
    ("wanted", "excepted"),
    [
        ([], False),
        ([{"foo": "notexcept"}], False),
        ([{"foo": "notexcept"}, {"foo": "except"}], True),
        ([{"foo": "except"}], True),
    ],
)
def test_a_pod_is_excepted_as_it_was(wanted: list[Mapping[str, str]], excepted: bool) -> None:
    made = [exception("blue", f"exception{n}", labels) for n, labels in enumerate(wanted)]
    asker = pod(selector=None, more={"foo": "except"})
    everywhere = Rules(exception_namespaces=None)
    assert (match(asker, World(all_exceptions=made), everywhere).exception is not None) is excepted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "asdf",
        "/subscriptions/asdf/resourceGroups/qwerty",
        # Its parser took any type of resource, and the outer of nested ones; ours are identities.
        "/subscriptions/asdf/resourceGroups/qwerty/providers/testCompute/myObjectType/testResource",
        f"{resource_id(1)}/someNestedResource/myNestedResource",
    ],
)
def test_what_is_no_identity_of_azure_is_no_resource_id(text: str) -> None:
    with pytest.raises(InvalidId):
        ResourceId.parse(text)


def test_an_identity_of_azure_is_taken_apart() -> None:
    found = resource_id(1, "qwerty")
    assert (found.subscription, found.group, found.name) == ("s", "qwerty", "id-1")
