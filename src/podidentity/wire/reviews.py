"""Asking the API server what a service account may do: SubjectAccessReview, there and back.

https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/subject-access-review-v1/
"""

from __future__ import annotations

from typing import Any

import msgspec

from podidentity.core.permission import GROUP, RESOURCE, VERB, Use

PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
RULE = "create on subjectaccessreviews.authorization.k8s.io"
"""What whoever asks must be granted."""


class Undecided(ValueError):
    """An answer that decides nothing; the message says why."""


class _Status(msgspec.Struct, rename="camel"):
    allowed: bool
    denied: bool = False
    evaluation_error: str = ""


class _Review(msgspec.Struct):
    status: _Status


_REVIEW = msgspec.json.Decoder(_Review)


def review(use: Use) -> dict[str, Any]:
    """Return the question whether `use` is granted, for all of the cluster.

    User and groups are those that the API server itself gives a service account:
    https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/. Without a
    namespace only a ClusterRoleBinding can grant it.
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
    """Return the decision in an answered review; raise Undecided.

    A "no" with an `evaluationError` is none: an authorizer that could have said yes, such as a
    webhook, was not to be asked. RBAC alone never answers so.
    """
    try:
        status = _REVIEW.decode(body).status
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Undecided(f"the API server answered no SubjectAccessReview: {error}") from error
    if status.allowed and not status.denied:
        return True
    if status.evaluation_error and not status.denied:
        said = " ".join(status.evaluation_error.split())[:200]
        raise Undecided(f"the API server could not decide: {said}")
    return False
