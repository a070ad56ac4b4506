"""What the archived MIC has attached becomes ours, as far as its own records say so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from podidentity import manifests
from podidentity.cli import main
from podidentity.cli.adopt import Claim, adopting, claim_of
from podidentity.core.hosts import Host
from podidentity.core.ledger import Ledger, LedgerEntry
from podidentity.core.resources import AzureIdentity, ResourceId
from podidentity.wire import rbac
from podidentity.wire.ledgers import ledger_name, parse_ledger
from podidentity.wire.manifests import FINALIZER, parse_identity
from tests.cli.conftest import Ran
from tests.cli.ids import CLIENT, IDENTITY
from tests.cli.world import CUSTOM, World
from tests.fakes import OTHER_CLIENT

Run = Callable[..., Ran]
SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool"
NODES = {"n1": f"azure://{SET}/virtualMachines/0"}
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LEDGERS = f"{CUSTOM}/namespaces/kube-system/azureidentityledgers"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def an_identity(namespace: str = "shop", resource: str = IDENTITY) -> dict[str, Any]:
    return {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzureIdentity",
        "metadata": {"name": "orders", "namespace": namespace},
        "spec": {"type": 0, "resourceID": resource, "clientID": CLIENT},
    }


def a_record(namespace: str = "shop", node: str = "n1") -> dict[str, Any]:
    """Return an AzureAssignedIdentity as the archived MIC writes it."""
    binding = {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzureIdentityBinding",
        "metadata": {"name": "orders", "namespace": namespace},
        "spec": {"azureIdentity": "orders", "selector": "orders"},
    }
    return {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzureAssignedIdentity",
        "metadata": {
            "name": f"web-{namespace}-orders",
            "namespace": "default",
            "labels": {"nodename": node},
            "finalizers": [FINALIZER],
        },
        "spec": {
            "azureIdentityRef": an_identity(namespace),
            "azureBindingRef": binding,
            "pod": "web",
            "podNamespace": namespace,
            "nodename": node,
            "replicas": 1,
        },
        "status": {"status": "Assigned", "availableReplicas": 1},
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return a record with one field changed, or taken out by None."""
    found = a_record()
    *where, last = path.split(".")
    at = found
    for each in where:
        at = at[each]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return found


def claimed(found: dict[str, Any], *identities: dict[str, Any]) -> Claim:
    parsed = [parse_identity(json.dumps(each).encode()) for each in identities or (an_identity(),)]
    known = {each.ref: each for each in parsed if isinstance(each, AzureIdentity)}
    return claim_of(found, known, NODES, lambda *asked: asked == ("shop", CLIENT), {})


def test_a_record_of_an_identity_that_was_not_granted_to_its_pods_namespace_does_not_count() -> (
    None
):
    """A tenant writes the record, the pod, and an AzureIdentity of the kubelets' ARM id."""
    found = an_identity()
    found["spec"]["clientID"] = OTHER_CLIENT
    assert claimed(a_record(), found).why == f"namespace shop was not granted {OTHER_CLIENT}"
    elsewhere = a_record("elsewhere")
    assert "elsewhere was not granted" in claimed(elsewhere, an_identity("elsewhere")).why


@pytest.mark.parametrize("state", ["Assigned", ""], ids=["today's", "of old releases"])
def test_a_record_of_the_archived_mic_says_what_it_has_attached(state: str) -> None:
    found = claimed(changed("status.status", state))
    assert found.why == ""
    assert found.host == Host.parse(SET)
    assert found.identity == ResourceId.parse(IDENTITY)
    assert found.client_id == CLIENT


OTHER = IDENTITY.replace("userAssignedIdentities/", "userAssignedIdentities/x")


@pytest.mark.parametrize("spelling", ["AzureIdentityRef", "azureidentityref"])
def test_a_record_in_the_spelling_of_old_releases_says_so_as_well(spelling: str) -> None:
    found = a_record()
    found["spec"][spelling] = found["spec"].pop("azureIdentityRef")
    assert claimed(found).identity == ResourceId.parse(IDENTITY)


