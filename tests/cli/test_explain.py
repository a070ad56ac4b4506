from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from podidentity import manifests
from podidentity.adapters.kube import Kube
from podidentity.cli import pod_requests
from podidentity.cli.chain import LinkState
from podidentity.cli.pod_facts import SILENT, said_ready
from podidentity.core.resources import BINDING_LABEL
from tests.cli.azure import Identity
from tests.cli.binding import Run, add
from tests.cli.conftest import Ran
from tests.cli.world import World, event, nmi


def chain_of(ran: Ran) -> dict[str, Any]:
    """Return state and text of each link by its name, and the verdict."""
    told = json.loads(ran.out)
    links = {each["link"]: (each["state"], each["text"]) for each in told["chain"]}
    return {**links, "verdict": told["verdict"]}


def test_explain_follows_the_chain_of_a_pod(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    nmi(world, 1, "nmi-by-hand", ready="False")
    ran = podidentity("explain", f"{ns}/a")
    assert ran.code == 1
    assert "nmi-by-hand on node" in ran.out
    assert "is not ready: not Ready" in ran.out
    nmi(world, 1, "nmi-by-hand", ready="True")
    ran = podidentity("explain", f"{ns}/a")
    assert ran.code == 0
    assert f"attached to scale set {world.plan.scale_set} by podidentity add" in ran.out
    assert "Nothing in the cluster stands against a token of orders." in ran.out
    data = json.loads(podidentity("explain", f"{ns}/a", "-o", "json").out)
    assert data["entitled"] is True
    assert [link["link"] for link in data["chain"]] == [
        "pod",
        "binding",
        "identity",
        "permission",
        "machine",
        "nmi",
        "path",
        "requests",
    ]
    world.send("DELETE", "/api/v1/namespaces/kube-system/pods/nmi-by-hand", gracePeriodSeconds="0")


def test_explain_asks_azure_when_told_to(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns, "orders", "--no-attach").code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    ran = podidentity("explain", f"{ns}/a")
    assert f"not known for scale set {world.plan.scale_set}; --azure asks Azure" in ran.out
    ran = podidentity("explain", f"{ns}/a", "--azure")
    assert ran.code == 1
    assert f"not attached to scale set {world.plan.scale_set}, according to Azure" in ran.out
    orders.attach()
    ran = podidentity("explain", f"{ns}/a", "--azure")
    assert f"attached to scale set {world.plan.scale_set}, according to Azure" in ran.out


def test_explain_says_that_the_binding_is_in_another_namespace(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    selector = f"only-{ns}"
    assert add(podidentity, orders.id, ns, "orders", "--binding-selector", selector).code == 0
    elsewhere = world.namespace(f"{ns}-elsewhere")
    world.pod(elsewhere, "a", {BINDING_LABEL: selector})
    ran = podidentity("explain", f"{elsewhere}/a")
    assert ran.code == 1
    assert "must be in the same namespace" in ran.out
    assert "Refused (OtherNamespace)." in ran.out


def test_explaining_a_pod_that_is_not_there_fails(ns: str, podidentity: Run) -> None:
    ran = podidentity("explain", f"{ns}/nobody")
    assert ran.code == 1
    assert f"error: There is no pod {ns}/nobody. kubectl get pods" in ran.err


LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@pytest.mark.parametrize(
    ("silence", "state", "says"),
    [
        (-30.0, LinkState.HOLDS, "nmi is ready"),
        (SILENT - 0.1, LinkState.HOLDS, "nmi is ready"),
        (SILENT, LinkState.UNKNOWN, "silent for 20 s by this machine's clock"),
        ("", LinkState.HOLDS, "nmi is ready"),
        ("how long ago is not known", LinkState.HOLDS, "said last (how long ago is not known)"),
    ],
)
def test_that_nmi_is_ready_is_known_as_long_as_its_kubelet_says_so(
    silence: float | str, state: LinkState, says: str
) -> None:
    found = said_ready("nmi is ready", silence)
    assert (found.state, found.text.endswith(says) or says in found.text) == (state, True)


def test_explain_does_not_say_that_nmi_is_ready_where_its_node_has_been_silent(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    """The control plane takes 50 s to say so; a probe gets no answer meanwhile."""
    assert add(podidentity, orders.id, ns).code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    nmi(world, 1, "nmi-by-hand", ready="True")
    node, states = world.plan.nodes[1].name, []
    for ago in (30.0, 0.0):
        renewed = (datetime.now(UTC) - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        world.send("POST", LEASES, {"metadata": {"name": node}, "spec": {"renewTime": renewed}})
        ran = podidentity("explain", f"{ns}/a", "-o", "json")
        chain = {each["link"]: each for each in json.loads(ran.out)["chain"]}
        states.append((ran.code, chain["nmi"]["state"], "silent for" in chain["nmi"]["text"]))
        world.send("DELETE", f"{LEASES}/{node}")
    world.send("DELETE", "/api/v1/namespaces/kube-system/pods/nmi-by-hand", gracePeriodSeconds="0")
    assert states == [(0, "?", True), (0, "ok", False)]


# ---- What became of the last requests


@pytest.fixture
def bound(world: World, orders: Identity, ns: str, podidentity: Run) -> Iterator[str]:
    """A pod with an identity on a node whose NMI is ready; its uid."""
    assert add(podidentity, orders.id, ns).code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    nmi(world, 1, "nmi-by-hand", ready="True")
    yield world.get(f"/api/v1/namespaces/{ns}/pods/a")["metadata"]["uid"]
    world.send("DELETE", "/api/v1/namespaces/kube-system/pods/nmi-by-hand", gracePeriodSeconds="0")


@pytest.mark.parametrize(
    "case",
    [
        ("IdentityNotAttached", 20, (1, "fails", "no")),
        ("IdentityNotAttached", 900, (0, "clear", "?")),
        ("NoBinding", 20, (0, "clear", "?")),
        ("MadeByProxy", 20, (1, "fails", "no")),
        ("SeveralIdentities", 20, (1, "fails", "no")),
    ],
    ids=[
        *("a failure", "one that is long over", "what the objects allow now"),
        *("what they never say", "what --ambiguous=reject refuses"),
    ],
)
def test_a_fresh_failure_by_the_pods_events_is_the_verdict(
    ns: str, bound: str, world: World, podidentity: Run, case: tuple[str, int, tuple[int, str, str]]
) -> None:
    reason, ago, ends = case
    event(world, (ns, "a", bound), reason, "IMDS: Identity not found", ago)
    ran = podidentity("explain", f"{ns}/a", "-o", "json")
    found = chain_of(ran)
    state, text = found["requests"]
    assert (ran.code, found["verdict"], state) == ends
    assert f"({reason}): IMDS: Identity not found" in text
    last = podidentity("explain", f"{ns}/a").out.splitlines()[-1]
    assert last.startswith("Fails since " if ran.code else "Nothing in the cluster stands against")
    step = json.loads(ran.out)["nextStep"]
    if reason == "IdentityNotAttached" and ran.code:
        assert step == "Attach the identity to the node's machines: podidentity add, or MIC."
        assert last.endswith(f"IMDS: Identity not found. {step}")


def test_tokens_that_fail_on_the_node_are_the_verdict_of_its_pods(
    world: World, ns: str, bound: str, podidentity: Run
) -> None:
    assert bound
    uid = world.get("/api/v1/namespaces/kube-system/pods/nmi-by-hand")["metadata"]["uid"]
    message = "tokens fail for all pods that asked (TokenThrottled): IMDS throttles; look for pods"
    event(world, ("kube-system", "nmi-by-hand", uid), "TokensFail", message, 200)
    try:
        ran = podidentity("explain", f"{ns}/a")
    finally:
        world.send("DELETE", "/api/v1/namespaces/kube-system/events/nmi-by-hand.tokensfail")
    assert ran.code == 1
    assert "UTC (TokensFail): tokens fail for all pods that asked (TokenThrottled)" in ran.out


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize(
    "case",
    [
        ({"token_seconds_ago": 5.0, "last_refusal": None}, "served"),
        ({"token_seconds_ago": 300.0, "last_refusal": None}, "TokensFail"),
        ({"token_seconds_ago": 300.0, "last_refusal": ("TokenRefused", 5.0)}, "TokenRefused"),
        ({"token_seconds_ago": 300.0, "last_refusal": ("NoBinding", 5.0)}, "TokensFail"),
    ],
    ids=["served since", "served before", "failed otherwise since", "what the objects allow now"],
)
def test_what_the_pod_was_answered_after_tokens_failed_on_its_node_is_the_verdict(
    ns: str,
    world: World,
    podidentity: Run,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[dict[str, Any], str],
) -> None:
    page, ends = case
    if found := page["last_refusal"]:
        page = {**page, "last_refusal": refused(*found)}
    told_by_nmi(monkeypatch, page)
    uid = world.get("/api/v1/namespaces/kube-system/pods/nmi-by-hand")["metadata"]["uid"]
    event(world, ("kube-system", "nmi-by-hand", uid), "TokensFail", "tokens fail; look", 200)
    try:
        last = podidentity("explain", f"{ns}/a").out.splitlines()[-1]
    finally:
        world.send("DELETE", "/api/v1/namespaces/kube-system/events/nmi-by-hand.tokensfail")
    assert last.startswith("Served 5 s ago" if ends == "served" else "Fails since ")
    assert ends == "served" or f" ({ends})" in last


def refused(reason: str, ago: float) -> dict[str, object]:
    """Return the last refusal as NMI's page has it."""
    times = {"seconds_ago": ago, "since_seconds_ago": 60.0, "times": 2}
    return {**times, "status": 429, "reason": reason, "message": "x"}


def told_by_nmi(monkeypatch: pytest.MonkeyPatch, page: dict[str, Any]) -> None:
    async def read(*_: object) -> bytes:
        return json.dumps(page).encode()

    monkeypatch.setattr(pod_requests, "read_debug", read)


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize(
    ("page", "ends"),
    [
        ({"token_seconds_ago": 5.0, "last_refusal": None}, (0, "served", "ok")),
        ({"token_seconds_ago": 5.0, "last_refusal": 20.0}, (0, "served", "ok")),
        ({"token_seconds_ago": 20.0, "last_refusal": 5.0}, (1, "fails", "no")),
        ({"token_seconds_ago": None, "last_refusal": None}, (0, "clear", "?")),
        ({"token_seconds_ago": "x"}, (0, "clear", "?")),
    ],
    ids=["served", "served since", "failed since", "never asked", "another program's answer"],
)
def test_nmis_own_page_says_when_the_pod_was_served(
    ns: str,
    podidentity: Run,
    monkeypatch: pytest.MonkeyPatch,
    page: dict[str, Any],
    ends: tuple[int, str, str],
) -> None:
    if isinstance(ago := page.get("last_refusal"), float):
        page = {**page, "last_refusal": refused("TokenThrottled", ago)}
    told_by_nmi(monkeypatch, {"pod": f"{ns}/a", **page})
    ran = podidentity("explain", f"{ns}/a", "-o", "json")
    found = chain_of(ran)
    assert (ran.code, found["verdict"], found["requests"][0]) == ends
    if found["verdict"] == "served":
        assert "\nServed 5 s ago: the pod may use orders." in podidentity("explain", f"{ns}/a").out


# ---- What is often the cause


def test_a_typo_in_a_bindings_selector_is_named_with_the_binding(
    world: World, ns: str, podidentity: Run
) -> None:
    spec = {"azureIdentity": "orders", "selector": "ordres"}
    world.custom(ns, "azureidentitybindings", "orders-binding", spec)
    world.pod(ns, "a", {BINDING_LABEL: "orders"})
    ran = podidentity("explain", f"{ns}/a")
    last = ran.out.splitlines()[-1]
    assert last.startswith(f"Refused (NoBinding). Did you mean {BINDING_LABEL}=ordres, of")
    assert f"{ns}/orders-binding? Correct the label, or the binding's spec.selector." in last


def test_a_misspelt_label_is_named(world: World, ns: str, podidentity: Run) -> None:
    world.pod(ns, "a", {"aadPodIdBinding": "orders"})
    last = podidentity("explain", f"{ns}/a").out.splitlines()[-1]
    assert f"the label aadPodIdBinding in place of {BINDING_LABEL}: label it" in last


def test_a_proxy_of_workload_identity_in_the_pod_is_named_as_who_takes_the_requests(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    spec = {
        "nodeName": world.plan.nodes[1].name,
        "initContainers": [{"name": "azwi-proxy-init", "image": "x"}],
        "containers": [{"name": "main", "image": "x"}],
    }
    body = {"metadata": {"name": "a", "labels": {BINDING_LABEL: "orders"}}, "spec": spec}
    world.send("POST", f"/api/v1/namespaces/{ns}/pods", body)
    ran = podidentity("explain", f"{ns}/a", "-o", "json")
    state, text = chain_of(ran)["sidecar"]
    assert (ran.code, state) == (1, "no")
    assert "azwi-proxy-init) takes the pod's requests, and NMI sees none" in text


def test_where_a_nodes_labels_keep_nmi_away_the_link_says_which(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    daemon_set = manifests.nmi()[-1]
    daemon_set["spec"]["template"]["spec"]["nodeSelector"] = {"pool": "blue"}
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets"
    assert add(podidentity, orders.id, ns).code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    world.send("POST", path, daemon_set)
    text = chain_of(podidentity("explain", f"{ns}/a", "-o", "json"))["nmi"][1]
    assert "NMI's DaemonSet has the nodeSelector pool=blue. Label the node so" in text
    world.send("DELETE", f"{path}/nmi")
    text = chain_of(podidentity("explain", f"{ns}/a", "-o", "json"))["nmi"][1]
    assert text.endswith("nor in this cluster; run podidentity enable")


def test_while_an_update_is_stuck_at_a_wrong_flag_the_flags_of_the_nmi_that_serves_count(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets"
    world.send("POST", path, manifests.nmi(extra_args=["--no-such-flag"])[-1])
    serving = manifests.nmi(extra_args=["--operation-mode=standard"])[-1]
    (serve, *_) = serving["spec"]["template"]["spec"]["containers"]
    containers = [{"name": "serve", "image": "x", "args": serve["args"]}]
    spec = {"nodeName": world.plan.nodes[1].name, "containers": containers}
    labels = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "nmi"}
    pods = "/api/v1/namespaces/kube-system/pods"
    world.send("POST", pods, {"metadata": {"name": "serving", "labels": labels}, "spec": spec})
    nmi(world, 1, "serving", ready="True")
    ran = podidentity("explain", f"{ns}/a")
    assert ran.code == 1
    assert "NotAssigned" in ran.out
    assert "cannot be read" not in ran.err
    world.send("DELETE", f"{path}/nmi")
    world.send("DELETE", f"{pods}/serving", gracePeriodSeconds="0")


def test_explain_reads_the_pod_once(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pod(ns, "a", {})
    read: list[str] = []
    get = Kube.get

    async def counted(kube: Kube, path: str, *more: Any) -> bytes:
        read.append(path)
        return await get(kube, path, *more)

    monkeypatch.setattr(Kube, "get", counted)
    podidentity("explain", f"{ns}/a")
    assert read.count(f"/api/v1/namespaces/{ns}/pods/a") == 1
