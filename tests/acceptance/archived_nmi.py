"""NMI of AAD Pod Identity 1.8.17, the program itself, in managed mode, by its own manifest.

https://github.com/Azure/aad-pod-identity/blob/v1.8.17/deploy/infra/managed-mode-deployment.yaml
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from tests.kubernetes.judge import BROUGHT_BY, WANTING
from tests.kubernetes.programs import place as programs

PROGRAM = (programs() / "archived/aad-pod-identity-nmi").resolve()
needs_archived = pytest.mark.skipif(not PROGRAM.is_file(), reason=f"{WANTING}: {BROUGHT_BY}")
NAME = "aad-pod-identity-nmi"
LABELS = {"app.kubernetes.io/component": "nmi", "app.kubernetes.io/name": "aad-pod-identity"}
OF_AKS = "kubernetes.azure.com/managedby"
LEFT = {"component": "nmi", "tier": "node", OF_AKS: "aks"}
"""Labels of NMI of AKS's add-on, which is `kube-system/nmi` as that of the archived manifests."""
ARCHIVED = "aad-pod-identity"
"""Who answers with a `refresh_token`: ours has none."""

_MANIFEST = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: NAME, namespace: NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NAME}
rules:
  - {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [get, list]}
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [secrets], verbs: [get]}
  - apiGroups: [aadpodidentity.k8s.io]
    resources: [azureidentitybindings, azureidentities, azurepodidentityexceptions]
    verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: NAME}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: NAME}
subjects: [{kind: ServiceAccount, name: NAME, namespace: NAMESPACE}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: NAME, namespace: NAMESPACE, labels: LABELS}
spec:
  selector: {matchLabels: LABELS}
  template:
    metadata: {labels: LABELS}
    spec:
      serviceAccountName: NAME
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      tolerations: [{operator: Exists}]
      containers:
        - name: nmi
          image: any
          command: [PROGRAM]
          args:
            - --node=$(NODE_NAME)
            - --http-probe-port=8085
            - --operation-mode=managed
            - --forceNamespaced
          env: [{name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
          securityContext:
            runAsUser: 0
            capabilities: {drop: [ALL], add: [DAC_READ_SEARCH, NET_ADMIN, NET_RAW]}
          livenessProbe:
            httpGet: {path: /healthz, port: 8085}
            initialDelaySeconds: 10
            periodSeconds: 5
          volumeMounts:
            - {name: program, mountPath: PROGRAM}
            - {name: iptableslock, mountPath: /run/xtables.lock}
            - {name: kubelet-config, mountPath: /etc/default/kubelet}
      volumes:
        - {name: program, hostPath: {path: PROGRAM}}
        - {name: iptableslock, hostPath: {path: /run/xtables.lock, type: FileOrCreate}}
        - {name: kubelet-config, hostPath: {path: /etc/default/kubelet, type: FileOrCreate}}
"""


def manifest(
    namespace: str = "default", *, name: str = NAME, labels: Mapping[str, str] = LABELS
) -> str:
    """Return its DaemonSet, as the archived chart names it, and its account with its rights."""
    text = _MANIFEST.replace("NAMESPACE", namespace).replace("PROGRAM", str(PROGRAM))
    return text.replace(": NAME", f": {name}").replace("LABELS", json.dumps(labels))
