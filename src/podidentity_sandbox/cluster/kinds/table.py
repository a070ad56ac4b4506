"""The table of built-in resource types. To serve another kind, add a row."""

from __future__ import annotations

from podidentity_sandbox.cluster import names
from podidentity_sandbox.cluster.kinds import (
    access,
    core,
    crds,
    networks,
    pods,
    policies,
    workloads,
)
from podidentity_sandbox.cluster.registry import ResourceType

BUILT_IN = (
    ResourceType(
        "",
        "Namespace",
        namespaced=False,
        short_names=("ns",),
        subresources=("status", "finalize"),
        selectable={"status.phase": "status.phase"},
        name_faults=names.label_faults,
        strategy=core.NamespaceStrategy(),
    ),
    ResourceType(
        "",
        "Node",
        namespaced=False,
        short_names=("no",),
        subresources=("status",),
        status_at_creation=True,
        selectable={"spec.unschedulable": "spec.unschedulable"},
    ),
    ResourceType(
        "",
        "Pod",
        short_names=("po",),
        categories=("all",),
        subresources=("exec", "log", "proxy", "status"),
        selectable=pods.SELECTABLE,
        strategy=pods.PodStrategy(),
    ),
    ResourceType(
        "",
        "Event",
        short_names=("ev",),
        selectable=core.SELECTABLE_OF_EVENTS,
        strategy=core.EventStrategy(),
    ),
    ResourceType("", "Secret", selectable={"type": "type"}, strategy=core.SecretStrategy()),
    ResourceType("", "ConfigMap", short_names=("cm",)),
    ResourceType("", "ServiceAccount", short_names=("sa",), subresources=("token",)),
    ResourceType(
        "",
        "Service",
        short_names=("svc",),
        categories=("all",),
        subresources=("status",),
        selectable={"spec.clusterIP": "spec.clusterIP", "spec.type": "spec.type"},
        name_faults=names.label_faults,
        strategy=networks.ServiceStrategy(),
    ),
    ResourceType("", "Endpoints", plural="endpoints", short_names=("ep",)),
    ResourceType(
        "apps",
        "Deployment",
        short_names=("deploy",),
        categories=("all",),
        subresources=("status",),
        generation=True,
        strategy=workloads.DeploymentStrategy(),
    ),
    ResourceType(
        "apps",
        "ReplicaSet",
        short_names=("rs",),
        categories=("all",),
        subresources=("status",),
        generation=True,
        selectable={"status.replicas": "status.replicas"},
        strategy=workloads.ReplicaSetStrategy(),
    ),
    ResourceType(
        "apps",
        "DaemonSet",
        short_names=("ds",),
        categories=("all",),
        subresources=("status",),
        generation=True,
        strategy=workloads.DaemonSetStrategy(),
    ),
    ResourceType(
        "networking.k8s.io",
        "NetworkPolicy",
        plural="networkpolicies",
        short_names=("netpol",),
        generation=True,
        strategy=networks.NetworkPolicyStrategy(),
    ),
    ResourceType(
        "policy",
        "PodDisruptionBudget",
        short_names=("pdb",),
        subresources=("status",),
        generation=True,
    ),
    ResourceType("coordination.k8s.io", "Lease", unconditional_update=False),
    ResourceType("node.k8s.io", "RuntimeClass", plural="runtimeclasses", namespaced=False),
    ResourceType("storage.k8s.io", "CSIDriver", namespaced=False, strategy=core.DriverStrategy()),
    *(
        ResourceType(
            access.GROUP,
            kind,
            namespaced=not kind.startswith("Cluster"),
            name_faults=names.path_faults,
            strategy=strategy(),
        )
        for word, strategy in (
            ("Role", access.RoleStrategy),
            ("RoleBinding", access.BindingStrategy),
        )
        for kind in (word, f"Cluster{word}")
    ),
    ResourceType(
        policies.GROUP,
        "ValidatingAdmissionPolicy",
        plural="validatingadmissionpolicies",
        namespaced=False,
        generation=True,
        strategy=policies.PolicyStrategy(),
    ),
    ResourceType(
        policies.GROUP,
        "ValidatingAdmissionPolicyBinding",
        namespaced=False,
        generation=True,
        strategy=policies.BindingStrategy(),
    ),
    ResourceType(
        crds.GROUP,
        "CustomResourceDefinition",
        namespaced=False,
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        subresources=("status",),
        generation=True,
        unconditional_update=False,
        strategy=crds.DefinitionStrategy(),
    ),
)
