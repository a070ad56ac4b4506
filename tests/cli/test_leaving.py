"""Whoever leaves, by whatever way: what stays is said, and one command ends it."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from podidentity import manifests
from podidentity.adapters.kube import Kube
from podidentity.cli.checks.leftovers import lost
from podidentity.cli.lost_releases import LostRelease, releases
from podidentity.core.hosts import Host
from podidentity.core.ledger import Ledger, LedgerEntry
from podidentity.wire.ledgers import ledger_name, render_ledger
from podidentity.wire.manifests import FINALIZER
from tests.cli.azure import Identity
from tests.cli.conftest import PODS, Ran, end_nmi, one_object_at_a_time, runs_refused
from tests.cli.releases import of_a_release
from tests.cli.test_enable import running, until
from tests.cli.test_mic import SIGN_IN
from tests.cli.test_needed_rights import path_of
from tests.cli.world import CRDS, CUSTOM, World

MIC = ("--mic", *SIGN_IN)
Run = Callable[..., Ran]
SYSTEM = f"{CUSTOM}/namespaces/kube-system"
LEDGERS = f"{SYSTEM}/azureidentityledgers"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
OWN = "identity-of-leaving"
CLUSTERWIDE = [
    f"{RBAC}/clusterroles",
    f"{RBAC}/clusterrolebindings",
    f"{ADMISSION}/validatingadmissionpolicies",
    f"{ADMISSION}/validatingadmissionpolicybindings",
]


def of_ours(world: World) -> set[str]:
    """Return what is left of NMI and MIC outside of namespaces, but the custom resources."""
    ours = {"labelSelector": "app.kubernetes.io/name=podidentity"}
    return {
        each["metadata"]["name"]
        for path in CLUSTERWIDE
        for each in world.send("GET", path, **ours)["items"]
        if not each["metadata"]["name"].startswith("podidentity-use-")
    }


def disabled(world: World, *flags: str) -> str:
    """Disable all, ending its pods as their kubelets do; return what is said after that."""
    with running("disable", *flags) as process:
        until(process, "deployment.apps/mic deleted")
        ours = "app.kubernetes.io/component=mic"
        for pod in world.send("GET", PODS, labelSelector=ours)["items"]:
            world.send("DELETE", f"{PODS}/{pod['metadata']['name']}", gracePeriodSeconds="0")
        said = until(process, "serviceaccount/podidentity-nmi deleted")
        end_nmi(world)
        assert process.stdout is not None
        said.append(process.stdout.read())
        assert process.wait(timeout=60) == 0
        return "\n".join(said)


def written(world: World, *identities: Identity, host: str = "") -> str:
    """Write MIC's ledger, by which it attached these; return its path."""
    entries = {each.id.lower(): LedgerEntry(each.id, 0.0) for each in identities}
    ledger = Ledger(host=Host.parse(host or world.plan.scale_set_id), attached=entries)
    world.send("POST", LEDGERS, render_ledger(ledger, "kube-system"))
    return f"{LEDGERS}/{ledger_name(ledger.host)}"


def test_disable_detaches_what_mic_attached_and_nothing_else(
    world: World, orders: Identity, podidentity: Run
) -> None:
    assert podidentity("enable", "--no-wait", *MIC).code == 0
    before = orders.attached()
    orders.attach()
    path = written(world, orders)
    said = disabled(world, "--detach")
    assert not before
    assert not orders.attached()
    assert world.get(path) is None
    assert of_ours(world) == set()
    assert "The nodes keep their rules" in said
    again = podidentity("disable", "--detach")
    assert (again.code, "Nothing that MIC attached is attached any more." in again.out) == (0, True)


def test_what_is_not_detached_is_named_with_the_command_and_that_works_later(
    world: World, orders: Identity, podidentity: Run
) -> None:
    orders.attach()
    path = written(world, orders)
    ran = podidentity("disable")
    assert f"stays attached to scale set {world.plan.scale_set}: {orders.id}" in ran.err
    assert "podidentity disable --detach detaches it" in ran.err
    assert world.get(path) is not None
    later = podidentity("disable", "--detach")
    assert f"detached from scale set {world.plan.scale_set}" in later.out
    assert not orders.attached()


def test_a_machine_that_azure_does_not_let_change_keeps_its_ledger(
    world: World, orders: Identity, podidentity: Run
) -> None:
    orders.attach()
    path = written(world, orders)
    orders.weather("arm=[{effect: denied, kind: PATCH *}]")
    ran = podidentity("disable", "--detach")
    assert (ran.code, f"Cannot detach {orders.name} from scale set" in ran.err) == (1, True)
    assert world.get(path) is not None
    orders.weather()
    assert podidentity("disable", "--detach").code == 0
    assert not orders.attached()


def test_a_machine_that_is_gone_needs_no_detaching(
    world: World, orders: Identity, podidentity: Run
) -> None:
    path = written(world, orders, host=f"{world.plan.scale_set_id}-gone")
    ran = podidentity("disable", "--detach")
    assert (ran.code, "-gone is gone" in ran.out) == (0, True)
    assert world.get(path) is None