UNREADABLE = {"metadata": {"name": "orders", "namespace": "shop", "annotations": "none"}}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (changed("metadata.finalizers", None), "no finalizer of the archived MIC"),
        (changed("metadata.finalizers", ["another.example/x"]), "no finalizer"),
        (changed("status.status", "Created"), "it says Created"),
        (changed("status.status", "Unassigned"), "it says Unassigned"),
        (changed("metadata.name", "web"), "its name or its label"),
        (changed("metadata.labels", {"nodename": "n2"}), "its name or its label"),
        (changed("metadata.labels", None), "its name or its label"),
        (changed("spec.pod", None), "spec.pod"),
        (changed("spec.azureIdentityRef", an_identity(resource=OTHER)), "names another identity"),
        (changed("spec.azureIdentityRef", an_identity("elsewhere")), "no AzureIdentity elsewhere"),
        (changed("spec.azureIdentityRef", UNREADABLE), "its copy of the AzureIdentity"),
        (a_record(node="gone"), "its node is no machine of Azure, or is gone"),
    ],
)
def test_a_record_that_is_not_as_that_writes_it_does_not_count(
    found: dict[str, Any], why: str
) -> None:
    """Else whoever may write records could have an identity of others detached."""
    claim = claimed(found)
    assert why in claim.why
    assert (claim.host, claim.identity) == (None, None)
    assert f"does not count: {claim.why}" in str(claim)


def test_an_identity_that_was_changed_since_does_not_count() -> None:
    assert "names another identity today" in claimed(a_record(), an_identity(resource=OTHER)).why
    principal = an_identity()
    principal["spec"] = {"type": 1, "clientID": CLIENT, "tenantID": "contoso.com"}
    principal["spec"]["clientPassword"] = {"name": "s"}
    assert "with a resource id" in claimed(a_record(), principal).why


def test_what_a_ledger_speaks_of_already_stays_as_it_is() -> None:
    claim = claimed(a_record())
    identity = ResourceId.parse(IDENTITY)
    entry = LedgerEntry(identity.spelling, 1.0)
    for part in ("attached", "attaching", "detaching"):
        before = Ledger(host=Host.parse(SET), **{part: {identity.folded: entry}})
        assert adopting(before, [claim], 2.0) == before
    empty = Ledger(host=Host.parse(SET))
    after = adopting(empty, [claim, claim], 2.0)
    assert after.attached == {identity.folded: LedgerEntry(identity.spelling, 2.0, CLIENT)}


def a_pod(ns: str, name: str, node: str, *, host_network: bool) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": ns,
            "labels": {"aadpodidbinding": "orders", "tier": "agent"},
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": host_network,
            "containers": [{"name": "c", "image": "example/agent"}],
        },
    }


def grant(world: World, ns: str) -> None:
    """Have the namespace granted the identity, as by `podidentity migrate apply`."""
    if world.get(f"{RBAC}/clusterroles/{rbac.role_name(CLIENT)}") is None:
        world.send("POST", f"{RBAC}/clusterroles", rbac.role(CLIENT))
    given = rbac.binding(CLIENT, rbac.Grantee(ns), rbac.Giver.MIGRATE)
    world.send("POST", f"{RBAC}/clusterrolebindings", given)


def take_grant(world: World, ns: str) -> None:
    name = rbac.binding_name(CLIENT, rbac.Grantee(ns))
    world.send("DELETE", f"{RBAC}/clusterrolebindings/{name}")
    world.send("DELETE", f"{RBAC}/clusterroles/{rbac.role_name(CLIENT)}")


@pytest.fixture
def attached(world: World, ns: str) -> Iterator[str]:
    """A cluster whose archived MIC has attached an identity to the machines, and has ended."""
    node = world.plan.nodes[0].name
    world.send("POST", f"{CUSTOM}/namespaces/{ns}/azureidentities", an_identity(ns))
    grant(world, ns)
    path = f"{CUSTOM}/namespaces/default/azureassignedidentities"
    world.send("POST", path, a_record(ns, node))
    yield ns
    name = f"{path}/web-{ns}-orders"
    world.send("PATCH", name, {"metadata": {"finalizers": None}})
    world.send("DELETE", name)
    take_grant(world, ns)
    for each in world.send("GET", LEDGERS)["items"]:
        world.send("DELETE", f"{LEDGERS}/{each['metadata']['name']}")


def ledger(world: World) -> Ledger:
    path = f"{LEDGERS}/{ledger_name(Host.of_node(world.plan.nodes[0].provider_id))}"
    return parse_ledger(json.dumps(world.send("GET", path)).encode())


def test_it_writes_the_ledger_of_the_host_and_may_be_run_again(
    world: World, attached: str, podidentity: Run
) -> None:
    ran = podidentity("migrate", "adopt", "--yes")
    assert (ran.code, ran.err) == (0, "")
    assert f"by AzureAssignedIdentity default/web-{attached}-orders" in ran.out
    assert set(ledger(world).attached) == {IDENTITY.lower()}
    before = world.send("GET", LEDGERS)["items"]
    assert podidentity("migrate", "adopt", "--yes").code == 0
    assert world.send("GET", LEDGERS)["items"] == before


