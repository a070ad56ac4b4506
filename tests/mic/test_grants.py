"""Whose permissions are asked for again when RBAC changes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from podidentity.mic.grants import Grants
from podidentity.wire.rbac import Giver, Grantee, binding, role
from tests.fakes import CLIENT, OTHER_CLIENT

SHOP, WEB = Grantee("shop"), Grantee("bank", "web")
NOBODYS: dict[str, Any] = {
    "metadata": {"name": "podidentity-use-" + CLIENT},
    "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
}


def raw(found: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(found).encode())


def bound(*grantees: Grantee, name: str = CLIENT) -> msgspec.Raw:
    made = binding(name, grantees[0], Giver.GRANT)
    made["metadata"]["name"] = "bound"
    made["subjects"] = [
        subject for each in grantees for subject in binding(name, each, Giver.GRANT)["subjects"]
    ]
    return raw(made)


@pytest.fixture
def grants() -> Grants:
    """Those of a cluster with one grant, to namespace `shop`."""
    found = Grants()
    found.put_role(raw(role(CLIENT)))
    found.put_binding(bound(SHOP))
    return found


def test_a_binding_concerns_its_pods_in_either_order_of_role_and_binding() -> None:
    first, second = Grants(), Grants()
    assert first.put_role(raw(role(CLIENT))) == set()
    assert first.put_binding(bound(SHOP, WEB)) == {"shop", "bank"}
    assert second.put_binding(bound(SHOP, WEB)) == set()
    assert second.put_role(raw(role(CLIENT))) == {"shop", "bank"}


def test_what_is_told_again_concerns_nobody(grants: Grants) -> None:
    assert grants.put_role(raw(role(CLIENT))) == set()
    assert grants.put_binding(bound(SHOP)) == set()


def test_a_binding_whose_pods_change_concerns_those_before_and_after(grants: Grants) -> None:
    assert grants.put_binding(bound(WEB)) == {"shop", "bank"}


@pytest.mark.parametrize("how", ["other identity", "nothing any more", "deleted"])
def test_a_role_that_changes_concerns_whom_it_is_bound_to(grants: Grants, how: str) -> None:
    name = role(CLIENT)["metadata"]["name"]
    changed = {**role(OTHER_CLIENT), "metadata": {"name": name}}
    found = {
        "other identity": lambda: grants.put_role(raw(changed)),
        "nothing any more": lambda: grants.put_role(raw(NOBODYS)),
        "deleted": lambda: grants.remove_role(name),
    }[how]()
    assert found == {"shop"}


def test_a_binding_that_goes_concerns_its_pods(grants: Grants) -> None:
    assert grants.remove_binding("bound") == {"shop"}
    assert grants.remove_binding("bound") == set()


def test_roles_about_other_things_concern_nobody() -> None:
    grants = Grants()
    assert grants.put_role(raw(NOBODYS)) == set()
    assert grants.put_binding(bound(SHOP)) == set()
    assert grants.remove_binding("bound") == set()
    assert grants.remove_role("never seen") == set()


def test_a_binding_of_all_pods_concerns_all(grants: Grants) -> None:
    assert grants.put_binding(bound(Grantee(""))) == {"", "shop"}


def test_a_binding_of_people_concerns_no_pod(grants: Grants) -> None:
    made = json.loads(bytes(bound(SHOP)))
    del made["subjects"]
    assert grants.put_binding(raw(made)) == {"shop"}
    assert grants.put_binding(raw(made)) == set()


def test_a_binding_to_a_role_that_lets_use_nothing_any_more_concerns_nobody(grants: Grants) -> None:
    assert grants.put_role(raw(NOBODYS)) == {"shop"}
    assert grants.put_role(raw(NOBODYS)) == set()
    assert grants.put_binding(bound(WEB)) == set()


def test_a_role_concerns_no_pods_of_another_role() -> None:
    grants = Grants()
    grants.put_binding(bound(SHOP))
    assert grants.put_role(raw(role(OTHER_CLIENT))) == set()
