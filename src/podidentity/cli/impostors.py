"""Which DaemonSets and Deployments are NMI or MIC, and not a tenant's that has their labels.

Commands find NMI and MIC by labels, in whichever namespace they are, and believe them: where to
install what, with which image and flags, whether somebody else attaches identities, in which
namespaces exceptions count. A tenant may give those labels to a workload of his. What he cannot
have is the right of NMI and MIC in the whole cluster: a ClusterRoleBinding gives it to a service
account. Who may make workloads in kube-system is no tenant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from podidentity.cli.objects import Object, find_all
from podidentity.core.resources import ObjectRef
from podidentity.manifests import NAMESPACE
from podidentity.wire.kube import CLUSTER_ROLE_BINDINGS

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

_ROLE = re.compile(r"(.*-)?(nmi|mic)(-role)?", re.ASCII)
"""ClusterRoles of ours, of a Helm release, and of AAD Pod Identity's chart and manifests.

https://github.com/Azure/aad-pod-identity/tree/master/charts/aad-pod-identity/templates
https://github.com/Azure/aad-pod-identity/blob/master/deploy/infra/deployment-rbac.yaml
"""


async def genuine(kube: Kube, found: Sequence[Object]) -> list[Object]:
    """Return those of these workloads that are in kube-system, or have the right of NMI or MIC.

    Raises KubeError. Only where one is elsewhere the caller needs the right to list
    ClusterRoleBindings.
    """
    if all(each["metadata"]["namespace"] == NAMESPACE for each in found):
        return list(found)
    accounts = holders(await find_all(kube, CLUSTER_ROLE_BINDINGS))
    return [
        each
        for each in found
        if each["metadata"]["namespace"] == NAMESPACE or account_of(each) in accounts
    ]


def holders(bindings: Iterable[Object]) -> set[ObjectRef]:
    """Return the service accounts that ClusterRoleBindings give the right of NMI or MIC."""
    return {
        ObjectRef(str(subject.get("namespace", "")), str(subject.get("name", "")))
        for each in bindings
        if _ROLE.fullmatch(str(each["roleRef"]["name"]))
        for subject in each.get("subjects") or ()
        if subject.get("kind") == "ServiceAccount"
    }


def account_of(workload: Object) -> ObjectRef:
    spec = workload["spec"]["template"]["spec"]
    name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    return ObjectRef(workload["metadata"]["namespace"], name)
