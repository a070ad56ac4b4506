"""`check` finds all that the rules refuse: a table of objects and findings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from podidentity import manifests
from podidentity.adapters.clock import SystemClock
from podidentity.cli import boot_window
from podidentity.cli.checks import rules as of_rules
from podidentity.cli.checks.agents import (
    agent_warnings,
    no_probe,
    not_ready,
    two_agents,
    weaknesses,
)
from podidentity.cli.checks.findings import CheckReason, Finding, Severity
from podidentity.cli.checks.nodes import (
    closed_while_starting,
    host_routed,
    nodes_without,
    open_while_starting,
)
from podidentity.cli.checks.printing import shown
from podidentity.cli.rollout import Rollout
from podidentity.core.attestation import AttestationMode
from podidentity.core.decision import STRICT, Rules
from podidentity.core.resources import (
    Authority,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Entra,
    IdentityType,
    Malformed,
    ObjectRef,
    Tenant,
)
from tests.cli.conftest import PODS, Ran
from tests.cli.ids import CLIENT
from tests.cli.world import World
from tests.fakes import binding, cluster, identity, pod

TENANT = Tenant.parse("contoso.com")


def found(*objects: Any, rules: Rules = STRICT, lacking: Sequence[str] = ()) -> list[Finding]:
    exceptions = [each for each in objects if isinstance(each, AzurePodIdentityException)]
    known = cluster(SystemClock(), *objects)
    for each in objects:
        if isinstance(each, Malformed):
            known.put(each)
    matched = of_rules.matches(known, rules)
    return [
        *of_rules.refused(known, exceptions, rules, matched),
        *of_rules.ungranted(known, rules, matched, lambda *_: lacking),
    ]


def principal(**entra: Any) -> Any:
    return identity(
        type=IdentityType.SERVICE_PRINCIPAL, resource_id=None, entra=Entra(tenant=TENANT, **entra)
    )


def exception(namespace: str = "shop", **labels: str) -> AzurePodIdentityException:
    return AzurePodIdentityException(ref=ObjectRef(namespace, "exc"), pod_labels=labels)


EVIL = Authority.parse("https://login.evil.example")
ELSEWHERE = AzureIdentityBinding(
    ref=ObjectRef("bank", "orders-binding"), identity="orders", selector="orders"
)


def test_a_cluster_as_it_should_be_has_nothing_to_find() -> None:
    fits = exception("kube-system", app="addon")
    assert found(identity(), binding(), pod(), fits) == []


@pytest.mark.parametrize(
    ("objects", "reason", "switch", "mend"),
    [
        (
            [principal(authority=EVIL), binding()],
            "UnknownAuthority",
            f"--authorities={EVIL}",
            "adEndpoint",
        ),
        (
            [principal(secret=ObjectRef("vault", "s")), binding()],
            "ForeignSecret",
            "--compat-foreign-secrets",
            "Put the secret into namespace shop",
        ),
        ([pod(), ELSEWHERE], "OtherNamespace", "--compat-cross-namespace", "namespace shop"),
        (
            [exception(app="x")],
            "ExceptionIgnored",
            "--exception-namespaces=kube-system,shop",
            "--exception-namespaces=",
        ),
        ([exception("kube-system")], "ExceptionIgnored", "", "podLabels"),
        ([binding()], "NoIdentity", "", "Create that AzureIdentity"),
        (
            [Malformed(ref=ObjectRef("shop", "orders"), kind="AzureIdentity", why="spec is odd")],
            "MalformedIdentity",
            "",
            "Correct AzureIdentity shop/orders",
        ),
        (
            [Malformed(ref=ObjectRef("shop", "b"), kind="AzureIdentityBinding", why="it is odd")],
            "MalformedBinding",
            "",
            "Correct AzureIdentityBinding shop/b",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_the_rules_refuse_is_found_with_the_way_out(
    objects: list[Any], reason: str, switch: str, mend: str
) -> None:
    refused = [each for each in found(*objects) if each.reason != "NoIdentity" or len(objects) == 1]
    assert [(each.reason, each.switch) for each in refused] == [(reason, switch)]
    assert mend in refused[0].mend


def test_a_bound_identity_that_nobody_was_granted_is_found_with_the_command() -> None:
    (only,) = found(identity(), binding(), lacking=[CLIENT])
    assert only.reason == "NotPermitted"
    assert "podidentity grant --namespace shop --identity" in only.mend
    assert found(identity(), lacking=[CLIENT]) == [], "what is not bound needs no grant"


def test_a_switch_that_lets_pods_cross_grants_them_nothing_and_that_is_found() -> None:
    objects = [pod("a-0"), pod("a-1"), identity(ref=ObjectRef("bank", "orders")), ELSEWHERE]
    crossing = Rules(cross_namespace=True)
    assert found(*objects, rules=crossing) == []
    mends = [each.mend for each in found(*objects, rules=crossing, lacking=[CLIENT])]
    assert ["--namespace bank" in mend for mend in mends] == [True, False]
    assert ["--namespace shop" in mend for mend in mends] == [False, True]


def test_pods_that_have_some_labels_of_an_exception_are_counted() -> None:
    system: dict[str, Any] = {"ref": ObjectRef("kube-system", "a"), "labels": {"app": "ADDON"}}
    (only,) = found(pod(**system), exception("kube-system", app="addon", tier="x"))
    assert (only.reason, only.switch) == ("AnyLabel", "--compat-any-label-exceptions")
    assert "1, such as kube-system/a" in only.what


@pytest.mark.parametrize(
    "shares_a_label",
    [
        {"labels": {"app.kubernetes.io/instance": "aad"}, "host_network": True},
        {
            "labels": {
                "app.kubernetes.io/name": "podidentity",
                "app.kubernetes.io/component": "probe",
            }
        },
    ],
    ids=["NMI of the chart", "the probe"],
)
def test_the_exception_of_mic_is_not_said_to_lack_pods_of_nmi(
    shares_a_label: dict[str, Any],
) -> None:
    mic = {
        "app.kubernetes.io/name": "podidentity",
        "app.kubernetes.io/instance": "aad",
        "app.kubernetes.io/component": "mic",
    }
    beside = pod(ref=ObjectRef("kube-system", "nmi-x"), **shares_a_label)
    assert found(beside, exception("kube-system", **mic)) == []


def test_a_label_of_many_pods_is_one_finding() -> None:
    assert len(found(pod("a"), pod("b", addresses=("10.244.0.9",)), ELSEWHERE)) == 2, (
        "and NoIdentity"
    )


def test_each_missing_permission_is_a_finding() -> None:
    names = ["11111111-1111-1111-1111-111111111111", "/subscriptions/s"]
    all_found = found(identity(), binding(), lacking=names)
    assert [each.mend.rpartition("--identity ")[2] for each in all_found] == [
        f"{name}." for name in names
    ]


def test_a_switch_keeps_what_nmi_was_told_already() -> None:
    own = Authority.parse("https://login.own.example")
    rules = Rules(
        exception_namespaces=frozenset({"kube-system", "own"}),
        authorities=STRICT.authorities | {own},
    )
    objects = [principal(authority=EVIL), binding(), exception(app="x")]
    assert {each.switch for each in found(*objects, rules=rules)} == {
        f"--authorities={EVIL},{own}",
        "--exception-namespaces=kube-system,own,shop",
    }


@pytest.mark.parametrize(
    ("rules", "objects"),
    [
        (Rules(cross_namespace=True), [pod(), ELSEWHERE]),
        (Rules(exception_namespaces=None), [exception(app="x")]),
        (Rules(foreign_secrets=True), [principal(secret=ObjectRef("v", "s")), binding()]),
    ],
    ids=["cross", "exceptions", "secrets"],
)
def test_what_a_switch_lets_be_is_not_found(rules: Rules, objects: list[Any]) -> None:
    assert {each.reason for each in found(*objects, rules=rules)} <= {"NoIdentity"}


def test_the_command_ends_with_1_and_prints_what_it_found(
    world: World, podidentity: Callable[..., Ran]
) -> None:
    name = world.namespace("to-check")
    spec = {"azureIdentity": "nobody", "selector": "s"}
    world.custom(name, "azureidentitybindings", "lost", spec)
    ran = podidentity("check")
    assert ran.code == 1
    assert "AzureIdentityBinding to-check/lost (NoIdentity)" in ran.out
    listed = json.loads(podidentity("check", "-o", "json").out)
    assert ("to-check", "lost") in {(each["namespace"], each["name"]) for each in listed}
    world.send("DELETE", f"/apis/aadpodidentity.k8s.io/v1/namespaces/{name}/azureidentitybindings")


def test_an_agent_with_one_container_is_found(
    world: World, podidentity: Callable[..., Ran]
) -> None:
    made = daemon_set()
    spec = made["spec"]["template"]["spec"]
    spec["containers"] = [spec["containers"][1] | {"name": "nmi"}]
    world.send("POST", PATH, made)
    assert "(OneContainer)" in podidentity("check").out


PATH = "/apis/apps/v1/namespaces/kube-system/daemonsets"
EVENTS = "/api/v1/namespaces/kube-system/events"


def daemon_set(*arguments: str) -> Any:
    *_, made = manifests.nmi(extra_args=arguments)
    return made


def test_a_daemon_set_as_enable_writes_it_gives_nothing_up() -> None:
    assert list(weaknesses(daemon_set(), AttestationMode.KERNEL)) == []


def test_a_weaker_proof_and_containers_of_two_images_are_found_with_the_mend() -> None:
    odd = daemon_set()
    odd["spec"]["template"]["spec"]["containers"][1]["image"] = "podidentity:0.2.1"
    (proof, images) = weaknesses(odd, AttestationMode.ADDRESS)
    assert proof.reason == "WeakerProof"
    assert "any pod can take another's tokens by its address." in proof.what
    assert proof.mend.startswith("Choose --attestation=kernel")
    assert images.reason == "TwoImages"
    assert "net podidentity:0.2.1" in images.what


def agent_pod(name: str, node: str) -> Any:
    metadata = {"namespace": "kube-system", "name": name, "uid": f"uid-{name}"}
    return {"metadata": metadata, "spec": {"nodeName": node}}


def event(pod: str, **changes: Any) -> Any:
    return {
        "involvedObject": {"kind": "Pod", "name": pod, "uid": f"uid-{pod}"},
        "source": {"component": "podidentity-nmi"},
        "reason": "SourcesUnguarded",
        "message": "a pod can lie: no filter; load one",
        "lastTimestamp": "2026-11-25T09:46:40Z",
    } | changes


THEN = datetime.fromisoformat("2026-11-25T09:46:40Z").timestamp()


def test_what_agents_warn_of_is_found_once_for_all_nodes_with_the_mend() -> None:
    names = [f"nmi-{number}" for number in range(7)]
    pods = [agent_pod(name, name.replace("nmi", "node")) for name in names]
    (only,) = agent_warnings(pods, [event(name) for name in names], THEN + 300)
    assert (only.kind, str(only.about), only.reason) == (
        "Pod",
        "kube-system/nmi-0",
        "SourcesUnguarded",
    )
    assert only.what == (
        "On node-0, node-1, node-2, node-3, node-4 and 2 more nodes: a pod can lie: no filter."
    )
    assert only.mend == "Load one."


@pytest.mark.parametrize(
    ("changes", "later"),
    [
        ({}, 601.0),
        ({"involvedObject": {"uid": "uid-of-the-pod-before"}}, 1.0),
        ({"source": {"component": "kubelet"}}, 1.0),
        ({"source": None}, 1.0),
        ({"reason": "NoBinding"}, 1.0),
        ({"lastTimestamp": None}, 1.0),
        ({"lastTimestamp": "yesterday"}, 1.0),
    ],
    ids=["over", "gone", "anothers", "nobodys", "a pod's", "no time", "odd time"],
)
def test_events_that_say_nothing_of_how_an_agent_is_now_are_not_found(
    changes: dict[str, Any], later: float
) -> None:
    told = agent_warnings([agent_pod("nmi-0", "n")], [event("nmi-0", **changes)], THEN + later)
    assert list(told) == []


def test_an_agent_that_cannot_follow_the_cluster_is_found_with_the_age_of_what_it_knows() -> None:
    message = "NMI decides on what it knew 95 s ago, because it cannot watch pods; see NMI's log"
    told = event("nmi-0", reason="StaleState", message=message)
    (only,) = agent_warnings([agent_pod("nmi-0", "n")], [told], THEN)
    assert only.what == (
        "On n: NMI decides on what it knew 95 s ago, because it cannot watch pods."
    )
    assert only.severity is Severity.WARNING


BROKEN = {"reason": "PathBroken", "message": "answered by IMDS itself; turn it off"}
PROVED = {"reason": "PathProved", "message": "again"}


def test_a_broken_data_path_is_found_until_it_is_whole_again() -> None:
    def found(*events: Any) -> list[str]:
        pods = [agent_pod("nmi-0", "n0"), agent_pod("nmi-1", "n1")]
        return [each.what for each in agent_warnings(pods, events, THEN + 60)]

    at = {second: {"lastTimestamp": f"2026-11-25T09:46:{second}Z"} for second in (40, 45, 50)}
    broken = event("nmi-0", **BROKEN, **at[40])
    told = ["On n0: answered by IMDS itself."]
    assert found(broken) == told
    assert found(broken, event("nmi-1", **PROVED, **at[45])) == told, "another node"
    assert found(broken, event("nmi-0", **PROVED, **at[45])) == []
    again = event("nmi-0", **BROKEN, **at[50])
    assert found(again, event("nmi-0", **PROVED, **at[45])) == told


def test_a_broken_data_path_is_told_in_red() -> None:
    (finding,) = agent_warnings([agent_pod("nmi-0", "n")], [event("nmi-0", **BROKEN)], THEN)
    assert "\x1b[31m" in shown(finding)
    assert finding.mend == "Turn it off."


def test_a_probe_pod_that_cannot_be_scheduled_is_found_with_the_reason() -> None:
    (probe, _) = [each for each in manifests.nmi() if each["kind"] == "DaemonSet"]
    found = no_probe(probe, Rollout(1, 2, current=True), ["no node: Unschedulable: full"])
    assert (found.kind, found.about.name) == ("DaemonSet", "podidentity-probe")
    assert "ready on 1 of 2 nodes" in found.what
    assert found.what.endswith("no node: Unschedulable: full.")


def node(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", **labels}}}


NMI = manifests.nmi()[-1]
NAMED = manifests.nmi(namespace="own", tolerations=manifests.automatic_tolerations())[-1]


def test_nodes_that_no_nmi_serves_are_named_with_what_is_open_there() -> None:
    nodes = [
        node("a"),
        node("b"),
        *(node(f"n{number}") for number in range(6)),
        node("w", **{"kubernetes.io/os": "windows"}),
        node("aci", type="virtual-kubelet"),
    ]
    told = list(nodes_without(NMI, [agent_pod("nmi-0", "a")], nodes))
    assert {each.reason for each in told} == {CheckReason.NO_AGENT}
    texts = {each.about.name: each.what for each in told}
    assert set(texts) == {"aci", "b", "w"}
    assert texts["b"].startswith("b, n0, n1, n2, n3 and 2 more nodes: there is no pod of NMI.")
    assert "Windows" in texts["w"]
    assert all("they reach IMDS itself" in text for text in texts.values())
    assert list(nodes_without(NMI, [agent_pod("nmi-0", "a")], nodes[:1])) == []


def tainted(key: str, value: str = "", effect: str = "NoSchedule") -> dict[str, Any]:
    taint = {"key": key, "effect": effect, **({"value": value} if value else {})}
    return node("a") | {"spec": {"taints": [taint]}}


@pytest.mark.parametrize(
    ("taint", "shown"),
    [
        (tainted("team", "blue"), "team=blue:NoSchedule"),
        (tainted("team", effect="NoExecute"), "team:NoExecute"),
        (tainted("sku", "cpu"), "sku=cpu:NoSchedule"),
        (tainted("CriticalAddonsOnly", "true"), "CriticalAddonsOnly=true:NoSchedule"),
        # Those that keep no pod of NMI away.
        (tainted("sku", "gpu"), None),
        (tainted("nvidia.com/gpu", "present", "NoExecute"), None),
        (tainted("team", "blue", "PreferNoSchedule"), None),
        (
            tainted("node.kubernetes.io/out-of-service", effect="NoExecute"),
            "node.kubernetes.io/out-of-service:NoExecute",
        ),
        (tainted("node.kubernetes.io/unreachable", effect="NoExecute"), None),
        (tainted("node.kubernetes.io/not-ready"), None),
        (tainted("node.kubernetes.io/unschedulable"), None),
        (node("a"), None),
    ],
)
def test_a_node_whose_taint_keeps_nmi_away_is_told_with_the_taint_and_the_flag_that_mends_it(
    taint: dict[str, Any], shown: str | None
) -> None:
    (found,) = nodes_without(NAMED, [], [taint])
    assert found.reason == CheckReason.NO_AGENT
    if shown is None:
        assert "taint" not in f"{found.what} {found.mend}"
        return
    assert found.what.startswith(f"a: NMI does not tolerate the taint {shown}. Their pods get")
    critical = shown.startswith("CriticalAddonsOnly")
    mend = "--enable-imds-restriction" if critical else f"--toleration={shown} "
    assert mend in found.mend
    # By its default NMI tolerates every taint: then it is none of them.
    (found,) = nodes_without(NMI, [], [taint])
    assert "taint" not in f"{found.what} {found.mend}"


def of_update(node: str, number: int, *, ready: bool) -> dict[str, Any]:
    """Return NMI's pod on a node, of one of two generations."""
    made = agent_pod(f"nmi-{node}-{number}", node)
    status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    return {**made, "status": status}


