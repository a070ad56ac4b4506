"""What `explain` and `check` say of pods whose connections no process of their own makes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podidentity.adapters.cluster import WatchedCluster
from podidentity.cli.agent_choices import Choices
from podidentity.cli.chain import LinkState
from podidentity.cli.checks.agents import weaknesses
from podidentity.cli.checks.pods import asking, not_provable
from podidentity.cli.checks.rules import matches
from podidentity.cli.proofs import proof_of, unproved
from podidentity.core.attestation import AttestationMode, Trust
from podidentity.core.decision import STRICT as STRICT_RULES
from podidentity.core.refusals import Reason
from podidentity.core.resources import ObjectRef, Phase, Pod
from tests.fakes import FakeClock, binding, identity, pod

KERNEL, NAMESPACE, ADDRESS = AttestationMode
STRICT = Trust()
CHOSEN = Trust(
    proxies=(ObjectRef("istio-system", "ztunnel"),),
    by_class={"kata-vm-isolation": NAMESPACE, "gvisor": ADDRESS},
)
MESHED = pod("meshed", in_ambient_mesh=True)
KATA = pod("kata", runtime_class="kata-vm-isolation")
GVISOR = pod("gvisor", runtime_class="gvisor")
RUNC = pod("runc", runtime_class="runc")
BELIEVED = replace(KATA, attestation="address")


@pytest.mark.parametrize(
    ("found", "mode", "trust", "state", "text"),
    [
        (pod(), KERNEL, STRICT, None, ""),
        (MESHED, KERNEL, STRICT, LinkState.BROKEN, "--trusted-proxies=istio-system/ztunnel"),
        (MESHED, KERNEL, CHOSEN, LinkState.HOLDS, "trusted: istio-system/ztunnel"),
        (MESHED, NAMESPACE, STRICT, None, ""),
        (MESHED, ADDRESS, STRICT, None, ""),
        (KATA, KERNEL, STRICT, LinkState.BROKEN, "=kata-vm-isolation=namespace"),
        (KATA, NAMESPACE, STRICT, LinkState.BROKEN, "=kata-vm-isolation=namespace"),
        (KATA, ADDRESS, STRICT, None, ""),
        (KATA, KERNEL, CHOSEN, LinkState.HOLDS, "the only network namespace"),
        (BELIEVED, KERNEL, STRICT, LinkState.HOLDS, "its address is believed"),
        (GVISOR, KERNEL, STRICT, LinkState.BROKEN, "=gvisor=address"),
        (GVISOR, KERNEL, CHOSEN, LinkState.HOLDS, "its address is believed"),
        (RUNC, KERNEL, STRICT, LinkState.UNKNOWN, "=runc=namespace"),
    ],
)
def test_the_link_says_how_a_pod_is_proved_and_which_flag_is_missing(
    found: Pod, mode: AttestationMode, trust: Trust, state: LinkState | None, text: str
) -> None:
    fact = proof_of(found, mode, trust)
    assert (fact.state if fact else None) is state
    assert text in (fact.text if fact else "")
    assert (unproved(found, mode, trust) is not None) is (state is LinkState.BROKEN)


def test_check_names_all_pods_with_the_same_reason_once_and_only_those_that_ask() -> None:
    others = [pod(f"meshed-{n}", in_ambient_mesh=True) for n in range(2)]
    silent = [
        pod("unbound", in_ambient_mesh=True, labels={}),
        pod("of-the-node", in_ambient_mesh=True, host_network=True),
        pod("ended", in_ambient_mesh=True, phase=Phase.SUCCEEDED),
    ]
    cluster = WatchedCluster.of(
        FakeClock(),
        pods=[MESHED, *others, KATA, RUNC, *silent],
        identities=[identity()],
        bindings=[binding()],
    )
    found = {
        each.reason: each
        for each in not_provable(asking(matches(cluster, STRICT_RULES)), Choices())
    }
    assert set(found) == {Reason.MADE_BY_PROXY, Reason.RUNTIME_CLASS}
    made = found[Reason.MADE_BY_PROXY]
    assert (made.kind, made.about) == ("Pod", MESHED.ref)
    assert "as with 2 more pods: requests are refused." in made.what
    assert made.mend.startswith("Give NMI --trusted-proxies=istio-system/ztunnel")
    assert list(not_provable(asking(matches(cluster, STRICT_RULES)), Choices(trust=CHOSEN))) == []


def test_a_class_that_is_believed_is_a_weakness_and_one_that_is_proved_is_none() -> None:
    daemon_set = {
        "metadata": {"name": "nmi", "namespace": "kube-system"},
        "spec": {"template": {"spec": {"containers": [{"name": "net"}, {"name": "serve"}]}}},
    }
    (found,) = weaknesses(daemon_set, KERNEL, CHOSEN)
    assert found.reason == "WeakerProof"
    assert "--attestation-by-runtime-class=gvisor=address" in found.what
