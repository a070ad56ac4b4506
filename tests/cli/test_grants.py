"""Grants of identities: given, listed, revoked; each test has a client id of its own."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from podidentity.adapters.kube import Kube
from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.list import GRANTS_HEAD, GrantEnd, ListedGrant
from podidentity.cli.output import table
from podidentity.cli.use_roles import adopt
from podidentity.wire.kube import KubeError
from podidentity.wire.rbac import GIVEN_BY, Giver, Grantee, binding, role
from tests.cli.conftest import Ran
from tests.cli.ids import IDENTITY
from tests.cli.world import World

Run = Callable[..., Ran]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
BINDING = "clusterrolebinding.rbac.authorization.k8s.io"


@pytest.fixture
def client() -> str:
    return str(uuid.uuid4())


def may(world: World, namespace: str, account: str, name: str) -> bool:
    """Ask the API server as NMI does."""
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    attributes = {
        "group": "aadpodidentity.k8s.io",
        "resource": "azureidentities",
        "verb": "use",
        "name": name,
    }
    user = f"system:serviceaccount:{namespace}:{account}"
    spec = {"user": user, "groups": groups, "resourceAttributes": attributes}
    answer = world.send(
        "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec}
    )
    return bool(answer["status"]["allowed"])


def add(run: Run, ns: str, client: str, name: str = "orders", *more: str) -> Ran:
    return run(
        *("add", "-n", ns, "--name", name, "--identity-resource-id", IDENTITY),
        *("--client-id", client, "--no-attach", *more),
    )


def delete(run: Run, ns: str, name: str = "orders") -> Ran:
    return run("delete", "-n", ns, "--name", name)


def test_a_grant_reaches_all_pods_of_its_namespace_and_no_other(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    assert not may(world, ns, "web", client)
    ran = podidentity("grant", "-n", ns, "--identity", client.upper())
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        f"clusterrole.rbac.authorization.k8s.io/podidentity-use-{client} created",
        f"{BINDING}/podidentity-use-{client}:{ns} created",
        f"Pods of namespace {ns} may use {client}.",
    ]
    assert may(world, ns, "web", client)
    assert may(world, ns, "default", client)
    assert not may(world, "default", "web", client)
    assert not may(world, ns, "web", str(uuid.uuid4()))
    assert "configured" not in podidentity("grant", "-n", ns, "--identity", client).out
    assert podidentity("revoke", "-n", ns, "--identity", client).code == 0
    assert not may(world, ns, "web", client)
    assert world.get(f"{RBAC}/clusterroles/podidentity-use-{client}") is None


def test_a_grant_can_be_for_one_service_account(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    for account in ("web", "job"):
        ran = podidentity("grant", "-n", ns, "--service-account", account, "--identity", client)
        assert ran.out.endswith(f"Pods of service account {ns}/{account} may use {client}.\n")
    assert not may(world, ns, "default", client)
    podidentity("revoke", "-n", ns, "--service-account", "web", "--identity", client)
    assert [may(world, ns, account, client) for account in ("web", "job")] == [False, True]
    podidentity("revoke", "-n", ns, "--identity", client)
    assert not may(world, ns, "job", client), "all of the namespace, its accounts included"


@pytest.mark.parametrize("name", ["system-assigned", IDENTITY])
def test_the_machines_own_identity_and_one_by_its_arm_id_can_be_granted(
    world: World, ns: str, podidentity: Run, name: str
) -> None:
    assert podidentity("grant", "-n", ns, "--identity", name).code == 0
    assert may(world, ns, "web", name.lower())
    podidentity("revoke", "-n", ns, "--identity", name)
    assert not may(world, ns, "web", name.lower())


def test_revoking_names_what_grants_it_all_the_same(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    podidentity("grant", "-n", ns, "--identity", client)
    ran = podidentity("revoke", "-n", ns, "--service-account", "web", "--identity", client)
    assert ran.code == 0
    assert f"still granted by {BINDING}/podidentity-use-{client}:{ns}" in ran.err
    assert f"Pods of service account {ns}/web may still use {client}." in ran.out
    assert may(world, ns, "web", client)
    podidentity("revoke", "-n", ns, "--identity", client)


def test_a_role_that_somebody_elses_binding_needs_is_left(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    podidentity("grant", "-n", ns, "--identity", client)
    role = f"podidentity-use-{client}"
    (made,) = bindings(world, client)
    subject = {**made["subjects"][0], "name": "system:serviceaccounts:elsewhere"}
    others = {"metadata": {"name": ns}, "roleRef": made["roleRef"], "subjects": [subject]}
    world.send("POST", f"{RBAC}/clusterrolebindings", others)
    assert podidentity("revoke", "-n", ns, "--identity", client).code == 0
    assert world.get(f"{RBAC}/clusterroles/{role}") is not None
    assert may(world, "elsewhere", "web", client)
    world.send("DELETE", f"{RBAC}/clusterrolebindings/{ns}")
    world.send("DELETE", f"{RBAC}/clusterroles/{role}")


def test_a_grant_can_be_printed_for_others_to_apply(ns: str, client: str, podidentity: Run) -> None:
    ran = podidentity("grant", "-n", ns, "--identity", client, "--dry-run")
    role, binding = yaml.safe_load_all(ran.out)
    assert role["rules"] == [
        {
            "apiGroups": ["aadpodidentity.k8s.io"],
            "resources": ["azureidentities"],
            "resourceNames": [client],
            "verbs": ["use"],
        }
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [each["name"] for each in binding["subjects"]] == [f"system:serviceaccounts:{ns}"]


@pytest.mark.parametrize("name", ["orders", "/subscriptions/x", "", "*"])
def test_what_names_no_identity_is_wrong_usage(ns: str, podidentity: Run, name: str) -> None:
    assert podidentity("grant", "-n", ns, "--identity", name).code == 2


def test_add_grants_and_delete_takes_back(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    assert add(podidentity, ns, client).code == 0
    assert may(world, ns, "web", client)
    assert add(podidentity, ns, client, "second").code == 0
    assert "another AzureIdentity" in delete(podidentity, ns, "second").out
    assert may(world, ns, "web", client)
    assert delete(podidentity, ns).code == 0
    assert not may(world, ns, "web", client)


def test_add_grants_to_one_service_account_or_leaves_it_to_others(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    label = "labelled aadpodidbinding=orders"
    ran = add(podidentity, ns, client, "orders", "--no-grant")
    assert not may(world, ns, "web", client)
    assert ran.out.splitlines()[-2:] == [
        f"Pods of namespace {ns} {label} may use it only once an operator has granted it:",
        f"  podidentity grant --namespace {ns} --identity {client}",
    ]
    ran = add(podidentity, ns, client, "orders", "--service-account", "web")
    assert ran.out.endswith(f"Pods of service account {ns}/web {label} may use it.\n")
    assert [may(world, ns, account, client) for account in ("web", "default")] == [True, False]
    delete(podidentity, ns)
    assert not may(world, ns, "web", client)


def test_what_a_person_granted_is_not_taken_back_by_delete(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    podidentity("grant", "-n", ns, "--identity", client)
    add(podidentity, ns, client)
    delete(podidentity, ns)
    assert may(world, ns, "web", client)
    podidentity("revoke", "-n", ns, "--identity", client)


def test_there_is_no_grant_for_a_namespace_that_is_not_there(
    world: World, client: str, podidentity: Run
) -> None:
    for ran in (
        podidentity("grant", "-n", "nowhere", "--identity", client),
        add(podidentity, "nowhere", client),
    ):
        assert ran.code == 1
        assert "There is no namespace nowhere" in ran.err
        assert "Create the namespace first" in ran.err
    assert bindings(world, client) == []
    assert world.get(f"{RBAC}/clusterroles/podidentity-use-{client}") is None


@pytest.mark.parametrize("command", ["grant", "add"])
def test_a_grant_ends_with_its_namespace_and_one_of_that_name_is_another(
    world: World, ns: str, client: str, podidentity: Run, command: str
) -> None:
    if command == "add":
        assert add(podidentity, ns, client).code == 0
    else:
        assert podidentity("grant", "-n", ns, "--identity", client).code == 0
    uid = world.get(f"/api/v1/namespaces/{ns}")["metadata"]["uid"]
    (made,) = bindings(world, client)
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": ns, "uid": uid}
    assert made["metadata"]["ownerReferences"] == [owner]
    world.send("DELETE", f"/api/v1/namespaces/{ns}")
    while bindings(world, client):
        time.sleep(0.01)
    world.namespace(ns)
    assert not may(world, ns, "web", client)


def older(world: World, ns: str, client: str) -> None:
    """Have a grant of an earlier version, which ends with nothing."""
    world.send("POST", f"{RBAC}/clusterroles", role(client))
    world.send("POST", f"{RBAC}/clusterrolebindings", binding(client, Grantee(ns), Giver.GRANT))


@pytest.mark.parametrize("command", ["enable", "add", "grant"])
def test_a_grant_of_an_earlier_version_is_made_to_end_with_its_namespace(
    world: World, ns: str, client: str, podidentity: Run, command: str
) -> None:
    older(world, ns, client)
    if command == "enable":
        on_cluster(ClusterTarget(str(world.plan.kubeconfig), None), adopt)
    elif command == "add":
        assert add(podidentity, ns, client).code == 0
    else:
        assert podidentity("grant", "-n", ns, "--identity", client).code == 0
    (found,) = bindings(world, client)
    assert [each["name"] for each in found["metadata"]["ownerReferences"]] == [ns]
    assert found["metadata"]["annotations"][GIVEN_BY] == "grant"


def test_enable_names_a_grant_for_a_namespace_that_is_not_there(
    world: World, client: str, capsys: pytest.CaptureFixture[str]
) -> None:
    older(world, "nowhere", client)
    on_cluster(ClusterTarget(str(world.plan.kubeconfig), None), adopt)
    name = f"podidentity-use-{client}:nowhere"
    err = capsys.readouterr().err
    assert f"{name} is for namespace nowhere, which is not there" in err
    assert f"kubectl delete clusterrolebinding {name}" in err
    world.send("DELETE", f"{RBAC}/clusterrolebindings/{name}")


def test_add_does_not_widen_a_grant_without_a_word(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    assert add(podidentity, ns, client, "orders", "--service-account", "web").code == 0
    ran = add(podidentity, ns, client)
    assert ran.code == 1
    assert f"only those of service account {ns}/web may use this identity" in ran.err
    assert f"podidentity grant --namespace {ns} --identity {client}" in ran.err
    assert not may(world, ns, "default", client)
    assert podidentity("grant", "-n", ns, "--identity", client).code == 0
    assert add(podidentity, ns, client).code == 0
    podidentity("revoke", "-n", ns, "--identity", client)


def test_all_grants_are_listed_with_what_they_end_with(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    add(podidentity, ns, client, "orders", "--service-account", "web")
    ran = podidentity("list", "--grants", "-n", ns)
    assert (ran.code, ran.err) == (0, "")
    head, row = ran.out.splitlines()
    assert head.split() == ["GRANTED", "TO", "ENDS", "WITH", "IDENTITY"]
    assert row.split("   ") == [f"{ns}/web", "namespace", client]
    wide = podidentity("list", "--grants", "-n", ns, "-o", "wide").out.splitlines()
    assert wide[0].split() == ["GRANTED", "TO", "BY", "ENDS", "CLUSTERROLEBINDING", "IDENTITY"]
    who, by, ends, binding, identity = wide[1].split("   ")
    assert (who, by, ends) == (f"service account {ns}/web", "add", "with its namespace")
    assert (binding, identity) == (f"podidentity-use-{client}:{ns}:web", client)
    older(world, "nowhere", str(uuid.uuid4()))
    (found,) = json.loads(podidentity("list", "--grants", "-n", "nowhere", "-o", "json").out)
    assert (found["madeBy"], found["ends"]) == ("grant", "never; there is no such namespace")
    lines = podidentity("list", "--grants", "-n", "nowhere").out.splitlines()
    assert lines[1].split() == ["nowhere", "nothing", found["identity"]]
    assert lines[2].startswith(f"ClusterRoleBinding {found['clusterRoleBinding']} is for namespace")
    world.send("DELETE", f"{RBAC}/clusterrolebindings/{found['clusterRoleBinding']}")
    assert podidentity("list", "--grants", "-n", "nowhere").out == "Nobody may use an identity.\n"


def test_on_80_columns_a_line_holds_a_grant_and_the_id_of_a_resource_is_wrapped() -> None:
    listed = [
        ListedGrant(
            name=name,
            grantee=grantee,
            binding=f"podidentity-use-{name}",
            made_by="",
            ends=ends,
        )
        for (name, grantee), ends in zip(
            [
                (str(uuid.uuid4()), Grantee("my-application", "orders-worker")),
                (str(uuid.uuid4()), Grantee("")),
                (IDENTITY.lower(), Grantee("shop")),
                ("system-assigned", Grantee("shop")),
                ("*", Grantee("shop")),
            ],
            GrantEnd,
            strict=True,
        )
    ]
    lines = table(GRANTS_HEAD, [each.row(wide=False) for each in listed], width=80).splitlines()
    assert max(map(len, lines)) <= 80, lines
    assert len(lines) > len(listed) + 1, "an ARM id has more than a line"
    assert [each.problem for each in listed if each.problem] == [listed[2].problem]


def test_a_name_longer_than_names_may_be_is_shortened_and_stays_its_own(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    accounts = [f"{'a' * 240}{number}" for number in range(2)]
    for account in accounts:
        podidentity("grant", "-n", ns, "--service-account", account, "--identity", client)
    assert all(may(world, ns, account, client) for account in accounts)
    names = [each["metadata"]["name"] for each in bindings(world, client)]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 253
    podidentity("revoke", "-n", ns, "--identity", client)


def bindings(world: World, client: str) -> list[Any]:
    found = world.get(f"{RBAC}/clusterrolebindings")["items"]
    return [each for each in found if each["roleRef"]["name"] == f"podidentity-use-{client}"]


def test_explain_ends_at_a_permission_that_is_missing(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    add(podidentity, ns, client, "orders", "--no-grant")
    world.pod(ns, "a", {"aadpodidbinding": "orders"})
    ran = podidentity("explain", "pod", f"{ns}/a")
    assert ran.code == 1
    assert f"service account {ns}/default may not use {client}" in ran.out
    assert f"podidentity grant --namespace {ns} --identity {client}" in ran.out
    podidentity("grant", "-n", ns, "--identity", client)
    assert (
        f"service account {ns}/default may use {client}"
        in podidentity("explain", "pod", f"{ns}/a").out
    )
    podidentity("revoke", "-n", ns, "--identity", client)


def test_list_shows_whose_pods_may_use_an_identity(ns: str, client: str, podidentity: Run) -> None:
    def listed() -> Any:
        (found,) = json.loads(podidentity("list", "-n", ns, "-o", "json").out)["identities"]
        return found["permitted"], found["state"]

    add(podidentity, ns, client, "orders", "--no-grant")
    assert listed() == ([], "bound, not permitted")
    add(podidentity, ns, client, "orders", "--service-account", "web")
    assert listed() == (["web"], "bound")
    podidentity("grant", "-n", ns, "--identity", client)
    assert listed() == (["*", "web"], "bound")
    assert " all " in podidentity("list", "-n", ns).out
    podidentity("revoke", "-n", ns, "--identity", client)


def test_who_may_delete_no_role_may_revoke_what_nobody_has(
    ns: str, client: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object, **__: str) -> bytes:
        raise KubeError("may not delete clusterroles", status=403)

    monkeypatch.setattr(Kube, "delete", refused)
    ran = podidentity("revoke", "-n", ns, "--identity", client)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"nothing was granted to namespace {ns} by podidentity\n")
