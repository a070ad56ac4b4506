"""The ClusterRoles of grants: as they are written, and what any RBAC objects let pods use."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.wire.rbac import (
    Giver,
    Grantee,
    RoleHolder,
    binding,
    binding_name,
    ends_with,
    grants,
    holders,
    is_ours,
    namespace_of,
    role,
    role_name,
)
from tests.fakes import CLIENT, OTHER_CLIENT, RESOURCE_ID

ARM = RESOURCE_ID.lower()
WEB, SHOP, ALL = Grantee("shop", "web"), Grantee("shop"), Grantee("")


def test_a_role_lets_use_one_identity_and_nothing_else() -> None:
    assert role(CLIENT) == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {
            "name": f"podidentity-use-{CLIENT}",
            "labels": {"app.kubernetes.io/managed-by": "podidentity"},
        },
        "rules": [
            {
                "apiGroups": ["aadpodidentity.k8s.io"],
                "resources": ["azureidentities"],
                "resourceNames": [CLIENT],
                "verbs": ["use"],
            }
        ],
    }


@pytest.mark.parametrize(
    ("grantee", "name", "subject"),
    [
        (WEB, "shop:web", {"kind": "ServiceAccount", "namespace": "shop", "name": "web"}),
        (
            SHOP,
            "shop",
            {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Group",
                "name": "system:serviceaccounts:shop",
            },
        ),
    ],
)
def test_a_binding_gives_the_role_to_one_account_or_to_a_namespaces(
    grantee: Grantee, name: str, subject: dict[str, str]
) -> None:
    assert binding(CLIENT, grantee, Giver.ADD) == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {
            "name": f"podidentity-use-{CLIENT}:{name}",
            "labels": {"app.kubernetes.io/managed-by": "podidentity"},
            "annotations": {"aadpodidentity.k8s.io/granted-by": "add"},
        },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": f"podidentity-use-{CLIENT}",
        },
        "subjects": [subject],
    }


@pytest.mark.parametrize(
    ("giver", "word"),
    [
        (Giver.GRANT, "grant"),
        (Giver.ADD, "add"),
        (Giver.ENABLE, "enable"),
        (Giver.MIGRATE, "migrate"),
    ],
)
def test_a_binding_says_by_which_command_it_was_given(giver: Giver, word: str) -> None:
    """Bindings of earlier releases say it in these words, and delete reads them."""
    made = binding(CLIENT, WEB, giver)
    assert made["metadata"]["annotations"] == {"aadpodidentity.k8s.io/granted-by": word}


def test_a_binding_ends_with_the_namespace_of_its_uid() -> None:
    made = binding(CLIENT, WEB, Giver.ADD, "uid-1")
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Namespace", "name": "shop", "uid": "uid-1"}
    ]
    assert ends_with(made) == "uid-1"
    assert ends_with(binding(CLIENT, WEB, Giver.ADD)) == ""
    assert ends_with({"metadata": {"ownerReferences": None}}) == ""
    others = [{"kind": "Node", "uid": "n"}, {"uid": "x"}]
    assert ends_with({"metadata": {"ownerReferences": others}}) == ""
    assert ends_with({"metadata": {"ownerReferences": [*others, *owners(made)]}}) == "uid-1"


def owners(made: dict[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = made["metadata"]["ownerReferences"]
    return found


@pytest.mark.parametrize("labels", [None, {}, {"app.kubernetes.io/managed-by": "Helm"}])
def test_what_bears_no_label_of_ours_is_not_ours(labels: dict[str, str] | None) -> None:
    assert is_ours(role(CLIENT))
    more = {"metadata": {"labels": role(CLIENT)["metadata"]["labels"] | {"more": "x"}}}
    assert is_ours(more)
    assert not is_ours({"metadata": {"labels": labels}})
    assert not is_ours({"metadata": {}})
    theirs = binding(CLIENT, WEB, Giver.ADD)
    theirs["metadata"]["labels"] = labels
    assert namespace_of(theirs) == ""


def test_a_binding_of_ours_is_for_one_namespace_or_for_none() -> None:
    found = binding(CLIENT, WEB, Giver.ADD)
    assert namespace_of(found) == "shop"
    assert namespace_of(found | {"subjects": [*found["subjects"], *found["subjects"]]}) == "shop"
    bank = binding(CLIENT, Grantee("bank"), Giver.ADD)
    assert namespace_of(found | {"subjects": [*found["subjects"], *bank["subjects"]]}) == ""
    assert namespace_of(found | {"subjects": []}) == ""
    other = found["roleRef"] | {"name": "cluster-admin"}
    assert namespace_of(found | {"roleRef": other}) == ""
    assert grants(found["roleRef"])
    assert not grants({"name": f"x-{found['roleRef']['name']}"})
    assert not grants({"name": "ends-with-podidentity-use-"})


NAMES = st.sampled_from([CLIENT, OTHER_CLIENT, ARM, f"{ARM}-2", "system-assigned"])
GRANTEES = st.builds(
    Grantee, st.sampled_from(["shop", "bank", "s" * 63]), st.sampled_from(["", "web", "w" * 253])
)


@given(NAMES, GRANTEES, NAMES)
def test_what_is_granted_is_read_back_and_nothing_else_is_granted(
    name: str, grantee: Grantee, other: str
) -> None:
    roles, bindings = [role(name), role(other)], [binding(name, grantee, Giver.GRANT)]
    assert holders(name, roles, bindings) == [RoleHolder(grantee, binding_name(name, grantee))]
    if other != name:
        assert holders(other, roles, bindings) == []


@given(NAMES, GRANTEES, NAMES, GRANTEES)
def test_two_grants_have_two_names_that_kubernetes_takes(
    name: str, grantee: Grantee, other: str, another: Grantee
) -> None:
    first, second = binding_name(name, grantee), binding_name(other, another)
    assert (first == second) is ((name, grantee) == (other, another))
    assert (role_name(name) == role_name(other)) is (name == other)
    assert max(len(first), len(role_name(name))) <= 253


def test_a_name_that_is_just_short_enough_stays() -> None:
    room = 253 - len(f"{role_name(CLIENT)}:shop:")
    for letters in (room, room + 1):
        grantee = Grantee("shop", "w" * letters)
        whole = f"{role_name(CLIENT)}:shop:{'w' * letters}"
        assert (binding_name(CLIENT, grantee) == whole) is (letters == room)
        assert len(binding_name(CLIENT, grantee)) == 253


def test_a_role_is_named_after_its_identity_as_far_as_a_name_may_be() -> None:
    assert role_name(CLIENT) == f"podidentity-use-{CLIENT}"
    assert role_name("a" * 63) == f"podidentity-use-{'a' * 63}"
    assert role_name(ARM).startswith("podidentity-use-orders-")
    assert role_name(f"/a/b_c.d{'e' * 99}").startswith(f"podidentity-use-b-c-d{'e' * 58}-")


def rule(**changes: Any) -> dict[str, Any]:
    found = {
        "verbs": ["use"],
        "apiGroups": ["aadpodidentity.k8s.io"],
        "resources": ["azureidentities"],
        "resourceNames": [CLIENT],
    }
    return {key: value for key, value in (found | changes).items() if value is not None}


def held(*rules: dict[str, Any], subject: dict[str, str] | None = None) -> list[Grantee]:
    found: dict[str, Any] = {"metadata": {"name": "r"}, "rules": list(rules)}
    subjects = [subject or {"kind": "ServiceAccount", "namespace": "shop", "name": "web"}]
    bound = {"metadata": {"name": "b"}, "roleRef": {"name": "r"}, "subjects": subjects}
    return [each.grantee for each in holders(CLIENT, [found], [bound])]


@pytest.mark.parametrize(
    "rules",
    [
        [rule()],
        [rule(resourceNames=[OTHER_CLIENT, CLIENT])],
        [rule(resourceNames=[])],
        [rule(resourceNames=None)],
        [rule(verbs=["get", "*"])],
        [rule(apiGroups=["*"], resources=["*"])],
        [rule(verbs=[]), rule()],
    ],
)
def test_any_rule_that_covers_the_identity_counts(rules: list[dict[str, Any]]) -> None:
    assert held(*rules) == [WEB]


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [rule(resourceNames=[OTHER_CLIENT])],
        [rule(verbs=["get"])],
        [rule(verbs=None)],
        [rule(apiGroups=[""])],
        [rule(apiGroups=None)],
        [rule(resources=["azureidentitybindings"])],
        [rule(resources=None)],
        # What each lacks, the other has.
        [rule(verbs=["get"]), rule(resources=["pods"])],
    ],
)
def test_a_rule_that_lacks_one_of_the_four_grants_nothing(rules: list[dict[str, Any]]) -> None:
    assert held(*rules) == []


@pytest.mark.parametrize(
    ("subject", "grantees"),
    [
        ({"kind": "ServiceAccount", "namespace": "shop", "name": "web"}, [WEB]),
        ({"kind": "User", "name": "system:serviceaccount:shop:web"}, [WEB]),
        ({"kind": "Group", "name": "system:serviceaccounts:shop"}, [SHOP]),
        ({"kind": "Group", "name": "system:serviceaccounts"}, [ALL]),
        ({"kind": "Group", "name": "system:authenticated"}, [ALL]),
        ({"kind": "User", "name": "jane"}, []),
        ({"kind": "User", "name": "system:serviceaccount:shop:we:b"}, [Grantee("shop", "we:b")]),
        ({"kind": "ServiceAccount"}, [Grantee("", "")]),
        ({"kind": "User", "name": "system:serviceaccounts:shop"}, []),
        ({"kind": "User", "name": "system:authenticated"}, []),
        ({"kind": "Group", "name": "system:masters"}, []),
        ({"kind": "Group", "name": "system:serviceaccount:shop:web"}, []),
        ({"kind": "Group"}, []),
        ({}, []),
    ],
)
def test_which_pods_a_subject_stands_for(subject: dict[str, str], grantees: list[Grantee]) -> None:
    assert held(rule(), subject=subject or {"kind": "None"}) == grantees


def test_bindings_of_other_roles_and_without_subjects_grant_nothing() -> None:
    found = {"metadata": {"name": "r"}, "rules": [rule()]}
    other = {**binding(CLIENT, WEB, Giver.GRANT), "roleRef": {"name": "another"}}
    bare = {"metadata": {"name": "b"}, "roleRef": {"name": "r"}}
    assert holders(CLIENT, [found, {"metadata": {"name": "empty"}}], [other, bare]) == []


def test_holders_come_in_the_order_of_their_names() -> None:
    bindings = [binding(CLIENT, each, Giver.GRANT) for each in (WEB, Grantee("bank", "a"), SHOP)]
    found = [each.grantee for each in holders(CLIENT, [role(CLIENT)], bindings)]
    assert found == [Grantee("bank", "a"), SHOP, WEB]


@pytest.mark.parametrize(
    ("grantee", "includes"),
    [
        (ALL, [ALL, SHOP, WEB]),
        (SHOP, [SHOP, WEB]),
        (WEB, [WEB]),
        (Grantee("bank"), []),
        (Grantee("shop", "another"), []),
        (Grantee("bank", "web"), []),
    ],
)
def test_a_wider_grantee_includes_the_narrower_and_no_other(
    grantee: Grantee, includes: list[Grantee]
) -> None:
    assert [each for each in (ALL, SHOP, WEB) if grantee.includes(each)] == includes


def test_a_grantee_is_named_as_people_say_it() -> None:
    said = [str(each) for each in (WEB, SHOP, ALL)]
    assert said == ["service account shop/web", "namespace shop", "all namespaces"]
