"""Whether NMI and MIC may do what they are there for, as the API server itself decides it.

A role that was edited, a binding that an upgrade left out: a program without one right runs, and
fails at the first pod that needs it.

https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/subject-access-review-v1/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podidentity.cli.checks.findings import CheckReason, Finding, named
from podidentity.cli.cluster_rights import Places, Single, held_by, singles
from podidentity.cli.objects import Object
from podidentity.core.resources import ObjectRef
from podidentity.manifests import DEBUG_READER


def review_of(right: Single) -> dict[str, Any]:
    if right.resource.startswith("/"):
        return {"nonResourceAttributes": {"path": right.resource, "verb": right.verb}}
    plural, _, group = right.resource.partition(".")
    resource, _, part = plural.partition("/")
    attributes = {
        "verb": right.verb,
        "group": group,
        "resource": resource,
        "subresource": part,
        "namespace": right.namespace,
        "name": right.name,
    }
    return {"resourceAttributes": {name: text for name, text in attributes.items() if text}}


def own_review(right: Single) -> dict[str, Any]:
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": review_of(right),
    }


def review_for(account: ObjectRef, right: Single) -> dict[str, Any]:
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{account.namespace}:{account.name}",
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{account.namespace}",
                "system:authenticated",
            ],
            **review_of(right),
        },
    }


def rights_of(manifests: Sequence[Object], namespace: str) -> list[Single]:
    """Return the rights that these manifests give to the service account of their program.

    Roles for people, such as those of readers of metrics and of `/debug`, are none of a program's.
    """
    given = {
        (each["roleRef"]["kind"], each["roleRef"]["name"])
        for each in manifests
        if each["kind"].endswith("RoleBinding")
        and any(
            subject["kind"] == "ServiceAccount" and subject["name"] != DEBUG_READER
            for subject in each["subjects"]
        )
    }
    roles = [each for each in manifests if (each["kind"], each["metadata"]["name"]) in given]
    return singles(held_by(roles), Places(nmi=namespace))


def lacking(
    kind: str, workload: ObjectRef, account: ObjectRef, has: Mapping[Single, bool]
) -> Iterator[Finding]:
    """Yield the rights that a program lacks, as one finding."""
    missing = [right for right, allowed in has.items() if not allowed]
    if missing:
        yield Finding(
            kind=kind,
            about=workload,
            reason=CheckReason.LACKS_RIGHTS,
            what=f"Its service account {account} may not {named(worded(missing), 'verbs')}.",
            mend="Run podidentity enable (or helm upgrade), which brings its roles up to date; "
            "docs/reference/rights.md lists what each program needs.",
        )


def worded(rights: Sequence[Single]) -> list[str]:
    return [
        f"{each.verb} {each.resource}"
        f"{f' {each.name}' if each.name else ''}"
        f"{f' in {each.namespace}' if each.namespace else ''}"
        for each in rights
    ]
