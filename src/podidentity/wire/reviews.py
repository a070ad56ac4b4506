"""SubjectAccessReview and TokenReview: questions about permissions and tokens to the API server.

https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/subject-access-review-v1/
https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from podidentity.core.decision import GROUP, RESOURCE, VERB, Use
from podidentity.wire import BROKEN_JSON

PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
RULE = "create on subjectaccessreviews.authorization.k8s.io"
"""The permission that the agent needs to ask, as its error messages name it."""

TOKEN_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path

SELF_PATH = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


class InconclusiveReview(ValueError):
    """The API server's answer decides nothing; the message says why."""


class UnsureReview(InconclusiveReview):
    """A "no" with an error. It counts once it is repeated."""


class _Status(msgspec.Struct, rename="camel"):
    allowed: bool
    denied: bool = False
    evaluation_error: str = ""


class _Review(msgspec.Struct):
    status: _Status


class _User(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str] | None] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)
    audiences: list[str] | None = None


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


class _SelfStatus(msgspec.Struct, rename="camel"):
    user_info: _User = msgspec.field(default_factory=_User)


class _SelfReview(msgspec.Struct):
    status: _SelfStatus


_SELF_REVIEW = msgspec.json.Decoder(_SelfReview)
_REVIEW = msgspec.json.Decoder(_Review)
_TOKEN_REVIEW = msgspec.json.Decoder(_TokenReview)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of the API server."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


def review(use: Use) -> dict[str, Any]:
    """Return the SubjectAccessReview that asks whether `use` is granted cluster-wide.

    The API server itself gives a service account this user and these groups:
    https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/. The review
    names no namespace, so that only a ClusterRoleBinding can grant it.
    """
    namespace, account = use.service_account
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{account}",
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{namespace}",
                "system:authenticated",
            ],
            "resourceAttributes": {
                "verb": VERB,
                "group": GROUP,
                "resource": RESOURCE,
                "name": use.name,
            },
        },
    }


def parse_review(body: bytes) -> bool:
    """Return the decision in an answered review; raise InconclusiveReview.

    A "no" with an `evaluationError` may pass: a webhook could not be reached, or RBAC of an API
    server that starts does not know a ClusterRole yet. It lasts where a binding's ClusterRole was
    deleted.
    """
    try:
        status = _REVIEW.decode(body).status
    except BROKEN_JSON as error:
        raise InconclusiveReview(
            f"the API server answered no SubjectAccessReview: {error}"
        ) from error
    if status.allowed and not status.denied:
        return True
    if status.evaluation_error and not status.denied:
        said = " ".join(status.evaluation_error.split())[:200]
        raise UnsureReview(f"the API server could not decide: {said}")
    return False


def token_review(token: str, audience: str) -> dict[str, Any]:
    """Return the TokenReview that asks for the user of `token`, which must be for `audience`."""
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }


def self_review() -> dict[str, Any]:
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


def parse_self_review(body: bytes) -> User:
    """Return as whom the API server takes the asker; raise InconclusiveReview."""
    try:
        user = _SELF_REVIEW.decode(body).status.user_info
    except BROKEN_JSON as error:
        raise InconclusiveReview(
            f"the API server answered no SelfSubjectReview: {error}"
        ) from error
    return _user(user)


def parse_token_review(body: bytes, audience: str) -> User | None:
    """Return the token's user; None if the cluster does not know it; raise InconclusiveReview.

    None, too, if the answer does not say that the token is for `audience`: an authenticator that
    knows no audiences takes tokens for the API server, and names none.
    """
    try:
        status = _TOKEN_REVIEW.decode(body).status
    except BROKEN_JSON:
        # The decoder's message is not quoted: the answer may repeat the token.
        raise InconclusiveReview("the API server answered no TokenReview") from None
    if not status.authenticated or not status.user.username:
        return None
    if audience not in (status.audiences or ()):
        return None
    return _user(status.user)


def _user(user: _User) -> User:
    return User(
        name=user.username,
        uid=user.uid,
        groups=tuple(user.groups or ()),
        extra=tuple(
            (name, tuple(values or ())) for name, values in sorted((user.extra or {}).items())
        ),
    )


def path_review(user: User, path: str) -> dict[str, Any]:
    """Return the SubjectAccessReview that asks whether `user` may `get` a non-resource path."""
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {name: list(values) for name, values in user.extra},
            "nonResourceAttributes": {"path": path, "verb": "get"},
        },
    }
