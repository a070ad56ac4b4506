"""What has the API server refuse the custom resources that NMI could not use.

`enable` puts these policies into a cluster, with the manifest's words (`admission-policies.yaml`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podidentity.cli.objects import POLICIES, Object, find
from podidentity.cli.output import CommandError
from podidentity.manifests import admission_policies

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

SINCE = 30
"""The minor version of Kubernetes that has ValidatingAdmissionPolicy."""


def wanted(minor: int, *, asked: bool | None, foreign_secrets: bool) -> list[Object]:
    """Return the policies for an API server of this minor version; raise CommandError.

    `asked` is what somebody wants of them; None: to have them where that is possible.
    """
    if asked and minor < SINCE:
        raise CommandError(
            "--admission-policies needs Kubernetes 1.30, which has ValidatingAdmissionPolicy",
            "Leave it out: NMI refuses what it cannot use, and podidentity check names it.",
        )
    if asked is False or minor < SINCE:
        return []
    return admission_policies(foreign_secrets=foreign_secrets)


async def too_many(kube: Kube, kept: list[Object]) -> list[Object]:
    """Return the policies that are there and not among those kept, each behind its binding."""
    names = {each["metadata"]["name"] for each in kept}
    others = [each for each in reversed(admission_policies()) if _name(each) not in names]
    there = {
        _name(each)
        for each in others
        if each["kind"] == "ValidatingAdmissionPolicy"
        and await find(kube, POLICIES, "", _name(each)) is not None
    }
    return [each for each in others if _name(each) in there]


def _name(manifest: Object) -> str:
    return str(manifest["metadata"]["name"])
