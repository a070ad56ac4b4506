"""A tenant labels a workload of his as NMI or MIC, for the administrator who runs a command."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from podidentity import manifests
from podidentity.cli.impostors import account_of, holders
from podidentity.cli.kept_options import RECORD
from podidentity.core.resources import ObjectRef
from podidentity.wire.pauses import PAUSES
from tests.cli.azure import Identity
from tests.cli.binding import add, identity, record
from tests.cli.conftest import DAEMON_SET, Ran
from tests.cli.world import World

Run = Callable[..., Ran]
APPS = "/apis/apps/v1/namespaces"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
OLD_LABELS = {"component": "mic", "k8s-app": "aad-pod-id"}


@pytest.fixture
def tenant(world: World) -> str:
    """A namespace of a tenant, before kube-system in the alphabet."""
    return world.namespace(f"a-{uuid.uuid4().hex[:8]}")


def nmi_of_a_tenant(world: World, tenant: str, *flags: str) -> None:
    """Make a DaemonSet that looks like NMI's, with the tenant's image, flags and record."""
    made = manifests.nmi(namespace=tenant, image="evil.example/nmi:1", extra_args=flags)[-1]
    made["metadata"]["annotations"] = {RECORD: "--node-tokens"}
    world.send("POST", f"{APPS}/{tenant}/daemonsets", made)


def mic_of_a_tenant(world: World, tenant: str, labels: dict[str, str] | None = None) -> None:
    """Make a Deployment that looks like MIC's: ours, or with these labels."""
    made = manifests.mic(namespace=tenant)[-1]
    if labels:
        made["metadata"]["labels"] = labels
        made["spec"]["selector"]["matchLabels"] = labels
        made["spec"]["template"]["metadata"]["labels"] = labels
    world.send("POST", f"{APPS}/{tenant}/deployments", made)


def enabled(bare: World, podidentity: Run, *more: str) -> list[str]:
    """Run `enable`; return the flags of NMI in kube-system."""
    ran = podidentity("enable", "--no-wait", *more)
    assert ran.code == 0, ran.err
    found = bare.get(DAEMON_SET)
    assert found is not None, ran.out
    flags: list[str] = found["spec"]["template"]["spec"]["containers"][0]["args"]
    assert podidentity("disable", "--timeout", "1s").code in {0, 1}
    return flags


def test_enable_goes_not_to_a_tenant_and_has_nothing_of_his(
    bare: World, tenant: str, podidentity: Run
) -> None:
    """His image would be root on each node, and its rights those of his service accounts."""
    nmi_of_a_tenant(bare, tenant, "--authorization=off")
    ran = podidentity("enable", "--no-wait")
    assert ran.code == 0, ran.err
    found = bare.get(DAEMON_SET)
    assert found is not None, ran.out
    assert "evil.example" not in json.dumps(found)
    assert "--authorization=off" not in json.dumps(found)
    assert "evil.example" not in ran.err
    for each in bare.get(f"{RBAC}/clusterrolebindings")["items"]:
        assert tenant not in {one.get("namespace") for one in each.get("subjects") or ()}
    assert podidentity("disable", "--timeout", "1s").code in {0, 1}
    assert bare.get(f"{APPS}/{tenant}/daemonsets/nmi") is not None


def test_enable_brings_no_mic_because_a_tenant_says_there_is_one(
    bare: World, tenant: str, podidentity: Run
) -> None:
    mic_of_a_tenant(bare, tenant)
    flags = enabled(bare, podidentity)
    assert "--operation-mode=standard" not in flags
    assert bare.get(f"{RBAC}/clusterrolebindings/podidentity-mic") is None


def test_enable_opens_no_node_to_a_tenant_who_says_that_the_archived_mic_is_his(
    bare: World, tenant: str, podidentity: Run
) -> None:
    """His pods would get the tokens of the nodes' own identities."""
    mic_of_a_tenant(bare, tenant, OLD_LABELS)
    spec = {"podLabels": {"app": "mine"}}
    bare.custom(tenant, "azurepodidentityexceptions", "mic-exception", spec)
    assert not [each for each in enabled(bare, podidentity) if tenant in each]


