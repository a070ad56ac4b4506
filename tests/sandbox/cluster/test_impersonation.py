"""Acting as somebody else, with and without constrained impersonation (KEP-5284).

https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from podidentity_sandbox.cluster.authentication import Decision, User, refusal
from podidentity_sandbox.cluster.authorization import Authorization, covers
from podidentity_sandbox.cluster.impersonation import Impersonation
from podidentity_sandbox.cluster.paths import RequestInfo, request_info
from podidentity_sandbox.cluster.status import StatusError

ACCOUNT = "system:serviceaccount:kube-system:agent"
TOKEN = request_info("POST", "/api/v1/namespaces/shop/serviceaccounts/web/token", {})
BE_MY_NODE = {
    "verbs": ["impersonate:associated-node"],
    "apiGroups": ["authentication.k8s.io"],
    "resources": ["nodes"],
}
ASK_AS_MY_NODE = {
    "verbs": ["impersonate-on:associated-node:create"],
    "apiGroups": [""],
    "resources": ["serviceaccounts/token"],
}
BE_ANYBODY = {"verbs": ["impersonate"], "apiGroups": ["*"], "resources": ["*"]}


class Rules(Authorization):
    """An authorizer of these rules, for everybody."""

    def __init__(self, *rules: dict[str, Any]) -> None:
        self._given = rules

    def decide(self, _: User, info: RequestInfo) -> Decision:
        return Decision(any(covers(rule, info) for rule in self._given))


def agent(node: str = "n1") -> User:
    extra = {"authentication.kubernetes.io/node-name": [node]} if node else {}
    return User(ACCOUNT, ("system:serviceaccounts",), "u", extra)


def acted(
    *rules: dict[str, Any],
    user: User | None = None,
    minor: int = 36,
    info: RequestInfo = TOKEN,
    headers: Iterable[tuple[str, str]] = (("Impersonate-User", "system:node:n1"),),
) -> User:
    return Impersonation(Rules(*rules), minor=minor).user(user or agent(), headers, info)


def test_a_pod_acts_as_the_node_that_its_token_names() -> None:
    found = acted(BE_MY_NODE, ASK_AS_MY_NODE)
    assert found == User("system:node:n1", ("system:nodes", "system:authenticated"))


@pytest.mark.parametrize(
    ("user", "header", "why"),
    [
        (agent("n2"), "", "another node"),
        (agent(""), "", "no node"),
        (User("n1"), "", "no service account"),
        *((agent(), f"Impersonate-{part}", part) for part in ("Group", "Uid", "Extra-a")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_as_another_node_or_with_more_than_its_groups_it_does_not_act(
    user: User, header: str, why: str
) -> None:
    more = [(header, "system:masters")] if header else []
    headers = [("Impersonate-User", "system:node:n1"), *more]
    with pytest.raises(StatusError) as refused:
        acted(BE_MY_NODE, ASK_AS_MY_NODE, user=user, headers=headers)
    assert refused.value.code == 403, why


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (
            [BE_MY_NODE],
            'serviceaccounts "web" is forbidden: User "system:serviceaccount:kube-system:agent" '
            "cannot impersonate-on:associated-node:create resource "
            '"serviceaccounts/token" in API group "" in the namespace "shop"',
        ),
        (
            [ASK_AS_MY_NODE],
            'nodes.authentication.k8s.io "*" is forbidden: User '
            '"system:serviceaccount:kube-system:agent" cannot impersonate:associated-node '
            'resource "nodes" in API group "authentication.k8s.io" at the cluster scope',
        ),
    ],
)
def test_both_rights_are_needed_and_the_first_that_is_missing_is_named(
    rules: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(StatusError) as refused:
        acted(*rules)
    assert refused.value.message == says


@pytest.mark.parametrize("minor", [32, 35])
def test_before_1_36_the_new_rights_are_none_and_the_old_one_is_asked_for(minor: int) -> None:
    with pytest.raises(StatusError) as refused:
        acted(BE_MY_NODE, ASK_AS_MY_NODE, minor=minor)
    info = RequestInfo(path="", verb="impersonate", resource="users", name="system:node:n1")
    assert refused.value.message == (
        f'users "system:node:n1" is forbidden: {refusal(agent(), info, "")}'
    )


@pytest.mark.parametrize("minor", [32, 36])
def test_who_may_impersonate_anybody_gives_what_groups_he_likes(minor: int) -> None:
    headers = [
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "a"),
        ("impersonate-group", "b"),
        ("Impersonate-Extra-Acme.com%2Fx", "1"),
    ]
    found = acted(BE_ANYBODY, minor=minor, headers=headers)
    assert found == User("jane", ("a", "b", "system:authenticated"), "", {"acme.com/x": ["1"]})


def test_parts_of_a_user_without_a_name_are_a_fault_and_no_headers_nobody_else() -> None:
    with pytest.raises(StatusError) as refused:
        acted(BE_ANYBODY, headers=[("Impersonate-Group", "a")])
    assert refused.value.code == 400
    assert acted(BE_ANYBODY, headers=[("Accept", "*/*")]) == agent()
