"""Who may request a token in the name of another pod, and for which pods.

The Azure provider of the Secrets Store CSI driver reads a pod's secrets from a vault before the
pod runs, with the pod's identity. It sends requests from the node's own network and names the pod.
A process with this right has the identities of every pod of the node. So only the provider's
service accounts have it, and only for pods that mount a volume of the driver.

https://azure.github.io/secrets-store-csi-driver-provider-azure/docs/configurations/identity-access-modes/pod-identity-mode/
"""

from __future__ import annotations

from dataclasses import dataclass

from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import ObjectRef, Pod

CSI_DRIVER = "secrets-store.csi.k8s.io"

PROVIDERS = (
    ObjectRef("kube-system", "csi-secrets-store-provider-azure"),
    ObjectRef("kube-system", "aks-secrets-store-provider-azure"),
)
"""Service accounts of the provider: in its own chart, and in the AKS add-on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """The callers that an operator allows."""

    callers: tuple[ObjectRef, ...] = PROVIDERS
    """Service accounts whose pods may ask."""
    root: bool = False
    """Whether every root process of the node may ask; for nodes without cgroups of pods."""

    def refuses(self, pod: Pod | None, *, root: bool) -> Refusal | None:
        """Return the refusal of a caller in the node's own network; None if it is allowed.

        Args:
            pod: the pod of the process; None if it belongs to no known pod.
            root: whether root runs the process.
        """
        if pod is None:
            return None if root and self.root else _NOBODY
        if ObjectRef(pod.ref.namespace, pod.service_account) in self.callers and not pod.ended:
            return None
        return Refusal(
            reason=Reason.NOT_A_PROVIDER,
            message=f"Pod {pod.ref} with service account {pod.service_account} may not ask for "
            "the tokens of other pods.",
            next_step="If it is a provider of the Secrets Store CSI driver, name its service "
            "account: --host-token-callers=NAMESPACE/NAME.",
            about=pod.ref,
        )


_NOBODY = Refusal(
    reason=Reason.NOT_A_PROVIDER,
    message="The caller is not known to be a pod that may ask for the tokens of other pods.",
    next_step="On a node without cgroups of pods, --host-token=root allows it to every root "
    "process of the node.",
)


def refuse_without_csi_volume(pod: Pod) -> Refusal | None:
    """Return the refusal of a request for `pod` if it mounts no volume of the CSI driver."""
    if CSI_DRIVER in pod.csi_drivers:
        return None
    return Refusal(
        reason=Reason.NO_CSI_VOLUME,
        message=f"Pod {pod.ref} mounts no volume of {CSI_DRIVER}.",
        next_step="No action is needed: only pods with such a volume get tokens in this way.",
        about=pod.ref,
    )
