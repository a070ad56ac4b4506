"""The commands for the owner of one namespace."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from podidentity.cli.checks.pods import refused_lately
from tests.cli.conftest import Ran
from tests.cli.ids import IDENTITY
from tests.cli.world import CUSTOM, World, event, nmi

Run = Callable[..., Ran]
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture
def ns(world: World, ns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A namespace whose owner is at the shell: all verbs on everything in it."""
    owner = {
        "metadata": {"name": "owner"},
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": ns}],
    }
    world.send("POST", f"{RBAC}/namespaces/{ns}/rolebindings", owner)
    account = f"/api/v1/namespaces/{ns}/serviceaccounts/default/token"
    token = world.send("POST", account, {"spec": {}})["status"]["token"]
    config = yaml.safe_load(world.plan.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    return ns


def add(run: Run, ns: str, client: str, *more: str) -> Ran:
    return run(
        *("add", "-n", ns, "--name", "orders", "--identity-resource-id", IDENTITY),
        *("--client-id", client, "--no-attach", *more),
    )


def test_an_owner_of_a_namespace_grants_himself_nothing(ns: str, podidentity: Run) -> None:
    client = str(uuid.uuid4())
    ran = podidentity("grant", "-n", ns, "--identity", client)
    assert ran.code == 1
    assert "cannot " in ran.err
    assert f"A cluster administrator grants it: podidentity grant --namespace {ns}" in ran.err


def test_who_may_not_grant_learns_it_before_anything_is_made(
    world: World, ns: str, podidentity: Run
) -> None:
    client = str(uuid.uuid4())
    assert "A cluster administrator grants it" in add(podidentity, ns, client).err
    assert world.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/orders") is None
    assert add(podidentity, ns, client, "--no-grant").code == 0
    listed = podidentity("list", "-n", ns)
    assert listed.code == 0
    assert " ? " in listed.out


def test_explain_says_what_an_owner_may_not_know(world: World, ns: str, podidentity: Run) -> None:
    client = str(uuid.uuid4())
    add(podidentity, ns, client, "--no-grant")
    world.pod(ns, "a", {"aadpodidbinding": "orders"})
    ran = podidentity("explain", "pod", f"{ns}/a")
    assert ran.code == 0
    unknown = f"whether service account {ns}/default may use {client} is not known"
    assert f"{unknown}: you need the right to create subjectaccessreviews" in ran.out


def test_what_was_added_without_a_grant_can_be_deleted_by_its_owner(
    ns: str, podidentity: Run
) -> None:
    add(podidentity, ns, str(uuid.uuid4()), "--no-grant")
    ran = podidentity("delete", "-n", ns, "--name", "orders")
    assert ran.code == 0
    assert "azureidentity.aadpodidentity.k8s.io/orders deleted" in ran.out
    assert f"podidentity revoke --namespace {ns}" in ran.err


def test_check_of_a_namespace_finds_what_is_wrong_there_and_nothing_of_others(
    world: World, ns: str, podidentity: Callable[..., Ran]
) -> None:
    other = world.namespace(f"{ns}-other")
    for place in (ns, other):
        world.pod(place, "a", {"aadpodidbinding": "orders"})
        uid = world.get(f"/api/v1/namespaces/{place}/pods/a")["metadata"]["uid"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "metadata": {"name": "a.1"},
            "involvedObject": {"kind": "Pod", "namespace": place, "name": "a", "uid": uid},
            "source": {"component": "podidentity-nmi"},
            "type": "Warning",
            "reason": "IdentityNotAttached",
            "message": "IMDS: Identity not found",
            "lastTimestamp": now,
        }
        world.send("POST", f"/api/v1/namespaces/{place}/events", body)
    ran = podidentity("check", ns, "-o", "json")
    found = json.loads(ran.out)
    assert ran.code == 1
    assert {(each["reason"], each["namespace"]) for each in found} == {
        ("NoBinding", ns),
        ("RequestsFail", ns),
    }
    (failing,) = [each for each in found if each["reason"] == "RequestsFail"]
    assert "(IdentityNotAttached): IMDS: Identity not found" in failing["message"]
    assert failing["nextStep"] == f"Run podidentity explain {ns}/a."
    world.send("DELETE", f"/api/v1/namespaces/{other}/pods/a", gracePeriodSeconds="0")


def test_only_the_last_refusal_of_a_pod_counts() -> None:
    def event(pod: str, reason: str, ago: float) -> dict[str, object]:
        at = datetime.fromtimestamp(1_800_000_000 - ago, UTC).isoformat()
        about = {"kind": "Pod", "namespace": "pay", "name": pod}
        told = {"reason": reason, "message": reason.lower(), "lastTimestamp": at}
        return {"type": "Warning", "involvedObject": about, **told}

    events = [event("a", "IdentityNotAttached", 10), event("a", "NoBinding", 200)]
    events += [event("b", "NoBinding", 100), event("c", "NoBinding", 400)]
    found = list(refused_lately(events, 1_800_000_000, lambda _ref, _reason, _at: True))
    assert [each.what.partition(" (")[0] for each in found] == [
        "NMI gave pay/a no token, last 10 s ago",
        "NMI gave pay/b no token, last 100 s ago",
    ]


def test_check_of_a_namespace_says_that_tokens_fail_or_that_this_is_not_known(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pod(ns, "a", {"aadpodidbinding": "orders"}, node=1)
    nmi(world, 1, "nmi-fails", ready="True")
    place = ("kube-system", "nmi-fails")
    uid = world.get("/api/v1/namespaces/kube-system/pods/nmi-fails")["metadata"]["uid"]
    event(world, (*place, uid), "TokensFail", "tokens fail (TokenSourceDown): no answer", 20)
    try:
        unread = " ".join(podidentity("check", ns).out.split())
        monkeypatch.setenv("KUBECONFIG", str(world.plan.kubeconfig))
        read = podidentity("check", ns, "-o", "json")
    finally:
        world.send("DELETE", "/api/v1/namespaces/kube-system/events/nmi-fails.tokensfail")
        world.send(
            "DELETE", "/api/v1/namespaces/kube-system/pods/nmi-fails", gracePeriodSeconds="0"
        )
    assert "whether IMDS and Entra answer is not known: you need the right to list" in unread
    assert "TokensFail" in {each["reason"] for each in json.loads(read.out)}


def test_check_of_a_namespace_that_is_not_there_says_so_and_not_that_nothing_is_wrong(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(world.plan.kubeconfig))
    ran = podidentity("check", f"{ns}-typo")
    assert (ran.code, ran.out) == (1, "")
    assert f"There is no namespace {ns}-typo. kubectl get namespaces lists them." in ran.err
    assert podidentity("check", ns).code == 0, "it is there, and empty"


def test_a_secret_that_was_put_back_is_blamed_no_more(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(world.plan.kubeconfig))
    secrets = f"/api/v1/namespaces/{ns}/secrets"
    secret = {"metadata": {"name": "mail"}, "stringData": {"clientSecret": "right"}}
    world.send("POST", secrets, secret)
    spec = {
        "type": 1,
        "tenantID": str(uuid.uuid4()),
        "clientID": (client := str(uuid.uuid4())),
        "clientPassword": {"name": "mail", "namespace": ns},
    }
    world.custom(ns, "azureidentities", "mail", spec)
    world.custom(ns, "azureidentitybindings", "mail", {"azureIdentity": "mail", "selector": "mail"})
    assert podidentity("grant", "-n", ns, "--identity", client).code == 0
    world.pod(ns, "a", {"aadpodidbinding": "mail"}, node=1)
    uid = world.get(f"/api/v1/namespaces/{ns}/pods/a")["metadata"]["uid"]

    def refused(ago: float) -> bool:
        event(world, (ns, "a", uid), "TokenRefused", "AADSTS7000215: Invalid client secret", ago)
        checked = podidentity("check", ns, "-o", "json")
        told = {each["reason"] for each in json.loads(checked.out)}
        ran = podidentity("explain", f"{ns}/a")
        world.send("DELETE", f"/api/v1/namespaces/{ns}/events/a.tokenrefused")
        assert bool(re.search("requests +no ", ran.out)) is ("RequestsFail" in told), ran.out
        assert ("its Secret was changed since" in ran.out) is ("RequestsFail" not in told), ran.out
        return "RequestsFail" in told

    assert not refused(20), "the Secret is of this moment"
    assert refused(-20)


def test_check_of_a_namespace_names_pods_on_whose_nodes_no_nmi_is(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(podidentity, ns, str(uuid.uuid4()), "--no-grant")
    world.pod(ns, "a", {"aadpodidbinding": "orders"}, node=1)
    assert "whether IMDS and Entra answer is not known" in " ".join(
        podidentity("check", ns).out.split()
    )
    monkeypatch.setenv("KUBECONFIG", str(world.plan.kubeconfig))
    found = json.loads(podidentity("check", ns, "-o", "json").out)
    (silent,) = [each for each in found if each["reason"] == "NoTokens"]
    assert f"so these get no token: {ns}/a" in silent["message"]


def test_check_of_a_namespace_sees_grants_and_says_where_it_may_not(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(podidentity, ns, str(uuid.uuid4()), "--no-grant")
    unread = podidentity("check", ns)
    assert unread.code == 0, unread.out
    assert "who may use which identity is not known: you need the right to list" in " ".join(
        unread.out.split()
    )
    monkeypatch.setenv("KUBECONFIG", str(world.plan.kubeconfig))
    read = podidentity("check", ns, "-o", "json")
    assert read.code == 1
    assert [each["reason"] for each in json.loads(read.out)] == ["NotPermitted"]


def test_check_of_a_namespace_does_not_blame_what_was_mended_since(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(world.plan.kubeconfig))
    add(podidentity, ns, client := str(uuid.uuid4()), "--no-grant")
    for name, selector, reason in (
        ("waits", "orders", "NotPermitted"),
        ("typo", "oders", "NoBinding"),
        ("gone", "orders", "NoBinding"),
        ("asks", "orders", "NotAmongThePodsIdentities"),
    ):
        world.pod(ns, name, {"aadpodidbinding": selector}, node=1)
        uid = world.get(f"/api/v1/namespaces/{ns}/pods/{name}")["metadata"]["uid"]
        event(world, (ns, name, uid), reason, f"refused {name}", 20)
    world.send("DELETE", f"/api/v1/namespaces/{ns}/pods/gone", gracePeriodSeconds="0")

    def refused() -> set[str]:
        found = json.loads(podidentity("check", ns, "-o", "json").out)
        return {each["name"] for each in found if each["reason"] == "RequestsFail"}

    assert refused() == {"waits", "typo", "asks"}
    assert podidentity("grant", "-n", ns, "--identity", client).code == 0
    label = {"metadata": {"labels": {"aadpodidbinding": "orders"}}}
    world.send("PATCH", f"/api/v1/namespaces/{ns}/pods/typo", label)
    assert refused() == {"asks"}, "no object says what a request asks for"
