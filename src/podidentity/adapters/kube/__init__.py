"""The Kubernetes API server: one client for the node agent and for the commands."""

from podidentity.adapters.kube.client import Kube
from podidentity.wire.kube import KubeError

__all__ = ["Kube", "KubeError"]