SERVED = Rollout(ready=2, desired=2, current=False)


@pytest.mark.parametrize(
    ("annotations", "back"),
    [
        ({}, "kubectl rollout undo daemonset/nmi --namespace kube-system"),
        ({"meta.helm.sh/release-name": "pi"}, "helm rollback pi --namespace kube-system"),
    ],
    ids=["by enable", "by Helm"],
)
def test_an_update_that_is_stuck_is_no_outage_and_says_how_to_go_back(
    annotations: dict[str, str], back: str
) -> None:
    daemon_set = manifests.nmi()[-1]
    if annotations:
        daemon_set["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"
        daemon_set["metadata"]["annotations"] = annotations
    pods = [of_update(node, 1, ready=True) for node in "ab"] + [of_update("a", 2, ready=False)]
    why = "a: container serve ended with exit code 2: Error: No such option '--no-such-flag'."
    found = not_ready(daemon_set, SERVED, pods, [why, why])
    assert found.reason == "UpdateStuck"
    assert "On each node the NMI before it serves on. The new NMI is not ready: a: " in found.what
    assert found.what.count("No such option '--no-such-flag'") == 1
    assert found.mend.endswith(f"or go back: {back}.")


def test_an_agent_that_cannot_write_its_audit_log_leaves_the_one_before_it_without_one() -> None:
    pods = [of_update("a", 1, ready=True), of_update("a", 2, ready=False)]
    why = "a: not Ready (Readiness probe failed: audit: the audit log cannot be written: full)"
    found = not_ready(NMI, SERVED, pods, [why])
    assert "serves on, without the audit log that the new one cannot write" in found.what


def test_a_node_without_a_ready_agent_is_not_ready_and_named_once() -> None:
    pods = [of_update("a", 1, ready=True), of_update("b", 1, ready=False)]
    state = Rollout(ready=1, desired=2, current=True)
    found = not_ready(NMI, state, pods, ["b: one", "a: two", "b: three", "b: one"])
    assert found.reason == "NotReady"
    assert "a: two; b: one; three." in found.what


def test_what_a_new_agent_warns_of_while_another_serves_its_node_is_no_finding() -> None:
    pods = [of_update("a", 1, ready=True), of_update("a", 2, ready=False)]
    told = [event(pods[1]["metadata"]["name"])]
    assert list(agent_warnings(pods, told, THEN)) == []
    assert [each.reason for each in agent_warnings(pods[1:], told, THEN)] == ["SourcesUnguarded"]


def test_a_node_without_nmi_is_told_in_red() -> None:
    (open_node,) = nodes_without(NMI, [], [node("a")])
    assert shown(open_node).startswith("\x1b[31m\x1b[1mNode a (NoAgent)\x1b[0m\n")


def test_nmi_in_two_namespaces_is_found_and_the_other_one_is_named() -> None:
    def of(namespace: str) -> dict[str, Any]:
        return {"metadata": {"namespace": namespace, "name": "nmi"}}

    (found,) = two_agents("kube-system", [of("kube-system"), of("other"), of("third")])
    assert (found.reason, str(found.about)) == ("TwoAgents", "other/nmi")
    assert found.what.startswith("NMI is also in namespaces other and third: a node has one NMI")
    assert "podidentity enable --namespace kube-system" in found.mend
    assert list(two_agents("kube-system", [of("kube-system")])) == []


def test_nodes_with_ebpf_host_routing_are_named_in_red_with_what_it_opens_there() -> None:
    label = "kubernetes.azure.com/ebpf-host-routing"
    nodes = [node("a"), node("b", **{label: "true"}), node("c", **{label: "false"})]
    assert not list(host_routed(nodes, {"b": "lrp"})), "there Cilium leads requests to NMI"
    (found,) = host_routed(nodes, {"b": "nftables"})
    assert (found.kind, found.about.name, found.reason) == ("Node", "b", "HostRouting")
    assert found.what.startswith("b: eBPF host routing is on")
    assert shown(found).startswith("\x1b[31m\x1b[1mNode b (HostRouting)\x1b[0m\n")


def test_the_command_reads_what_agents_warn_of_and_says_where_nmi_is_not_ready(
    world: World, podidentity: Callable[..., Ran]
) -> None:
    world.send("POST", PATH, daemon_set("--attestation=namespace"))
    name = manifests.nmi()[-1]["spec"]["template"]["metadata"]["labels"]
    world.send(
        "POST",
        PODS,
        {
            "metadata": {"name": "nmi-0", "labels": name},
            "spec": {"nodeName": "node-0", "containers": [{"name": "serve", "image": "x"}]},
        },
    )
    uid = world.get(f"{PODS}/nmi-0")["metadata"]["uid"]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"kind": "Pod", "namespace": "kube-system", "name": "nmi-0", "uid": uid}
    body = event("nmi-0", involvedObject=about, lastTimestamp=now)
    world.send("POST", EVENTS, {"metadata": {"name": "nmi-0.1"}, **body})
    world.send("POST", "/api/v1/nodes", node("win-0", **{"kubernetes.io/os": "windows"}))
    second = daemon_set()
    second["metadata"]["namespace"] = "default"
    world.send("POST", PATH.replace("kube-system", "default"), second)
    try:
        listed = json.loads(podidentity("check", "-o", "json").out)
        found = {each["reason"]: each for each in listed if each["namespace"] == "kube-system"}
        assert {"WeakerProof", "NotReady", "SourcesUnguarded"} <= found.keys()
        open_nodes = [each["name"] for each in listed if each["reason"] == CheckReason.NO_AGENT]
        assert "win-0" in open_nodes
        assert "node-0" not in open_nodes
        assert "node-0: " in found["NotReady"]["message"]
        assert found["SourcesUnguarded"]["nextStep"] == "Load one."
        assert "default" in [each["namespace"] for each in listed if each["reason"] == "TwoAgents"]
    finally:
        world.send("DELETE", f"{PATH.replace('kube-system', 'default')}/nmi")
        world.send("DELETE", f"{EVENTS}/nmi-0.1")
        world.send("DELETE", "/api/v1/nodes/win-0")