def test_what_a_tenant_calls_a_helm_release_keeps_nobody_from_enabling(
    bare: World, tenant: str, podidentity: Run
) -> None:
    made = manifests.nmi(namespace=tenant)[-1]
    made["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"
    bare.send("POST", f"{APPS}/{tenant}/daemonsets", made)
    enabled(bare, podidentity)


@pytest.fixture(params=[None, OLD_LABELS], ids=["ours", "archived"])
def of_a_tenant(world: World, tenant: str, request: pytest.FixtureRequest) -> World:
    """The world with a MIC of a tenant's."""
    mic_of_a_tenant(world, tenant, request.param)
    return world


def test_machines_are_changed_whatever_mic_a_tenant_says_there_is(
    of_a_tenant: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    """Else `add` attaches nothing, and `delete` leaves everything attached, for everybody."""
    world = of_a_tenant
    assert add(podidentity, orders.id, ns).code == 0
    assert record(identity(world, ns)) == [world.plan.scale_set_id]
    assert orders.attached()
    ran = podidentity("delete", "--namespace", ns, "--name", "orders")
    assert (ran.code, ran.err) == (0, "")
    assert not orders.attached()


def test_a_pause_is_not_written_where_a_tenant_says_that_mic_is(
    world: World, tenant: str, podidentity: Run
) -> None:
    mic_of_a_tenant(world, tenant)
    ran = podidentity("mic", "pause")
    assert ran.code == 1
    assert "MIC does not run in this cluster" in ran.err
    assert world.get(f"/api/v1/namespaces/{tenant}/configmaps/{PAUSES}") is None


def test_the_flags_of_a_tenants_nmi_decide_nothing(
    world: World, tenant: str, podidentity: Run
) -> None:
    nmi_of_a_tenant(world, tenant, "--exception-namespaces=*")
    ran = podidentity("exception", "add", "-n", tenant, "--name", "mine", "--pod-labels", "a=b")
    assert ran.code == 0, ran.err
    assert "--exception-namespaces" in ran.err
    assert f"Pods of namespace {tenant} with a=b get" not in ran.out


def test_a_tenants_archived_nmi_does_not_say_how_pods_are_matched(
    world: World, ns: str, tenant: str, podidentity: Run
) -> None:
    """Across namespaces, his pods would be due the identities of all bindings of their label."""
    genuine = archived_nmi(world, "kube-system", "--forceNamespaced=true")
    archived_nmi(world, tenant)
    assert refused(world, ns, tenant, podidentity) == []
    world.delete(genuine)


def test_an_archived_nmi_whose_right_has_another_name_says_it_where_no_other_does(
    world: World, ns: str, tenant: str, podidentity: Run
) -> None:
    there = archived_nmi(world, "default", "--forceNamespaced=true")
    assert refused(world, ns, tenant, podidentity) == []
    world.delete(there)


def refused(world: World, ns: str, tenant: str, podidentity: Run) -> Any:
    """Return what pods of a tenant would lose that have the label of another namespace's."""
    world.custom(ns, "azureidentities", "orders", {"clientID": str(uuid.uuid4())})
    spec = {"azureIdentity": "orders", "selector": "orders"}
    world.custom(ns, "azureidentitybindings", "orders", spec)
    world.pod(tenant, "mine", {"aadpodidbinding": "orders"})
    ran = podidentity("migrate", "plan", "--namespace", tenant, "-o", "json")
    return json.loads(ran.out)["refused"]


def archived_nmi(world: World, namespace: str, *flags: str) -> str:
    """Make a DaemonSet of AAD Pod Identity's NMI, with these flags; return its path."""
    labels = {"component": "nmi"}
    container = {"name": "nmi", "image": "x", "args": list(flags)}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    path = f"{APPS}/{namespace}/daemonsets"
    world.send("POST", path, {"metadata": {"name": "old-nmi", "labels": labels}, "spec": spec})
    return f"{path}/old-nmi"


def bound(role: str, *subjects: Any) -> dict[str, Any]:
    return {"roleRef": {"kind": "ClusterRole", "name": role}, "subjects": list(subjects)}


def account(namespace: str, name: str) -> dict[str, str]:
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


@pytest.mark.parametrize(
    ("role", "counts"),
    [
        *((name, True) for name in ("podidentity-nmi", "podidentity-mic", "mine-nmi")),
        *((name, True) for name in ("aad-pod-id-mic-role", "aad-pod-identity-nmi")),
        *((name, False) for name in ("view", "cluster-admin", "dynamic", "podidentity-nmi-x")),
    ],
)
def test_whoever_holds_another_role_in_the_cluster_is_neither_nmi_nor_mic(
    role: str, counts: bool
) -> None:
    held = holders([bound(role, account("team", "bot"), {"kind": "Group", "name": "x"})])
    assert held == ({ObjectRef("team", "bot")} if counts else set())


def test_a_binding_without_subjects_holds_nobody() -> None:
    assert holders([bound("podidentity-nmi"), {"roleRef": {"name": "podidentity-mic"}}]) == set()


@pytest.mark.parametrize(
    ("spec", "name"),
    [({}, "default"), ({"serviceAccountName": "a"}, "a"), ({"serviceAccount": "b"}, "b")],
)
def test_the_account_of_a_workload_is_that_of_its_pods(spec: dict[str, str], name: str) -> None:
    workload = {"metadata": {"namespace": "team"}, "spec": {"template": {"spec": spec}}}
    assert account_of(workload) == ObjectRef("team", name)
