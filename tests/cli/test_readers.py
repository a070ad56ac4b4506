"""The commands for a person without the right to read grants."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from podidentity import manifests
from podidentity.cli.agent_choices import Choices
from podidentity.cli.checks import looking
from podidentity.cli.use_roles import Roles
from podidentity.core.decision import Authorization
from tests.cli.conftest import Ran
from tests.cli.world import World

Run = Callable[..., Ran]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
RIGHT = "you need the right to list clusterroles and clusterrolebindings"
OWN = "aadpodidentity.k8s.io"


def rule(group: str, *resources: str, verbs: tuple[str, ...] = ("get", "list")) -> Any:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


@pytest.fixture
def reader(
    world: World, ns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Sign this process in as a person who may read all that `check` needs, but not list roles."""
    accounts = f"/api/v1/namespaces/{ns}/serviceaccounts"
    world.send("POST", accounts, {"metadata": {"name": "reader"}})
    kinds = ("azureidentities", "azureidentitybindings", "azurepodidentityexceptions")
    rules = [
        rule(OWN, *kinds),
        rule("", "pods", "secrets"),
        rule("apps", "daemonsets", "deployments"),
        rule("networking.k8s.io", "networkpolicies"),
        rule(RBAC.split("/")[2], "clusterrolebindings", verbs=("list", "delete")),
        rule(RBAC.split("/")[2], "clusterroles", verbs=("get",)),
        rule("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ]
    name = f"reader-{ns}"
    world.send("POST", f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": rules})
    reference = {"apiGroup": RBAC.split("/")[2], "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": ns}
    bound = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    world.send("POST", f"{RBAC}/clusterrolebindings", bound)
    token = world.send("POST", f"{accounts}/reader/token", {"spec": {}})["status"]["token"]
    config = yaml.safe_load(world.plan.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    mine = tmp_path / "kubeconfig"
    mine.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(mine))
    yield
    world.send("DELETE", f"{RBAC}/clusterrolebindings/{name}")
    world.send("DELETE", f"{RBAC}/clusterroles/{name}")


@pytest.mark.usefixtures("reader")
def test_check_says_that_it_could_not_look_at_the_grants_and_fails(podidentity: Run) -> None:
    ran = podidentity("check", "-o", "json")
    assert ran.code == 1
    (told,) = [each for each in json.loads(ran.out) if "are granted" in each["message"]]
    assert (told["severity"], told["reason"]) == ("unknown", "NotRead")
    assert told["message"] == f"Could not check which identities are granted: {RIGHT}."


@pytest.mark.usefixtures("reader")
def test_check_needs_no_grants_where_nobody_asks_for_them(
    podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, Authorization.OFF)
    listed = json.loads(podidentity("check", "-o", "json").out)
    assert not [each for each in listed if each["reason"] == "NotPermitted"]


@pytest.mark.usefixtures("reader")
def test_check_says_that_it_could_not_look_at_the_agents_and_fails(
    world: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, Authorization.OFF)
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets"
    world.send("POST", path, manifests.nmi()[-1])
    ran = podidentity("check", "-o", "json")
    assert ran.code == 1
    assert "Could not check the state of NMI: you need the right to" in ran.out


def test_check_reports_missing_grants_where_nmi_only_observes(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.custom(ns, "azureidentities", "orders", {"type": 0, "clientID": str(uuid.uuid4())})
    world.custom(
        ns, "azureidentitybindings", "orders", {"azureIdentity": "orders", "selector": "orders"}
    )
    told(monkeypatch, Authorization.OBSERVE)
    listed = json.loads(podidentity("check", "-o", "json").out)
    (mine,) = [each for each in listed if each["namespace"] == ns]
    assert (mine["reason"], mine["switch"]) == ("NotPermitted", "")
    assert "NMI only reports it (--authorization=observe)." in mine["message"]


def told(monkeypatch: pytest.MonkeyPatch, authorization: Authorization) -> None:
    async def choices(*_: object) -> Choices:
        return Choices(authorization=authorization)

    monkeypatch.setattr(looking, "choices_of_nmi", choices)


@pytest.mark.usefixtures("reader")
def test_revoke_says_that_it_cannot_know_what_else_grants_it(ns: str, podidentity: Run) -> None:
    ran = podidentity("revoke", "-n", ns, "--identity", str(uuid.uuid4()))
    assert f"could not check what else grants it: {RIGHT}" in ran.err
    assert "may not use" not in ran.out


def test_what_lacks_is_each_name_that_nobody_holds_or_all_where_nobody_holds_both() -> None:
    def role(name: str) -> Any:
        rules = [{**rule(OWN, "azureidentities", verbs=("use",)), "resourceNames": [name]}]
        return {"metadata": {"name": name}, "rules": rules}

    def bound(name: str, account: str) -> Any:
        subject = {"kind": "ServiceAccount", "name": account, "namespace": "shop"}
        reference = {"kind": "ClusterRole", "name": name}
        return {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}

    both, made = ("a", "b"), [role("a"), role("b")]
    assert Roles(made, [bound("a", "web")]).lacking("shop", both) == ["b"]
    assert Roles(made, [bound("a", "web"), bound("b", "web")]).lacking("shop", both) == []
    assert Roles(made, [bound("a", "web"), bound("b", "job")]).lacking("shop", both) == ["a", "b"]
    assert Roles(made, [bound("a", "web"), bound("b", "web")]).lacking("bank", both) == ["a", "b"]