# ---- While a node starts


def of_nodes(*names: str) -> list[Any]:
    return [
        {
            "metadata": {"namespace": "kube-system", "name": f"nmi-{each}", "uid": f"u-{each}"},
            "spec": {"nodeName": each},
        }
        for each in names
    ]


def closed(node: str, by: str, at: float, component: str = "podidentity-nmi") -> Any:
    return {
        "involvedObject": {"kind": "Pod", "uid": f"u-{node}"},
        "reason": "BootClosed",
        "message": by,
        "source": {"component": component},
        "lastTimestamp": datetime.fromtimestamp(at, UTC).isoformat(),
    }


def test_a_node_of_which_nothing_is_told_counts_as_open_while_it_starts() -> None:
    now = 1_800_000_000.0
    events = [
        closed("a", "the node unit", now - 300),
        closed("b", "the node unit", now - 601),
        closed("c", "the node unit", now, component="somebody"),
        closed("gone", "the node unit", now),
    ]
    assert closed_while_starting(of_nodes("a", "b", "c", "d"), events, now) == {
        "a": "the node unit",
        "b": "",
        "c": "",
        "d": "",
    }
    assert list(agent_warnings(of_nodes("a"), events, now)) == [], "it is no fault"


def test_what_closes_nodes_while_they_start_is_told_for_each() -> None:
    told = boot_window.lines("", {"a": "the node unit", "b": "", "c": "the node unit"})
    assert list(told) == [
        "While a node starts, until NMI is up on it:",
        "  restarts of a, c: closed by the node unit",
    ]


