from __future__ import annotations

import pytest

from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Verdict
from podidentity.core.resources import Pod
from podidentity.kernel.cgroups import pod_of
from podidentity.kernel.diag import TcpSocket
from podidentity.kernel.verdicts import Sighting, judge

UID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
HASH = "0123456789abcdef0123456789abcdef"

VICTIM = Pod(ref=ObjectRef("demo", "victim"), uid=UID)
ITS_FORMER = Pod(ref=ObjectRef("demo", "former"), uid="former")
STATIC = Pod(ref=ObjectRef("kube-system", "static"), uid="mirror", config_hash=HASH)

OPEN, CLOSED = TcpSocket(1, 5, 77), TcpSocket(6, 0, 0)
LISTENING, CONNECTING = TcpSocket(10, 5, 77), TcpSocket(2, 5, 77)

NOTHING = Sighting(network="v")
OWN = Sighting(network="v", socket=OPEN, pod=UID)
ATTACKERS = Sighting(network="a", socket=OPEN, pod=OTHER)
BY_NAMESPACE = Sighting(network="v", socket=OPEN)
BROKEN = Sighting(network="b", failure="no buffer space")

CASES = {
    "its own socket": ([OWN], [VICTIM], Verdict.PROVEN),
    "one of two candidates": ([OWN], [ITS_FORMER, VICTIM], Verdict.PROVEN),
    "a static pod, by its hash": (
        [Sighting(network="s", socket=OPEN, pod=HASH)],
        [STATIC],
        Verdict.PROVEN,
    ),
    "the attacker has the address too": ([NOTHING, ATTACKERS], [VICTIM], Verdict.FORGED),
    "the owner asks beside him": ([ATTACKERS, OWN], [VICTIM], Verdict.PROVEN),
    "the owner asks beside a broken one": ([BROKEN, OWN], [VICTIM], Verdict.PROVEN),
    "a process of no pod": ([Sighting(network="v", socket=OPEN, pod="")], [VICTIM], Verdict.FORGED),
    "no pod, and a candidate without uid": (
        [Sighting(network="v", socket=OPEN, pod="")],
        [Pod(ref=ObjectRef("demo", "odd"), uid="")],
        Verdict.FORGED,
    ),
    "the API server has not told yet": ([OWN], [], Verdict.UNKNOWN),
    "one could not be asked": ([BROKEN], [VICTIM], Verdict.UNKNOWN),
    "one of two could not be asked": ([BROKEN, NOTHING], [VICTIM], Verdict.UNKNOWN),
    "its cgroup could not be looked up": (
        [Sighting(network="v", socket=OPEN, failure="not permitted")],
        [VICTIM],
        Verdict.UNKNOWN,
    ),
    "closed": ([Sighting(network="v", socket=CLOSED)], [VICTIM], Verdict.GONE),
    "by namespace": ([BY_NAMESPACE], [VICTIM], Verdict.PROVEN),
    "by namespace, two hold the address": ([BY_NAMESPACE, NOTHING], [VICTIM], Verdict.FORGED),
    "by namespace, two candidates": ([BY_NAMESPACE], [VICTIM, ITS_FORMER], Verdict.UNKNOWN),
    "by namespace, no candidate": ([BY_NAMESPACE], [], Verdict.UNKNOWN),
    "no socket": ([NOTHING], [VICTIM], None),
    "nobody holds the address": ([], [VICTIM], None),
    "a listener": ([Sighting(network="v", socket=LISTENING)], [VICTIM], None),
    "still connecting": ([Sighting(network="v", socket=CONNECTING)], [VICTIM], None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_follows_from_who_has_the_socket(case: str) -> None:
    sightings, candidates, expected = CASES[case]
    proof = judge(sightings, candidates)
    assert (proof.verdict if proof else None) == expected


def test_a_proof_names_the_pod_and_a_forgery_the_forger() -> None:
    own, forged, early = judge([OWN], [VICTIM]), judge([ATTACKERS], [VICTIM]), judge([OWN], [])
    assert own is not None
    assert own.pod_uid == UID
    assert forged is not None
    assert forged.pod_uid == OTHER
    assert forged.detail == f"the socket in a belongs to pod {OTHER}"
    assert early is not None
    assert early.pod_uid == UID


CGROUP = "/sys/fs/cgroup"
SLICE = f"{CGROUP}/kubepods.slice/kubepods-burstable.slice"
UNDERSCORED = UID.replace("-", "_")


@pytest.mark.parametrize(
    ("path", "pod"),
    [
        (f"{CGROUP}/kubepods/burstable/pod{UID}/abc", UID),
        (f"{CGROUP}/kubepods/besteffort/pod{UID}", UID),
        (f"{CGROUP}/kubepods/pod{UID}/abc/nested/deeper", UID),
        (f"{CGROUP}/unified/sandbox/node-1/kubepods/burstable/pod{UID}/c", UID),
        (f"{CGROUP}/kubepods/burstable/pod{HASH}/abc", HASH),
        (f"{SLICE}/kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-abc.scope", UID),
        (f"{CGROUP}/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-abc.scope", UID),
        (
            f"{CGROUP}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
            f"/kubelet-kubepods-besteffort-pod{UNDERSCORED}.slice/cri-containerd-abc.scope",
            UID,
        ),
        # The outermost counts, whatever a pod names its own cgroups.
        (f"{CGROUP}/kubepods/burstable/pod{UID}/c/kubepods/burstable/pod{OTHER}/c", UID),
        (f"{CGROUP}/kubepods/burstable/x/kubepods/burstable/pod{OTHER}/c", ""),
        (f"{CGROUP}/kubepods/burstable/podx/pod{OTHER}/c", ""),
        (f"{CGROUP}/system.slice/kubelet.service", ""),
        (f"{CGROUP}/kubepods", ""),
        (f"{CGROUP}/kubepods/burstable", ""),
        (f"{CGROUP}/user.slice/pod{UID}", ""),
        ("/", ""),
    ],
)
def test_a_cgroups_path_names_the_pod_that_the_kubelet_made_it_for(path: str, pod: str) -> None:
    assert pod_of(path) == pod
