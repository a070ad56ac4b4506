"""`check --pre`: what can be known of a cluster before NMI is in it, and what cannot says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from podidentity import manifests
from podidentity.cli.checks import before
from podidentity.cli.checks.findings import Finding, Severity
from podidentity.cli.cluster_rights import Single
from podidentity_sandbox.world.blueprint import write_kubeconfig
from tests.cli.conftest import Ran
from tests.cli.operators import holding
from tests.cli.test_check_cluster import archived_nmi
from tests.cli.world import CRDS, World

PERSON = "8c0ffee0-0000-4000-8000-000000000002"
NMI = manifests.nmi()[-1]


def reasons(found: Any) -> list[str]:
    return [each.reason for each in found if isinstance(each, Finding)]


@pytest.mark.parametrize(("minor", "found"), [(0, []), (21, ["ClusterTooOld"]), (22, []), (36, [])])
def test_a_cluster_that_is_too_old_for_the_manifests_is_told(minor: int, found: list[str]) -> None:
    assert reasons(before.version(minor)) == found


def test_rights_that_enable_needs_and_the_person_lacks_are_one_finding() -> None:
    (found,) = before.caller_lacks(
        {Single("", "nodes", "list"): True, Single("a", "daemonsets.apps", "create"): False}
    )
    assert found.what.startswith("You may not create daemonsets.apps in a: podidentity enable")
    assert list(before.caller_lacks({Single("", "nodes", "list"): True})) == []


def daemon_set(name: str, namespace: str = "kube-system", **spec: Any) -> Any:
    template = {"metadata": {}, "spec": {"containers": [{"name": "a"}], **spec}}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"template": template}}


def of_release() -> Any:
    labels = {**NMI["metadata"]["labels"], "app.kubernetes.io/managed-by": "Helm"}
    said = {"meta.helm.sh/release-name": "pi", "meta.helm.sh/release-namespace": "ns"}
    return {**NMI, "metadata": {**NMI["metadata"], "labels": labels, "annotations": said}}


@pytest.mark.parametrize(
    ("there", "word"),
    [
        (archived_nmi(), "NMI of AAD Pod Identity"),
        (of_release(), "of Helm release ns/pi"),
        (daemon_set("nmi"), "name of NMI's DaemonSet"),
        (NMI, None),
        (daemon_set("nmi", "own"), None),
        (daemon_set("kube-proxy"), None),
    ],
    ids=["archived", "a release", "a foreign one", "ours", "elsewhere", "another"],
)
def test_what_enable_would_not_stand_beside_is_a_conflict(there: Any, word: str | None) -> None:
    found = list(before.conflicts([there], "kube-system"))
    assert reasons(found) == ["Conflict"] * (word is not None)
    assert all(word is not None and word in each.what for each in found)


def test_beside_nmi_of_aad_pod_identity_of_another_name_enable_comes_and_that_is_no_error() -> None:
    (found,) = before.conflicts([archived_nmi("aad-pod-identity-nmi")], "kube-system")
    assert (found.reason, found.severity) == ("ArchivedRelease", "warning")
    assert "enable comes beside it" in found.what
    assert "podidentity migrate plan" in found.mend
    (of_our_name,) = before.conflicts([archived_nmi()], "kube-system")
    assert (of_our_name.reason, of_our_name.severity) == ("Conflict", "error")
    (elsewhere,) = before.conflicts([archived_nmi()], "own")
    assert elsewhere.severity == "warning"


def test_who_has_a_port_that_nmi_wants_is_named() -> None:
    ports = [{"containerPort": 9090}, {"containerPort": 80, "hostPort": 8085}]
    one = {"name": "a", "ports": ports}
    (of_node,) = before.ports_taken([daemon_set("x", hostNetwork=True, containers=[one])])
    assert "port 9090 of the nodes:" in of_node.what
    (of_pod,) = before.ports_taken([daemon_set("x", containers=[one])])
    assert "port 8085 of the nodes" in of_pod.what
    assert list(before.ports_taken([NMI, archived_nmi()])) == []


@pytest.mark.parametrize(
    ("actions", "found"), [(["Deny"], ["AksAutomatic"]), (["Audit"], []), (None, [])]
)
def test_aks_automatic_is_known_by_the_policy_that_denies(
    actions: list[str] | None, found: list[str]
) -> None:
    binding = None if actions is None else {"spec": {"validationActions": actions}}
    assert reasons(before.automatic(binding)) == found


@pytest.mark.parametrize(
    ("level", "found"),
    [("restricted", ["PodSecurity"]), ("baseline", ["PodSecurity"]), ("privileged", []), ("", [])],
)
def test_a_namespace_that_would_not_let_nmis_pods_in_is_told(level: str, found: list[str]) -> None:
    labels = {"pod-security.kubernetes.io/enforce": level} if level else {}
    told = list(before.pod_security("own", {"metadata": {"name": "own", "labels": labels}}))
    assert reasons(told) == found
    (line,) = before.pod_security("own", None)
    assert line == "Namespace own is not there: enable makes it, and lets NMI's pods in."


def node(name: str, **labels: str) -> Any:
    info = {"kernelVersion": "5.15", "osImage": "Ubuntu", "containerRuntimeVersion": "containerd"}
    metadata = {"name": name, "labels": {"kubernetes.io/os": "linux", **labels}}
    return {"metadata": metadata, "status": {"nodeInfo": info}}


NODES = [
    node("b"),
    node("a"),
    node("c", **{"kubernetes.azure.com/ebpf-dataplane": "cilium"}),
    node("d", **{"kubernetes.azure.com/ebpf-host-routing": "true"}),
    node("w", **{"kubernetes.io/os": "windows"}),
    node("v", type="virtual-kubelet"),
]


def test_nodes_of_one_kind_are_a_line_that_says_what_only_nmi_will_know() -> None:
    told = {line.partition(":")[0]: line for line in before.kinds(NODES)}
    assert set(told) == {"a, b", "c", "d", "w", "v"}
    assert told["a, b"] == (
        "a, b: Linux 5.15, Ubuntu, containerd. Plane, cgroups and whether the probe arrives are "
        "not known before NMI runs: podidentity nodes and podidentity check say them then."
    )
    assert "Cilium, by its label" in told["c"]
    assert "--backend=lrp" in told["d"]
    assert "not known before NMI runs" in told["c"]


def test_nodes_on_which_nmi_cannot_be_are_warnings() -> None:
    found = list(before.unreachable(NODES))
    assert [(each.about.name, each.reason) for each in found] == [
        ("w", "NotServed"),
        ("v", "NotServed"),
    ]
    assert {each.severity for each in found} == {Severity.WARNING}


def test_the_command_looks_before_anything_is_there_and_changes_nothing(
    bare: World, podidentity: Callable[..., Ran]
) -> None:
    before_it = bare.get(CRDS)["items"]
    ran = podidentity("check", "--pre")
    assert ran.code == 0, ran.out
    assert "are not known before NMI runs" in " ".join(ran.out.split())
    assert bare.get(CRDS)["items"] == before_it


def test_a_person_without_rights_is_told_what_enable_would_need(
    bare: World, podidentity: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(bare.plan, PERSON)))
    with holding(bare, PERSON, []):
        ran = podidentity("check", "--pre", "-o", "json")
    assert ran.code == 1
    found = {each["reason"]: each for each in json.loads(ran.out)}
    assert "You may not" in found["LacksRights"]["message"]
    assert "podidentity rights enable" in found["LacksRights"]["nextStep"]
    assert found["NotRead"]["severity"] == "unknown"


@pytest.mark.parametrize("more", ["--probes", "--bundle=x.tar.gz"])
def test_before_an_install_there_is_neither_a_pods_path_nor_a_bundle(
    more: str, podidentity: Callable[..., Ran]
) -> None:
    ran = podidentity("check", "--pre", more)
    assert ran.code == 2
    assert "--pre" in ran.err