def test_that_nothing_closes_a_node_is_said_once_by_the_finding_alone() -> None:
    assert list(boot_window.lines("", {"a": "", "b": ""})) == []
    (found,) = open_while_starting({"a": "", "b": ""}, "")
    assert found.what.count("pods reach every identity") == 1
    assert "NMI takes no start-up taint off" in found.what
    (found,) = open_while_starting({"a": "", "b": ""}, "a.example/b")
    assert "taint" not in found.what


def test_a_start_up_taint_is_told_beside_what_closes_restarts() -> None:
    told = list(boot_window.lines("a.example/b", {"a": "AKS's IMDS restriction"}))
    assert told == [
        "While a node starts, until NMI is up on it:",
        "  new nodes: closed, where their pools give them taint a.example/b: NMI takes it off",
        "  restarts of a: closed by AKS's IMDS restriction",
    ]


def test_without_nmi_nothing_is_told_of_starts() -> None:
    assert list(boot_window.lines("", {})) == []


def test_check_says_on_stderr_what_closes_nodes_while_they_start(
    bare: World, podidentity: Callable[..., Ran]
) -> None:
    assert podidentity("enable", "--no-wait", "--startup-taint").code == 0
    ran = podidentity("check", "-o", "json")
    assert f"new nodes: closed, where their pools give them taint {manifests.STARTUP_TAINT}" in (
        ran.err
    )
    (found,) = [each for each in json.loads(ran.out) if each["reason"] == "OpenWhileStarting"]
    assert found["name"] == min(each.name for each in bare.plan.nodes)
    assert "restarts of" not in ran.err
    assert podidentity("enable", "--no-wait", "--forget=all").code == 0, "the right goes again"
