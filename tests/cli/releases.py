"""What a Helm release of the chart leaves in no namespace."""

from __future__ import annotations

from typing import Any


def of_a_release(name: str, namespace: str, **labels: str) -> dict[str, Any]:
    """Return a ClusterRoleBinding as the chart makes it, for an account of a namespace."""
    ours = {
        "app.kubernetes.io/part-of": "podidentity",
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/instance": "mine",
    }
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": {**ours, **labels}},
        "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
