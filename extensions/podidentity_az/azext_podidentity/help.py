"""The help of the commands, in the form that az reads."""

from __future__ import annotations

from knack.help_files import helps

helps["aks pod-identity"] = """
type: group
short-summary: Commands to manage pod identities in managed Kubernetes cluster.
"""
helps["aks pod-identity add"] = """
type: command
short-summary: Add a pod identity to a managed Kubernetes cluster.
examples:
  - name: Let pods of a namespace that have the label aadpodidbinding=my-identity use an identity.
    text: >-
      az aks pod-identity add --resource-group MyGroup --cluster-name MyCluster
      --namespace my-namespace --name my-identity --identity-resource-id <identity-resource-id>
"""
helps["aks pod-identity delete"] = """
type: command
short-summary: Remove a pod identity from a managed Kubernetes cluster.
examples:
  - name: Take an identity from the pods of a namespace.
    text: >-
      az aks pod-identity delete --resource-group MyGroup --cluster-name MyCluster
      --namespace my-namespace --name my-identity
"""
helps["aks pod-identity list"] = """
type: command
short-summary: List pod identities in a managed Kubernetes cluster.
examples:
  - name: Show them as a table.
    text: az aks pod-identity list --resource-group MyGroup --cluster-name MyCluster -o table
"""
helps["aks pod-identity exception"] = """
type: group
short-summary: Commands to manage pod identity exceptions in managed Kubernetes cluster.
"""
helps["aks pod-identity exception add"] = """
type: command
short-summary: Add a pod identity exception to a managed Kubernetes cluster.
examples:
  - name: Let pods with a label reach the instance metadata service directly.
    text: >-
      az aks pod-identity exception add --resource-group MyGroup --cluster-name MyCluster
      --namespace my-namespace --name my-exception --pod-labels app=agent
"""
helps["aks pod-identity exception update"] = """
type: command
short-summary: Update a pod identity exception in a managed Kubernetes cluster.
"""
helps["aks pod-identity exception delete"] = """
type: command
short-summary: Remove a pod identity exception from a managed Kubernetes cluster.
"""
helps["aks pod-identity exception list"] = """
type: command
short-summary: List pod identity exceptions in a managed Kubernetes cluster.
"""
