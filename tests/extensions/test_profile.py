"""What the az extension makes of a cluster's podIdentityProfile, and how it shows it.

Expectations are aks-preview's, from its tests and sources:
https://github.com/Azure/azure-cli-extensions/tree/main/src/aks-preview/azext_aks_preview
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as Model
from typing import Any

import pytest
from azext_podidentity import profile
from azext_podidentity.commands import exception_rows, identity_rows
from azext_podidentity.profile import NEEDS_CONSENT, NOT_ENABLED, NotAllowed


def new_profile(**fields: Any) -> Model:
    empty: dict[str, Any] = {
        "allow_network_plugin_kubenet": None,
        "user_assigned_identities": None,
        "user_assigned_identity_exceptions": None,
    }
    return Model(**{**empty, **fields})


def cluster(plugin: str = "azure", **fields: Any) -> Model:
    made = new_profile(**fields) if fields else None
    return Model(pod_identity_profile=made, network_profile=Model(network_plugin=plugin))


def item(name: str, namespace: str = "shop", **fields: Any) -> Model:
    return Model(name=name, namespace=namespace, **fields)


def names(items: list[Model]) -> list[str]:
    return [one.name for one in items]


def test_enabling_makes_a_profile_and_a_second_time_keeps_what_is_there() -> None:
    mine = cluster()
    profile.enable(mine, kubenet=False, new_profile=new_profile)
    profile.put_identity(mine, item("a"))
    profile.enable(mine, kubenet=False, new_profile=new_profile)
    assert names(mine.pod_identity_profile.user_assigned_identities) == ["a"]


def test_disabling_forgets_identities_and_exceptions() -> None:
    mine = cluster(enabled=True, user_assigned_identities=[item("a")])
    profile.disable(mine, new_profile=new_profile)
    assert mine.pod_identity_profile == new_profile(enabled=False)
    profile.enable(mine, kubenet=False, new_profile=new_profile)
    assert mine.pod_identity_profile == new_profile(enabled=True)


def test_kubenet_needs_a_consent_that_is_given_once() -> None:
    mine = cluster("kubenet")
    with pytest.raises(NotAllowed, match=NEEDS_CONSENT):
        profile.enable(mine, kubenet=False, new_profile=new_profile)
    profile.enable(mine, kubenet=True, new_profile=new_profile)
    assert mine.pod_identity_profile.allow_network_plugin_kubenet is True
    profile.enable(mine, kubenet=False, new_profile=new_profile)
    profile.put_identity(mine, item("a"))


CHANGES: dict[str, Callable[[Any], None]] = {
    "ask": profile.require_enabled,
    "add": lambda mine: profile.put_identity(mine, item("a")),
    "delete": lambda mine: profile.remove_identity(mine, "shop", "a"),
    "exception add": lambda mine: profile.put_exception(mine, item("a")),
    "exception update": lambda mine: profile.change_exception(mine, item("a")),
    "exception delete": lambda mine: profile.remove_exception(mine, "shop", "a"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fields", [{}, {"enabled": False}])
def test_nothing_is_added_while_the_add_on_is_off(change: str, fields: dict[str, Any]) -> None:
    with pytest.raises(NotAllowed) as refusal:
        CHANGES[change](cluster(**fields))
    assert str(refusal.value) == NOT_ENABLED


def test_an_identity_replaces_its_namesake_in_its_own_namespace_only() -> None:
    known = [item("a"), item("b"), item("a", "other")]
    mine = cluster(enabled=True, user_assigned_identities=known)
    new = item("a")
    profile.put_identity(mine, new)
    found = mine.pod_identity_profile.user_assigned_identities
    assert [(one.namespace, one.name) for one in found] == [
        ("shop", "b"),
        ("other", "a"),
        ("shop", "a"),
    ]
    assert found[-1] is new


def test_identities_whose_names_azure_makes_do_not_replace_each_other() -> None:
    mine = cluster(enabled=True)
    profile.put_identity(mine, item(""))
    profile.put_identity(mine, item(""))
    assert names(mine.pod_identity_profile.user_assigned_identities) == ["", ""]


def test_deleting_what_is_not_there_is_silently_done() -> None:
    mine = cluster(enabled=True, user_assigned_identities=[item("a")])
    profile.remove_identity(mine, "shop", "b")
    profile.remove_exception(mine, "shop", "b")
    assert names(mine.pod_identity_profile.user_assigned_identities) == ["a"]
    profile.remove_identity(mine, "shop", "a")
    assert mine.pod_identity_profile.user_assigned_identities == []


def test_only_an_exception_that_is_there_is_updated() -> None:
    mine = cluster(enabled=True)
    with pytest.raises(NotAllowed, match="pod identity exception shop/e not found"):
        profile.change_exception(mine, item("e"))
    profile.put_exception(mine, item("e", pod_labels={"a": "b"}))
    profile.change_exception(mine, item("e", pod_labels={"c": "d"}))
    (found,) = mine.pod_identity_profile.user_assigned_identity_exceptions
    assert found.pod_labels == {"c": "d"}


def test_an_exception_without_labels_is_sent_with_an_empty_map() -> None:
    old = item("e", pod_labels=None)
    mine = cluster(enabled=True, user_assigned_identity_exceptions=[old])
    profile.put_identity(mine, item("a"))
    assert old.pod_labels == {}


def test_tables_have_a_row_for_each_identity_and_exception() -> None:
    shown = {
        "podIdentityProfile": {
            "userAssignedIdentities": [
                {
                    "namespace": "shop",
                    "name": "a",
                    "provisioningState": "Assigned",
                    "identity": {"resourceId": "/id"},
                },
                {"namespace": "shop", "name": "b"},
            ],
            "userAssignedIdentityExceptions": [
                {"namespace": "shop", "name": "e", "podLabels": {"k": "v", "l": "w"}}
            ],
        }
    }
    assert [row["provisioningState"] for row in identity_rows(shown)] == ["Assigned", ""]
    assert [row["podLabels"] for row in exception_rows(shown)] == ["k=v l=w"]
    assert identity_rows({}) == exception_rows({"podIdentityProfile": None}) == []


def failed(code: str) -> Model:
    return Model(error=Model(error=Model(code=code, message="")))


def test_only_a_missing_right_of_the_cluster_at_that_identity_is_worth_another_try() -> None:
    missing = failed("LinkedAuthorizationFailed")
    states = {"late": missing, "other": failed("FailedIdentityOperation"), "done": None}
    known = [item(name, provisioning_info=state) for name, state in states.items()]
    mine = cluster(enabled=True, user_assigned_identities=known)
    tried = {name: profile.lacks_the_role(mine, item(name)) for name in (*states, "unknown")}
    assert tried == {"late": True, "other": False, "done": False, "unknown": False}
    assert not profile.lacks_the_role(mine, item("late", "elsewhere"))
