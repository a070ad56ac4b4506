"""The right to request tokens of other pods: a table of all callers."""

from __future__ import annotations

import pytest

from podidentity.core.delegation import CSI_DRIVER, Delegation, refuse_without_csi_volume
from podidentity.core.refusals import Reason
from podidentity.core.resources import ObjectRef, Phase, Pod
from tests.fakes import pod

CHART, ADD_ON = "csi-secrets-store-provider-azure", "aks-secrets-store-provider-azure"
LISTED = Delegation(callers=(ObjectRef("csi", "mine"),))


def of(namespace: str, account: str, phase: Phase = Phase.RUNNING) -> Pod:
    return pod(ref=ObjectRef(namespace, "p"), service_account=account, phase=phase)


@pytest.mark.parametrize(
    ("delegation", "caller", "root", "allowed"),
    [
        (Delegation(), of("kube-system", CHART), True, True),
        (Delegation(), of("kube-system", ADD_ON), False, True),
        (Delegation(), of("kube-system", "default"), True, False),
        (Delegation(), of("default", CHART), True, False),
        (Delegation(), of("kube-system", CHART, Phase.FAILED), True, False),
        (Delegation(), None, True, False),
        (Delegation(), None, False, False),
        (LISTED, of("csi", "mine"), False, True),
        (LISTED, of("kube-system", CHART), True, False),
        (Delegation(root=True), None, True, True),
        (Delegation(root=True), None, False, False),
        (Delegation(root=True), of("default", "default"), True, False),
        (Delegation(root=True), of("kube-system", CHART), False, True),
    ],
)
def test_only_a_listed_service_account_asks_and_root_where_it_is_allowed(
    delegation: Delegation, caller: Pod | None, *, root: bool, allowed: bool
) -> None:
    refusal = delegation.refuses(caller, root=root)
    assert (refusal is None) is allowed
    if refusal is not None:
        assert refusal.reason is Reason.NOT_A_PROVIDER
        assert "--host-token" in refusal.next_step


@pytest.mark.parametrize(
    ("drivers", "allowed"),
    [
        ({"secrets-store.csi.k8s.io"}, True),
        ({"disk.csi.azure.com", CSI_DRIVER}, True),
        ({"disk.csi.azure.com"}, False),
        (set(), False),
    ],
)
def test_only_a_pod_that_mounts_a_volume_of_the_driver_is_named(
    drivers: set[str], *, allowed: bool
) -> None:
    refusal = refuse_without_csi_volume(pod(csi_drivers=frozenset(drivers)))
    assert (refusal is None) is allowed
    if refusal is not None:
        assert (refusal.reason, refusal.about) == (Reason.NO_CSI_VOLUME, pod().ref)
