"""`--backend=lrp`: what it needs of a cluster, and what is made of what NMI tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from podidentity import manifests
from podidentity.cli.agent_choices import Choices
from podidentity.cli.checks.check import perform
from podidentity.cli.checks.groups import NODES_GROUP
from podidentity.cli.checks.nodes import of_denial
from podidentity.cli.checks.pods import without_tokens
from podidentity.cli.checks.reading import Reading
from podidentity.cli.local_redirect import backends, lines
from podidentity.core.resources import ObjectRef, Pod
from podidentity.wire.events import COMPONENT
from tests.acceptance.planes.cilium import CRDS, Decision, decide
from tests.cli.conftest import DAEMON_SET, Ran, nmi_pods, one_object_at_a_time, runs_refused
from tests.cli.world import World

Run = Callable[..., Ran]
NOW = 1_800_000_000.0
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CILIUM = "/apis/cilium.io/v2"
POLICY = f"{CILIUM}/namespaces/kube-system/ciliumlocalredirectpolicies/podidentity-imds"
DENIAL = f"{CILIUM}/ciliumclusterwidenetworkpolicies/podidentity-imds"
REDIRECT = "/apis/apps/v1/namespaces/kube-system/daemonsets/podidentity-redirect"
EVENTS = "/api/v1/namespaces/kube-system/events"


def agent(node: str) -> dict[str, Any]:
    return {"metadata": {"uid": f"uid-{node}"}, "spec": {"nodeName": node}}


def told(node: str, what: str, *, ago: float = 1, by: str = COMPONENT) -> dict[str, Any]:
    return {
        "involvedObject": {"uid": f"uid-{node}"},
        "source": {"component": by},
        "reason": "Backend",
        "message": what,
        "lastTimestamp": datetime.fromtimestamp(NOW - ago, UTC).isoformat(),
    }


def test_of_each_node_the_last_word_of_its_nmi_counts_while_it_is_repeated() -> None:
    pods = [agent(each) for each in "abcdef"]
    events = [
        told("a", "lrp"),
        told("b", "nftables", ago=5),
        told("b", "lrp"),
        told("c", "lrp", ago=5),
        told("c", "none"),
        told("d", "lrp", ago=601),
        told("e", "lrp", by="somebody"),
        told("gone", "lrp"),
    ]
    found = backends(pods, events, NOW)
    assert found == {"a": "lrp", "b": "lrp", "c": "", "d": "", "e": "", "f": ""}


def test_a_terminal_shows_by_what_requests_come_on_which_nodes() -> None:
    shown = list(lines({"a": "lrp", "b": "nftables", "c": "lrp", "d": ""}))
    assert shown[:3] == [
        "Pods' requests come to NMI:",
        "  on b: by nftables",
        "  on a, c: by lrp",
    ]
    assert "on d: not known" in shown[3]


@pytest.mark.parametrize(
    ("backends_", "denied", "reasons"),
    [
        ({"a": "lrp", "b": "lrp"}, True, []),
        ({"a": "lrp", "b": "lrp"}, False, ["FailsOpen"]),
        ({"a": "lrp", "b": "nftables"}, True, ["CutsOff"]),
        ({"a": "lrp", "b": "nftables"}, False, []),
        ({"a": "lrp", "b": ""}, True, []),
        ({"a": "lrp", "b": ""}, False, []),
        ({}, False, []),
    ],
)
def test_the_policy_of_denial_is_missed_where_all_come_by_cilium_and_too_much_where_some_do_not(
    backends_: dict[str, str], denied: bool, reasons: list[str]
) -> None:
    assert [each.reason for each in of_denial(backends_, denied=denied)] == reasons


def test_pods_without_tokens_are_named_by_node() -> None:
    pods = [
        Pod(ref=ObjectRef("shop", f"p{number}"), uid=str(number), node="ab"[number % 2])
        for number in range(14)
    ]
    (found,) = without_tokens(pods, {"a", "empty"})
    assert (found.reason, str(found.about)) == ("NoTokens", "shop/p0")
    assert found.what.startswith("On a no request of a pod comes to NMI")
    assert found.what.endswith("shop/p0, shop/p10, shop/p12, shop/p2, shop/p4 and 2 more.")


class Silent(Reading):
    """A cluster with an NMI that has said nothing yet."""

    def __init__(self) -> None:
        super().__init__(kube=None, choices=Choices())  # type: ignore[arg-type]

    async def agents_there(self) -> list[Any]:
        return [agent("a")]

    async def backends(self) -> dict[str, str]:
        return {"a": ""}


async def test_what_no_nmi_has_said_counts_as_not_checked() -> None:
    (check,) = [each for each in NODES_GROUP.checks if each.holds.startswith("NMI tells by what")]
    found = await perform(check, Silent())
    assert found.not_made == "NMI has not said by what requests come to it"


# Against an API server:


@pytest.fixture
def with_cilium(bare: World) -> World:
    """The world without NMI, and with Cilium's kinds."""
    bare.define(*yaml.safe_load_all(CRDS.read_text()))
    return bare


