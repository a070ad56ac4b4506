"""Questions about rights: SubjectAccessReview and its kin, and TokenReview. Nothing is stored.

https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/
"""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj, status
from podidentity_sandbox.cluster.authentication import Authenticator, User
from podidentity_sandbox.cluster.authorization import Authorization
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.registry import ResourceType

AUTHORIZATION = "authorization.k8s.io"
AUTHENTICATION = "authentication.k8s.io"
ATTRIBUTES = ("verb", "group", "version", "resource", "namespace", "name", "subresource")
"""The fields of resourceAttributes, as RequestInfo has them too."""

_KINDS = (
    *((AUTHENTICATION, kind) for kind in ("TokenReview", "SelfSubjectReview")),
    (AUTHORIZATION, "SubjectAccessReview"),
    (AUTHORIZATION, "SelfSubjectAccessReview"),
)
TYPES = tuple(
    ResourceType(group, kind, namespaced=False, verbs=("create",)) for group, kind in _KINDS
)


def asked(spec: Obj) -> RequestInfo:
    """Return the request that a review's spec asks about."""
    resource: Obj = spec.get("resourceAttributes") or {}
    path: Obj = spec.get("nonResourceAttributes") or {}
    if bool(resource) == bool(path):
        raise status.bad_request(
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        )
    if path:
        return RequestInfo(path=path.get("path", ""), verb=path.get("verb", ""))
    return RequestInfo(path="", **{field: resource.get(field) or "" for field in ATTRIBUTES})


class Reviews:
    """Answers the questions as the server itself would decide."""

    def __init__(self, authorizer: Authorization, authenticator: Authenticator) -> None:
        self._authorizer = authorizer
        self._authenticator = authenticator

    def subject(self, _: User, __: RequestInfo, body: Obj) -> Obj:
        """Answer whether the user of the spec may do something."""
        spec = body.get("spec") or {}
        question = asked(spec)
        name, groups = spec.get("user") or "", tuple(spec.get("groups") or ())
        if not name and not groups:
            raise status.bad_request("at least one of user or group must be specified")
        return self._answer(body, User(name, groups, spec.get("uid") or ""), question)

    def oneself(self, user: User, _: RequestInfo, body: Obj) -> Obj:
        return self._answer(body, user, asked(body.get("spec") or {}))

    def _answer(self, body: Obj, user: User, question: RequestInfo) -> Obj:
        decision = self._authorizer.decide(user, question)
        answer: Obj = {"allowed": decision.allowed}
        if decision.reason:
            answer["reason"] = decision.reason
        return {**body, "status": answer}

    def token(self, _: User, __: RequestInfo, body: Obj) -> Obj:
        """Answer whose token it is; raise 400 for none.

        https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/registry/authentication/tokenreview/storage.go
        """
        spec = body.get("spec") or {}
        if not spec.get("token"):
            raise status.bad_request("token is required for TokenReview in authentication")
        audiences = spec.get("audiences") or list(self._authenticator.audiences)
        user = self._authenticator.token(spec["token"], audiences)
        if user is None:
            return {**body, "status": {"error": "the token is not valid"}}
        common = self._authenticator.common(spec["token"], audiences)
        return {**body, "status": {"authenticated": True, "user": _who(user), "audiences": common}}

    def who(self, user: User, _: RequestInfo, body: Obj) -> Obj:
        found = {key: value for key, value in _who(user).items() if value}
        return {**body, "status": {"userInfo": found}}


def _who(user: User) -> Obj:
    found: Obj = {"username": user.name, "uid": user.uid, "groups": list(user.groups)}
    return {**found, "extra": dict(user.extra)} if user.extra else found