def test_a_ledger_that_nobody_can_read_is_named_and_stays(world: World, podidentity: Run) -> None:
    head = {"apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentityLedger"}
    world.send("POST", LEDGERS, {**head, "metadata": {"name": "l"}, "spec": {"host": "no host"}})
    for line in ("disable", "disable --detach"):
        ran = podidentity(*line.split())
        assert "AzureIdentityLedger kube-system/l cannot be read" in ran.err
    assert ran.code == 1
    assert world.get(f"{LEDGERS}/l") is not None


def test_a_ledger_that_a_tenant_wrote_detaches_nothing(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    """Such as that of the kubelets, with the Azure rights of whoever takes podidentity away."""
    orders.attach()
    entries = {orders.id.lower(): LedgerEntry(orders.id, 0.0)}
    ledger = Ledger(host=Host.parse(world.plan.scale_set_id), attached=entries)
    path = LEDGERS.replace("kube-system", ns)
    world.send("POST", path, render_ledger(ledger, ns))
    for line in ("disable", "disable --detach"):
        ran = podidentity(*line.split())
        assert ran.code == 0, ran.err
        assert f"AzureIdentityLedger {ns}/{ledger_name(ledger.host)} does not count" in ran.err
        assert "stays attached" not in ran.err
    assert orders.attached()
    world.send("DELETE", f"{path}/{ledger_name(ledger.host)}")


def test_a_tenant_who_writes_his_record_all_the_time_keeps_nobody_from_leaving(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = record(world, "old", FINALIZER)
    mine = record(world, "mine", FINALIZER, namespace=ns)
    real = Kube.merge

    async def merge(kube: Kube, path: str, body: Any) -> bytes:
        if path == mine:
            world.send("PATCH", mine, {"metadata": {"annotations": {"at": uuid.uuid4().hex}}})
        return await real(kube, path, body)

    monkeypatch.setattr(Kube, "merge", merge)
    ran = podidentity("disable")
    assert ran.code == 0, ran.err
    assert "Took the finalizer of AAD Pod Identity's MIC off 1 records." in ran.out
    assert f"AzureAssignedIdentity {ns}/mine has it still" in ran.err
    assert world.get(old)["metadata"].get("finalizers") in (None, [])


def record(world: World, name: str, *finalizers: str, namespace: str = "default") -> str:
    """Make a record as the archived MIC does; return its path."""
    place = f"{CUSTOM}/namespaces/{namespace}/azureassignedidentities"
    body = {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzureAssignedIdentity",
        "metadata": {"name": name, "finalizers": list(finalizers)},
        "spec": {"pod": "p", "podNamespace": "default", "nodename": "n"},
    }
    world.send("POST", place, body)
    return f"{place}/{name}"


def test_records_of_the_archived_mic_do_not_stay_for_ever(world: World, podidentity: Run) -> None:
    paths = record(world, "old", FINALIZER), record(world, "both", "example.com/mine", FINALIZER)
    ran = podidentity("disable")
    assert "Took the finalizer of AAD Pod Identity's MIC off 2 records." in ran.out
    assert world.get(paths[1])["metadata"]["finalizers"] == ["example.com/mine"]
    world.send("PATCH", paths[1], {"metadata": {"finalizers": []}})
    for path in paths:
        world.send("DELETE", path)
        assert world.get(path) is None


def test_a_purge_takes_everything_though_old_records_have_a_finalizer(
    world: World, orders: Identity, podidentity: Run
) -> None:
    assert podidentity("enable", "--no-wait", *MIC).code == 0
    record(world, "old", FINALIZER)
    written(world, orders)
    with_purge = disabled(world, "--purge", "--yes")
    assert "azureassignedidentities.aadpodidentity.k8s.io deleted" in with_purge
    assert not any(world.get(f"{CRDS}/{each['metadata']['name']}") for each in manifests.crds())


def test_a_purge_names_what_holds_a_kind(world: World, podidentity: Run) -> None:
    held = record(world, "held", "example.com/mine")
    ran = podidentity("disable", "--purge", "--yes", "--timeout", "5s")
    assert ran.code == 1
    assert "Custom resources are still there after 5 s: a finalizer holds one. See" in ran.err
    world.send("PATCH", held, {"metadata": {"finalizers": []}})
    assert podidentity("disable", "--purge", "--yes").code == 0


def test_a_purge_says_what_nobody_will_know_any_more(
    world: World, orders: Identity, podidentity: Run
) -> None:
    written(world, orders)
    ran = podidentity("disable", "--purge", "--yes")
    assert f"stays attached to scale set {world.plan.scale_set}: {orders.id}" in ran.err
    assert f"az vmss identity remove --resource-group {world.plan.node_group} --name" in ran.err


def test_with_nmis_own_namespace_goes_nmi_and_disable_takes_the_rest(
    world: World, podidentity: Run
) -> None:
    assert podidentity("enable", "--no-wait", "--namespace", OWN, *MIC).code == 0
    world.send("DELETE", f"/api/v1/namespaces/{OWN}")
    ends = time.monotonic() + 60
    while world.get(f"/api/v1/namespaces/{OWN}") is not None:
        assert time.monotonic() < ends, "the namespace does not go"
        world.delete(f"/api/v1/namespaces/{OWN}/pods", gracePeriodSeconds="0")
        time.sleep(0.01)
    assert {manifests.ACCOUNT, "podidentity-mic", manifests.OWN_SECRETS} <= of_ours(world)
    ran = podidentity("disable", "--namespace", OWN)
    assert ran.code == 0, ran.err
    assert of_ours(world) == set()


def test_a_release_is_where_the_accounts_of_its_bindings_are_and_lost_with_their_namespace() -> (
    None
):
    others = {"app.kubernetes.io/part-of": "another"}
    by_hand = {"app.kubernetes.io/managed-by": "podidentity"}
    bindings = [
        of_a_release("mine-nmi", "gone"),
        of_a_release("mine-mic", "gone"),
        of_a_release("other", "gone", **others),
        of_a_release("enabled", "gone", **by_hand),
        of_a_release("here", "shop"),
        {**of_a_release("nobodys", "gone"), "subjects": None},
    ]
    lost_one, living = releases(bindings)
    assert lost_one == LostRelease("gone", "mine", ("mine-mic", "mine-nmi"))
    assert living == LostRelease("shop", "mine", ("here",))
    (found,) = lost(bindings, {"shop"})
    assert (found.reason, str(found.about)) == ("LostRelease", "gone/mine")
    assert "Run kubectl delete clusterrolebinding mine-mic mine-nmi." in found.mend


def test_disable_says_what_is_left_of_a_release_whose_namespace_is_gone_and_leaves_it(
    world: World, podidentity: Run
) -> None:
    path = f"{RBAC}/clusterrolebindings"
    for each in (of_a_release("mine-nmi", "gone"), of_a_release("here", "kube-system")):
        world.send("POST", path, each)
    try:
        ran = podidentity("disable")
    finally:
        for name in ("mine-nmi", "here"):
            assert world.delete(f"{path}/{name}"), "it is not for `disable` to take away"
    assert (ran.code, ran.err.count("Roles of the Helm release")) == (0, 1), ran.err
    assert "instance=mine\n" in ran.err
    assert "Helm" not in podidentity("disable").err


def named(each: Any) -> str:
    return f"{path_of(each)}/{each['metadata']['name']}"


@pytest.mark.parametrize("seed", range(3))
def test_deleted_without_any_order_nothing_is_left_and_nothing_hangs(
    world: World, podidentity: Run, seed: int
) -> None:
    """As Argo CD and `kubectl delete -f` do it, which run no hook of ours."""
    assert podidentity("enable", "--no-wait", *MIC, "--node-tokens").code == 0
    record(world, "ours")
    printed = podidentity("enable", "--dry-run", *MIC, "--node-tokens").out
    objects = list(yaml.safe_load_all(printed))
    random.Random(seed).shuffle(objects)  # noqa: S311 - an order, no secret
    for each in objects:
        answer = world.api.delete(named(each))
        assert answer.status_code in {200, 202, 404}, answer.text
    ends = time.monotonic() + 60
    while any(world.get(named(each)) for each in objects):
        assert time.monotonic() < ends
        end_nmi(world)
        time.sleep(0.01)
    assert of_ours(world) == set()


TAKEN_BACK = {
    "MIC": (manifests.mic(managed_identity=True), "--no-mic"),
    "MIC without its Deployment": (manifests.mic(managed_identity=True)[:-1], "--grants"),
    "the right to take a taint off": (manifests.startup_taint_rights(), "--forget=startup-taint"),
    "admission policies": (manifests.admission_policies(), "--no-admission-policies"),
}


@pytest.mark.parametrize(("objects", "flag"), TAKEN_BACK.values(), ids=TAKEN_BACK)
def test_wherever_enable_is_refused_while_it_takes_something_back_it_goes_on_when_run_again(
    world: World,
    podidentity: Run,
    monkeypatch: pytest.MonkeyPatch,
    objects: list[dict[str, Any]],
    flag: str,
) -> None:
    for each in objects:
        world.send("POST", path_of(each), each)
    one_object_at_a_time(monkeypatch)
    assert runs_refused(podidentity, "enable", "--no-wait", flag) == len(objects) - 1
    assert [named(each) for each in objects if world.get(named(each))] == []


def test_wherever_disable_is_refused_it_goes_on_when_run_again(
    world: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = (*MIC, "--node-tokens", "--startup-taint", "--namespace", OWN)
    assert podidentity("enable", "--no-wait", *everything).code == 0
    one_object_at_a_time(monkeypatch)
    while podidentity("disable").code:
        end_nmi(world, f"/api/v1/namespaces/{OWN}/pods")
    place = f"/apis/apps/v1/namespaces/{OWN}/daemonsets"
    assert world.get(place)["items"] == []
    assert world.get(f"/api/v1/namespaces/{OWN}/serviceaccounts/{manifests.ACCOUNT}") is None
    assert of_ours(world) == set()
