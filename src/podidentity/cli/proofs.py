"""What `explain` and `check` say of pods whose connections are not made by a process of their own.

Istio tells of a pod that it has set up for its ambient mesh by an annotation. Of a runtime class
nobody tells whether its pods have a kernel of their own, but the names are known that Kata's and
gVisor's own installers give, and AKS.

https://istio.io/latest/docs/reference/config/annotations/ (ambient.istio.io/redirection),
https://istio.io/latest/docs/reference/config/labels/ (istio.io/dataplane-mode),
https://learn.microsoft.com/azure/aks/use-pod-sandboxing (kata-vm-isolation),
https://github.com/kata-containers/kata-containers/tree/main/tools/packaging/kata-deploy
"""

from __future__ import annotations

from typing import NamedTuple

from podidentity.cli.chain import Fact, LinkState
from podidentity.core.attestation import AttestationMode, Trust
from podidentity.core.refusals import Reason
from podidentity.core.resources import Pod

ZTUNNEL = "istio-system/ztunnel"
"""Service account of ztunnel in Istio's own charts."""


class Unproved(NamedTuple):
    """Why NMI refuses a pod's connections, with the next step."""

    reason: Reason
    what: str
    """A sentence about the pod, without its subject."""
    mend: str


def unproved(pod: Pod, mode: AttestationMode, trust: Trust) -> Unproved | None:
    """Return why `pod` is refused for the way in which its connections are made; None if not."""
    if mode is AttestationMode.ADDRESS or trust.demand(pod) is not AttestationMode.KERNEL:
        return None
    name, own_kernel = pod.runtime_class, None
    if name.startswith("kata"):
        own_kernel = AttestationMode.NAMESPACE
    elif name in {"gvisor", "runsc"}:
        own_kernel = AttestationMode.ADDRESS
    if own_kernel:
        flag = f"--attestation-by-runtime-class={name}={own_kernel}"
        return Unproved(
            Reason.RUNTIME_CLASS,
            f"has runtime class {name}, so no process of the node has its connections",
            f"let NMI prove such pods otherwise: {flag}",
        )
    if pod.in_ambient_mesh and mode is AttestationMode.KERNEL and not trust.proxies:
        return Unproved(
            Reason.MADE_BY_PROXY,
            "is in Istio's ambient mesh, so ztunnel makes its connections, and NMI trusts no proxy",
            f"give NMI --trusted-proxies={ZTUNNEL}, or ztunnel's account if it is another, or keep "
            "the pod out of the mesh by the label istio.io/dataplane-mode=none",
        )
    return None


def proof_of(pod: Pod, mode: AttestationMode, trust: Trust) -> Fact | None:
    """Return what there is to say of the proof of `pod`; None if it is proved as most are."""
    if (found := unproved(pod, mode, trust)) is not None:
        return Fact(LinkState.BROKEN, f"it {found.what}; {found.mend}")
    demand = trust.demand(pod)
    if mode is AttestationMode.ADDRESS:
        return None
    if demand is AttestationMode.ADDRESS:
        return Fact(LinkState.HOLDS, "its address is believed where no process has its connection")
    if demand is AttestationMode.NAMESPACE:
        what = "the only network namespace with its address proves it"
        return Fact(LinkState.HOLDS, f"runtime class {pod.runtime_class}: {what}")
    if pod.in_ambient_mesh and mode is AttestationMode.KERNEL:
        trusted = ", ".join(map(str, trust.proxies))
        return Fact(LinkState.HOLDS, f"Istio's ztunnel makes its connections; trusted: {trusted}")
    if pod.runtime_class:
        return Fact(
            LinkState.UNKNOWN,
            f"runtime class {pod.runtime_class}: if its pods have a kernel of their own, NMI needs "
            f"--attestation-by-runtime-class={pod.runtime_class}=namespace",
        )
    return None
