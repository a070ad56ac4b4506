"""Questions about permissions and tokens, and what an answer to them decides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity.core.decision import Use
from podidentity.core.resources import ObjectRef
from podidentity.wire.reviews import (
    InconclusiveReview,
    User,
    parse_review,
    parse_self_review,
    parse_token_review,
    path_review,
    review,
    self_review,
    token_review,
)
from tests.fakes import CLIENT

USER = User(
    name="system:serviceaccount:shop:web",
    uid="u",
    groups=("system:serviceaccounts", "system:authenticated"),
    extra=(("a", ("1", "2")), ("b", ())),
)
WRITTEN = {
    "username": "system:serviceaccount:shop:web",
    "uid": "u",
    "groups": ["system:serviceaccounts", "system:authenticated"],
    "extra": {"b": [], "a": ["1", "2"]},
}


def status(**fields: Any) -> bytes:
    return json.dumps({"kind": "AReview", "status": fields}).encode()


def test_the_question_is_asked_as_the_account_that_the_api_server_knows() -> None:
    assert review(Use(ObjectRef("shop", "web"), CLIENT)) == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:serviceaccount:shop:web",
            "groups": [
                "system:serviceaccounts",
                "system:serviceaccounts:shop",
                "system:authenticated",
            ],
            "resourceAttributes": {
                "verb": "use",
                "group": "aadpodidentity.k8s.io",
                "resource": "azureidentities",
                "name": CLIENT,
            },
        },
    }


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        ({"allowed": True}, True),
        ({"allowed": False}, False),
        ({"allowed": False, "denied": True}, False),
        ({"allowed": True, "denied": True}, False),
        # What says yes or no for certain does, whatever else could not be asked.
        ({"allowed": True, "evaluationError": "a webhook is away"}, True),
        ({"allowed": False, "denied": True, "evaluationError": "a webhook is away"}, False),
    ],
)
def test_an_answer_decides(answer: dict[str, Any], *, allowed: bool) -> None:
    assert parse_review(status(**answer)) is allowed


def test_a_no_of_those_who_could_not_all_be_asked_decides_nothing() -> None:
    answer = status(allowed=False, evaluationError="a webhook\n is  away" + "y" * 500)
    with pytest.raises(InconclusiveReview, match="could not decide: a webhook is awayyy") as said:
        parse_review(answer)
    assert len(str(said.value)) < 250


@pytest.mark.parametrize("body", [b"", b"{}", b'{"status": {}}', b'{"status": {"allowed": 1}}'])
def test_what_is_no_answer_decides_nothing(body: bytes) -> None:
    with pytest.raises(InconclusiveReview, match="answered no SubjectAccessReview"):
        parse_review(body)


def test_a_token_is_asked_about_in_the_body_alone() -> None:
    assert token_review("t", "for-us") == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "t", "audiences": ["for-us"]},
    }


@pytest.mark.parametrize(
    ("answer", "user"),
    [
        ({"authenticated": True, "user": WRITTEN}, USER),
        ({"authenticated": True, "user": {"username": "u"}}, User(name="u")),
        (
            {
                "authenticated": True,
                "user": {"username": "u", "groups": None, "extra": None},
            },
            User(name="u"),
        ),
        ({"authenticated": False, "user": WRITTEN}, None),
        ({"user": WRITTEN}, None),
        ({"authenticated": True, "user": {"uid": "u"}}, None),
        ({"authenticated": True}, None),
        ({"error": "expired"}, None),
    ],
)
def test_a_token_has_a_user_where_the_cluster_vouches_for_one_by_name(
    answer: dict[str, Any], user: User | None
) -> None:
    assert parse_token_review(status(audiences=["for-us"], **answer), "for-us") == user


def test_an_answer_about_a_token_that_cannot_be_read_is_not_repeated() -> None:
    with pytest.raises(InconclusiveReview) as said:
        parse_token_review(b'{"status": "a-secret-token"}', "for-us")
    assert str(said.value) == "the API server answered no TokenReview"
    assert said.value.__cause__ is None
    assert said.value.__suppress_context__


def test_who_asks_is_asked_and_read() -> None:
    assert self_review() == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "SelfSubjectReview",
    }
    assert parse_self_review(status(userInfo=WRITTEN)) == USER
    with pytest.raises(InconclusiveReview, match="answered no SelfSubjectReview"):
        parse_self_review(b"[]")


def test_a_path_is_asked_about_as_the_whole_user_and_to_get_it() -> None:
    assert path_review(USER, "/metrics") == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:serviceaccount:shop:web",
            "uid": "u",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": {"a": ["1", "2"], "b": []},
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        },
    }


@pytest.mark.parametrize(
    ("named", "known"),
    [
        (["for-us"], True),
        (["others", "for-us"], True),
        (["others"], False),
        ([], False),
        (None, False),
    ],
)
def test_a_token_is_for_us_only_if_the_answer_says_so(
    named: list[str] | None, *, known: bool
) -> None:
    body = status(authenticated=True, user=WRITTEN, audiences=named)
    assert (parse_token_review(body, "for-us") is not None) is known
