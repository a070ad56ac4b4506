"""What is left of something that has gone: AAD Pod Identity, AKS's add-on, a namespace, a MIC."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from podidentity.cli.checks.findings import CheckReason, Finding, Severity, named
from podidentity.cli.lost_releases import releases
from podidentity.cli.objects import Object, ref_of
from podidentity.cli.rollout import is_ours
from podidentity.core.resources import ObjectRef
from podidentity.wire.kube import AZURE_ASSIGNED_IDENTITIES
from podidentity.wire.leases import parse_old_lock
from podidentity.wire.rbac import LABELS

_OURS = "aadpodidentity.k8s.io"
_GROUP = "system:serviceaccounts:"


def archived(workloads: Sequence[Object]) -> Iterator[Finding]:
    """Yield the DaemonSets and Deployments of AAD Pod Identity that are there still."""
    for each in workloads:
        by_aks = is_of_aks(each)
        yield Finding(
            kind=each["kind"],
            about=ref_of(each),
            reason=CheckReason.ARCHIVED,
            what=f"AAD Pod Identity is here still{', as the add-on of AKS' * by_aks}: a node has "
            "one NMI, and machines one MIC.",
            mend="Run az aks update --disable-pod-identity, which takes its identities and "
            "bindings away, too: podidentity add them first."
            if by_aks
            else "Take its place in the order of docs/reference/compatibility.md.",
            severity=Severity.WARNING,
        )


LOCK = ObjectRef("default", "aad-pod-identity-mic")
"""The Endpoints in which the archived MIC keeps its lock, by its default flags."""


def lives_elsewhere(endpoints: Object, now: float) -> Iterator[Finding]:
    """Yield that an archived MIC works, though no Deployment of it was found.

    It renews its lock while it works. `now` in seconds since 1970.
    """
    try:
        lock = parse_old_lock(json.dumps(endpoints).encode())
        renewed = datetime.fromisoformat(lock.renewed).timestamp()
    except ValueError:
        return
    if lock.holder and now - renewed < 2 * lock.seconds:
        yield Finding(
            kind="Endpoints",
            about=LOCK,
            reason=CheckReason.ARCHIVED,
            what=f"AAD Pod Identity's MIC works somewhere: {lock.holder} renewed its lock "
            f"{max(now - renewed, 0.0):.0f} s ago. Our MIC stands back while it does.",
            mend="Find the program by the name of the holder, a pod or a machine, and stop it.",
            severity=Severity.WARNING,
        )


def is_of_aks(workload: Object) -> bool:
    """Whether AKS put something there, by the labels of what it manages.

    https://learn.microsoft.com/azure/aks/use-labels
    """
    template = workload["spec"]["template"]["metadata"].get("labels") or {}
    labels = {**template, **(workload["metadata"].get("labels") or {})}
    return labels.get("kubernetes.azure.com/managedby") == "aks" or (
        "addonmanager.kubernetes.io/mode" in labels
    )


def stuck(records: Sequence[Object]) -> Iterator[Finding]:
    """Yield the records of attachments that wait for somebody to take off a finalizer of ours."""
    waiting = [
        each
        for each in records
        if each["metadata"].get("deletionTimestamp")
        and any(_OURS in name for name in each["metadata"].get("finalizers") or ())
    ]
    if waiting:
        refs = sorted(map(ref_of, waiting))
        first = refs[0]
        yield Finding(
            kind="AzureAssignedIdentity",
            about=first,
            reason=CheckReason.STUCK,
            what=f"{named(list(map(str, refs)), 'objects')}: deleted, and kept by a finalizer that "
            "nobody takes off, so that their namespace cannot go either.",
            mend="Where no MIC will be any more: kubectl patch "
            f"{AZURE_ASSIGNED_IDENTITIES.plural} -n {first.namespace} {first.name} --type=merge -p "
            '\'{"metadata":{"finalizers":null}}\'.',
        )


def unkept(records: Sequence[Object]) -> Iterator[Finding]:
    """Yield that there are records of attachments, where no MIC keeps them."""
    if records:
        yield Finding(
            kind="AzureAssignedIdentity",
            about=min(map(ref_of, records)),
            reason=CheckReason.UNKEPT,
            what=f"{len(records)} records say that identities are attached to machines, and no MIC "
            "is there to detach them: what is attached stays.",
            mend="Run podidentity enable --mic with MIC's sign-in (docs/how-to/run-mic.md), which "
            "takes them over; or detach them in Azure, and delete the records.",
            severity=Severity.WARNING,
        )


def outlived(bindings: Sequence[Object], namespaces: Collection[str]) -> Iterator[Finding]:
    """Yield our grants to namespaces that are not there: whoever makes them anew has the grant."""
    for each in bindings:
        labels = each["metadata"].get("labels") or {}
        if LABELS.items() <= labels.items():
            granted = _of_accounts(each) | _of_groups(each)
        elif is_ours(each):
            granted = _of_groups(each)  # the chart's; its accounts are its programs'
        else:
            continue
        gone = sorted(granted - set(namespaces))
        if gone:
            name = each["metadata"]["name"]
            yield Finding(
                kind="ClusterRoleBinding",
                about=ObjectRef("", name),
                reason=CheckReason.OUTLIVED,
                what=f"It grants an identity to namespace {', '.join(gone)}, which is not there: "
                "whoever makes a namespace of that name may use it.",
                mend=f"Run kubectl delete clusterrolebinding {name}.",
                severity=Severity.WARNING,
            )


def lost(bindings: Sequence[Object], namespaces: Collection[str]) -> Iterator[Finding]:
    """Yield the Helm releases whose namespaces are not there, and roles of which are."""
    for each in releases(bindings):
        if each.namespace not in namespaces:
            yield Finding(
                kind="HelmRelease",
                about=ObjectRef(each.namespace, each.name),
                reason=CheckReason.LOST,
                what=f"{each}.",
                mend=f"Run kubectl delete clusterrolebinding {' '.join(each.bindings)}. What else "
                "is left, and is no right, docs/how-to/uninstall.md takes away.",
            )


def _of_accounts(binding: Object) -> set[str]:
    subjects = binding.get("subjects") or ()
    return {str(each.get("namespace", "")) for each in subjects if each["kind"] == "ServiceAccount"}


def _of_groups(binding: Object) -> set[str]:
    subjects = binding.get("subjects") or ()
    names = [str(each["name"]) for each in subjects if each["kind"] == "Group"]
    return {each.removeprefix(_GROUP) for each in names if each.startswith(_GROUP)}