def test_without_ciliums_kinds_it_is_refused_before_anything_is_made(
    bare: World, podidentity: Run
) -> None:
    ran = podidentity("enable", "--no-wait", "--backend=lrp")
    assert ran.code == 1
    assert "has no CiliumLocalRedirectPolicy" in ran.err
    assert "leave --backend out" in ran.err
    assert bare.get(DAEMON_SET) is None


def test_it_makes_what_cilium_takes_and_denies_nothing_before_each_nmi_has_told(
    with_cilium: World, podidentity: Run
) -> None:
    ran = podidentity("enable", "--no-wait", "--backend=lrp")
    assert ran.code == 0, ran.err
    daemon_set, policy, deny = manifests.local_redirect()
    stored = with_cilium.get(POLICY)["spec"]
    assert {**stored, **policy["spec"]} == stored
    assert with_cilium.get(DENIAL) is None
    assert "is not made: " in ran.err
    (container,) = with_cilium.get(REDIRECT)["spec"]["template"]["spec"]["containers"]
    (port,) = daemon_set["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert port.items() <= container["ports"][0].items(), "Cilium takes declared ports only"
    serve, net = with_cilium.get(DAEMON_SET)["spec"]["template"]["spec"]["containers"]
    for each in (serve, net):
        assert "--backend=lrp" in each["args"]
        assert "status.hostIP" in json.dumps(each["env"])

    for pod in nmi_pods(with_cilium):
        tell(with_cilium, pod, "lrp")
    again = podidentity("enable", "--no-wait", "--backend=lrp")
    assert "ciliumlocalredirectpolicy.cilium.io/podidentity-imds unchanged\n" in again.out
    assert "ciliumclusterwidenetworkpolicy.cilium.io/podidentity-imds created\n" in again.out
    denied = with_cilium.get(DENIAL)["spec"]
    assert denied == deny["spec"], "as the schema takes it"
    assert decide([], [{"spec": denied}], []) == Decision(denied=True), "and nothing else"

    first, *_ = nmi_pods(with_cilium)
    tell(with_cilium, first, "nftables")
    mixed = podidentity("enable", "--no-wait", "--backend=lrp")
    assert with_cilium.get(DENIAL) is None
    assert f"on {first['spec']['nodeName']} pods' requests come by the node's rules" in mixed.err


def tell(world: World, pod: Any, what: str) -> None:
    """Tell what NMI of this pod tells."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    meta = pod["metadata"]
    body = {
        "metadata": {"generateName": "told-", "namespace": "kube-system"},
        "involvedObject": {
            "kind": "Pod",
            **{key: meta[key] for key in ("name", "namespace", "uid")},
        },
        "source": {"component": COMPONENT},
        "reason": "Backend",
        "message": what,
        "lastTimestamp": now,
        "type": "Normal",
    }
    for each in world.send("GET", EVENTS, fieldSelector=f"involvedObject.uid={meta['uid']}")[
        "items"
    ]:
        world.send("DELETE", f"{EVENTS}/{each['metadata']['name']}")
    world.send("POST", EVENTS, body)


def test_a_policy_that_would_deny_everything_is_not_made(
    with_cilium: World, podidentity: Run
) -> None:
    path = f"{DEFINITIONS}/ciliumclusterwidenetworkpolicies.cilium.io"
    found = with_cilium.get(path)
    spec = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["enableDefaultDeny"]
    with_cilium.send("PUT", path, found)
    ran = podidentity("enable", "--no-wait", "--backend=lrp")
    assert "knows no enableDefaultDeny" in ran.err
    assert with_cilium.get(DENIAL) is None


def test_where_it_is_taken_back_all_of_it_goes_and_the_denial_first(
    with_cilium: World, podidentity: Run
) -> None:
    podidentity("enable", "--no-wait", "--backend=lrp")
    for pod in nmi_pods(with_cilium):
        tell(with_cilium, pod, "lrp")
    podidentity("enable", "--no-wait", "--backend=lrp")
    assert podidentity("enable", "--no-wait").code == 0
    assert with_cilium.get(REDIRECT) is not None, "enabled again it stays"
    out = podidentity("enable", "--no-wait", "--forget=backend").out
    gone = [line.split(".")[0] for line in out.splitlines() if line.endswith(" deleted")]
    assert gone == ["ciliumclusterwidenetworkpolicy", "ciliumlocalredirectpolicy", "daemonset"]
    assert [with_cilium.get(each) for each in (DENIAL, POLICY, REDIRECT)] == [None] * 3
    assert "--backend" not in json.dumps(with_cilium.get(DAEMON_SET)["spec"])


def test_wherever_it_is_refused_to_take_it_back_the_next_run_goes_on(
    with_cilium: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = (REDIRECT, POLICY, DENIAL)
    for path, manifest in zip(paths, manifests.local_redirect(), strict=True):
        with_cilium.send("POST", path.rpartition("/")[0], manifest)
    one_object_at_a_time(monkeypatch)
    assert runs_refused(podidentity, "enable", "--no-wait") == len(paths) - 1
    assert [with_cilium.get(each) for each in paths] == [None] * 3


def test_a_policy_that_somebody_has_changed_is_made_anew(
    with_cilium: World, podidentity: Run
) -> None:
    podidentity("enable", "--no-wait", "--backend=lrp")
    before = with_cilium.get(POLICY)
    ran = podidentity("enable", "--no-wait", "--backend=lrp", "--nmi-arg=--nmi-port=2580")
    assert ran.code == 0, ran.err
    after = with_cilium.get(POLICY)
    assert "ciliumlocalredirectpolicy.cilium.io/podidentity-imds replaced\n" in ran.out
    assert before["metadata"]["uid"] != after["metadata"]["uid"]
    assert after["spec"]["redirectBackend"]["toPorts"] == [{"port": "2580", "protocol": "TCP"}]


def test_without_a_cluster_the_manifests_have_no_policy_that_denies(podidentity: Run) -> None:
    printed = list(yaml.safe_load_all(podidentity("enable", "--dry-run", "--backend=lrp").out))
    kinds = [each["kind"] for each in printed]
    assert "CiliumLocalRedirectPolicy" in kinds
    assert "CiliumClusterwideNetworkPolicy" not in kinds


# The stand-in for Cilium's agent, by what Cilium's own tests say:

BACKEND: dict[str, Any] = {
    "metadata": {
        "namespace": "kube-system",
        "labels": {
            "app.kubernetes.io/name": "podidentity",
            "app.kubernetes.io/component": "redirect",
        },
    },
    "spec": {"containers": [{"ports": [{"containerPort": 2579, "protocol": "TCP"}]}]},
    "status": {
        "podIPs": [{"ip": "10.240.0.4"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Decision(backend=("10.240.0.4", 2579))),
        ({"metadata": {**BACKEND["metadata"], "namespace": "other"}}, Decision()),
        ({"metadata": {"namespace": "kube-system"}}, Decision()),
        ({"status": {**BACKEND["status"], "conditions": []}}, Decision()),
        ({"spec": {"containers": [{}]}}, Decision(empty=True)),
    ],
)
def test_the_stand_in_redirects_to_what_cilium_would(
    change: dict[str, Any], expected: Decision
) -> None:
    policy = manifests.local_redirect()[1]
    assert decide([policy], [], [{**BACKEND, **change}]) == expected


def test_the_stand_in_denies_everything_by_a_policy_that_does_not_say_otherwise() -> None:
    deny = manifests.local_redirect()[2]
    spec = {**deny["spec"]}
    del spec["enableDefaultDeny"]
    assert decide([], [{"spec": spec}], []) == Decision(denied=True, all_denied=True)