@pytest.mark.parametrize("how", ["of the node's network", "excepted"])
def test_what_a_pod_needs_that_asks_imds_itself_is_left_out(
    world: World, attached: str, podidentity: Run, how: str
) -> None:
    """MIC would detach it, of an excepted pod while that is replaced; also where others need it."""
    place, node = f"{CUSTOM}/namespaces/{attached}", world.plan.nodes[0].name
    bound = a_record(attached)["spec"]["azureBindingRef"]
    world.send("POST", f"{place}/azureidentitybindings", bound)
    excepted = {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzurePodIdentityException",
        "metadata": {"name": "agents", "namespace": attached},
        "spec": {"podLabels": {"tier": "agent"}},
    }
    if how == "excepted":
        world.send("POST", f"{place}/azurepodidentityexceptions", excepted)
    agent = a_pod(attached, "agent", node, host_network=how != "excepted")
    world.send("POST", f"/api/v1/namespaces/{attached}/pods", agent)
    try:
        ran = podidentity("migrate", "adopt", "--yes")
    finally:
        path = f"/api/v1/namespaces/{attached}/pods/agent"
        world.send("DELETE", path, gracePeriodSeconds="0")
    assert ran.code == 0
    assert f"does not count: pod {attached}/agent asks IMDS itself for {IDENTITY} on " in ran.out
    assert "so it stays attached" in ran.out
    assert world.send("GET", LEDGERS)["items"] == []
    assert podidentity("migrate", "adopt", "--yes").code == 0
    assert set(ledger(world).attached) == {IDENTITY.lower()}


def test_what_a_yes_is_about_stands_before_the_question_whatever_else_a_tenant_wrote(
    world: World, attached: str, podidentity: Run
) -> None:
    other = a_record(attached, world.plan.nodes[0].name)
    other["metadata"] |= {"name": "zzz", "finalizers": []}
    path = f"{CUSTOM}/namespaces/default/azureassignedidentities"
    world.send("POST", path, other)
    ran = podidentity("migrate", "adopt", "--yes")
    world.send("DELETE", f"{path}/zzz")
    assert 0 <= ran.out.find("default/zzz does not count") < ran.out.find(f"{IDENTITY} on ")


def test_nothing_is_written_unless_somebody_says_yes(world: World, attached: str) -> None:
    shell = CliRunner(env=dict(world.environment))
    ran = shell.invoke(main.podidentity, ["migrate", "adopt"], input="n\n")
    assert f"web-{attached}-orders" in ran.output
    assert ran.exit_code != 0
    assert world.send("GET", LEDGERS)["items"] == []


@pytest.mark.parametrize("whose", ["archived", "ours"])
def test_while_a_mic_works_nothing_is_written(
    world: World, attached: str, podidentity: Run, whose: str
) -> None:
    assert attached
    made = manifests.mic()[-1]
    made["metadata"] |= {"name": "mic", "namespace": "default"}
    if whose == "archived":
        labels = {"component": "mic", "k8s-app": "aad-pod-id"}
        made["metadata"]["labels"] = labels
        made["spec"]["selector"]["matchLabels"] = labels
        made["spec"]["template"]["metadata"]["labels"] = labels
    world.send("POST", DEPLOYMENTS, made)
    right = world.bind("aad-pod-id-mic-role", "default", "podidentity-mic")
    try:
        ran = podidentity("migrate", "adopt", "--yes")
        assert ran.code == 1
        assert "kubectl scale -n default deployment/mic --replicas=0" in ran.err
        world.send("PATCH", f"{DEPLOYMENTS}/mic", {"spec": {"replicas": 0}})
        world.send("PATCH", f"{DEPLOYMENTS}/mic/status", {"status": {"replicas": 0}})
        assert podidentity("migrate", "adopt", "--yes").code == 0
    finally:
        world.send("DELETE", f"{DEPLOYMENTS}/mic")
        world.send("DELETE", right)


def test_a_ledger_that_cannot_be_read_is_said(
    world: World, attached: str, podidentity: Run
) -> None:
    assert attached
    podidentity("migrate", "adopt", "--yes")
    (found,) = world.send("GET", LEDGERS)["items"]
    path = f"{LEDGERS}/{found['metadata']['name']}"
    twice = found["spec"]["attached"]
    world.send("PATCH", path, {"spec": {"attaching": twice}})
    ran = podidentity("migrate", "adopt", "--yes")
    assert ran.code == 1
    assert "cannot be read: it has an identity twice. Delete it" in ran.err


def test_where_no_record_counts_that_is_said(world: World, podidentity: Run) -> None:
    assert world
    ran = podidentity("migrate", "adopt")
    assert (ran.code, ran.out) == (0, "No record says what the archived MIC has attached.\n")
