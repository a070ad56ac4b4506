"""The add-on's objects in a cluster: a pure translation of the profile.

As AKS's documentation has it: the exception `aks-addon-exception` for add-ons' own pods in
kube-system, and for each pod identity an AzureIdentity with a binding, whose selector is its name
unless another was asked for. https://learn.microsoft.com/azure/aks/use-azure-ad-pod-identity

And as podidentity's documentation has it: with an identity, the service accounts of a namespace are
granted the verb `use` on it (docs/reference/cli.md). The old add-on's NMI asked for no such thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from podidentity_sandbox.azure.aks.profile import AddOn, PodException, PodIdentity

Manifest = dict[str, Any]

MANAGED = {"kubernetes.azure.com/managedby": "aks"}
"""AKS marks its own objects, and removes only those."""
GROUP = "aadpodidentity.k8s.io/v1"
RBAC = "rbac.authorization.k8s.io"
GRANT = {"kubernetes.azure.com/pod-identity": "grant"}
"""Tells roles of pod identities from those of NMI, which are AKS's as well."""
KINDS = (
    (GROUP, "AzureIdentityBinding", MANAGED),
    (GROUP, "AzureIdentity", MANAGED),
    (GROUP, "AzurePodIdentityException", MANAGED),
    (f"{RBAC}/v1", "ClusterRoleBinding", GRANT),
    (f"{RBAC}/v1", "ClusterRole", GRANT),
)
"""Objects to remove, by API, kind and mark, in order: first those that entitle pods."""
ADD_ON_EXCEPTION = PodException(
    namespace="kube-system", name="aks-addon-exception", pod_labels=MANAGED
)


def wanted(add_on: AddOn) -> list[Manifest]:
    if not add_on.enabled:
        return []
    exceptions = (ADD_ON_EXCEPTION, *add_on.exceptions)
    assigned = [one for one in add_on.identities if one.provisioning_state == "Assigned"]
    return [
        *(_exception(one) for one in exceptions),
        *(manifest for one in assigned for manifest in _identity(one)),
    ]


def key(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def selector(mark: Mapping[str, str]) -> str:
    """Return the label selector that finds what carries a mark."""
    return ",".join(f"{name}={value}" for name, value in mark.items())


def marked(manifest: Manifest) -> Manifest:
    labels = {**manifest["metadata"].get("labels", {}), **MANAGED}
    return {**manifest, "metadata": {**manifest["metadata"], "labels": labels}}


def namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _identity(one: PodIdentity) -> Iterator[Manifest]:
    yield from _grant(one)
    ids, name = one.identity, one.name or ""
    spec = {"type": 0, "resourceID": ids.resource_id, "clientID": ids.client_id or ""}
    yield _custom("AzureIdentity", one.namespace, name, spec)
    binding = {"azureIdentity": name, "selector": one.binding_selector or name}
    yield _custom("AzureIdentityBinding", one.namespace, f"{name}-binding", binding)


def _grant(one: PodIdentity) -> Iterator[Manifest]:
    """Let the service accounts of the namespace use the identity."""
    name = f"aks-pod-identity:{one.namespace}:{one.name}"
    rule = {
        "apiGroups": ["aadpodidentity.k8s.io"],
        "resources": ["azureidentities"],
        "resourceNames": [(one.identity.client_id or "").lower()],
        "verbs": ["use"],
    }
    yield _granting("ClusterRole", name, rules=[rule])
    group = f"system:serviceaccounts:{one.namespace}"
    yield _granting(
        "ClusterRoleBinding",
        name,
        roleRef={"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        subjects=[{"apiGroup": RBAC, "kind": "Group", "name": group}],
    )


def _granting(kind: str, name: str, **fields: Any) -> Manifest:  # noqa: ANN401 - fields as JSON
    metadata = {"name": name, "labels": GRANT}
    return marked({"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, **fields})


def _exception(one: PodException) -> Manifest:
    spec = {"podLabels": one.pod_labels}
    return _custom("AzurePodIdentityException", one.namespace, one.name or "", spec)


def _custom(kind: str, where: str, name: str, spec: Manifest) -> Manifest:
    metadata = {"name": name, "namespace": where}
    return marked({"apiVersion": GROUP, "kind": kind, "metadata": metadata, "spec": spec})
