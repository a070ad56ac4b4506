"""Each command runs with the rights that `podidentity rights` prints, and needs each of them.

A case is a command in one situation: it runs with its rights, and then again without each single
one, which it must name. A right without which it says less is named where that is said.

`enable`, which ends where it is refused, and has the most rights, begins without all of them: it
names one at a time, is given it, and goes on.
"""

from __future__ import annotations

import functools
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from podidentity import manifests
from podidentity.cli import admission_policies, enable, main, path_check
from podidentity.cli.azure_access import ATTACHED_TO
from podidentity.cli.checks import printing
from podidentity.cli.cluster_rights import Places, Right, Single, singles
from podidentity.cli.needed_rights import COMMANDS
from podidentity.cli.parts import NEEDING, PARTS
from podidentity.core.federation import account_name
from podidentity.core.hosts import Host
from podidentity.core.ledger import Ledger, LedgerEntry
from podidentity.core.resources import ObjectRef
from podidentity.wire import rbac
from podidentity.wire.ledgers import render_ledger
from podidentity.wire.manifests import FINALIZER
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.world.blueprint import write_kubeconfig
from tests.acceptance.planes.cilium import CRDS as CILIUM_CRDS
from tests.cli import test_azure_rights as azure_rights
from tests.cli.azure import operator
from tests.cli.conftest import PODS, Ran, nmi_pods
from tests.cli.ids import CLIENT, IDENTITY
from tests.cli.operators import holding
from tests.cli.releases import of_a_release
from tests.cli.test_adopt import LEDGERS, a_record, an_identity, grant
from tests.cli.test_local_redirect import CILIUM, DENIAL, POLICY, tell
from tests.cli.world import CRDS, CUSTOM, World, running
from tests.kubernetes.control_plane import OLDEST_FOLDER, wait_until

Run = Callable[..., Ran]
PODS_NAMESPACE = "PODS"
"""Stands for the namespace of a run."""
PERSON = "8c0ffee0-0000-4000-8000-000000000001"
LABELS = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "nmi"}
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
OWN = "identity-system"
"""A namespace of NMI's own."""
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@dataclass
class Scene:
    """What one run has for itself."""

    world: World
    ns: str
    client: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def managed(self) -> str:
        """ARM id of the managed identity that is attached to machines."""
        group = f"/subscriptions/{self.world.plan.subscription_id}/resourceGroups/shop"
        return f"{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/managed"

    def pod(self) -> None:
        """Make a pod, and one of NMI, on the same node."""
        self.world.pod(self.ns, "a", {"aadpodidbinding": "orders"})
        if self.world.get(f"{PODS}/nmi-by-hand") is None:
            self.world.pod("kube-system", "nmi-by-hand", LABELS)
            status = {"conditions": [{"type": "Ready", "status": "True"}]}
            self.world.send("PATCH", f"{PODS}/nmi-by-hand/status", {"status": status})

    def identity(self, name: str = "orders", **spec: Any) -> None:
        self.world.custom(self.ns, "azureidentities", name, {"clientID": self.client, **spec})

    def bound(self, name: str = "orders", **spec: Any) -> None:
        """Make an AzureIdentity, and its binding as `add` calls it."""
        self.identity(name, **spec)
        binding = {"azureIdentity": name, "selector": "orders"}
        self.world.custom(self.ns, "azureidentitybindings", f"{name}-binding", binding)

    def granted(self, giver: rbac.Giver = rbac.Giver.ADD, *, ends: bool = True) -> None:
        """Have a grant, which `ends` with its namespace, or is of an earlier version."""
        self.world.send("POST", f"{RBAC}/clusterroles", rbac.role(self.client))
        uid = self.world.get(f"/api/v1/namespaces/{self.ns}")["metadata"]["uid"] if ends else ""
        given = rbac.binding(self.client, rbac.Grantee(self.ns), giver, uid)
        self.world.send("POST", f"{RBAC}/clusterrolebindings", given)

    def service_account(self) -> str:
        """Make the service account of the identity; return its name."""
        name = account_name(ObjectRef(self.ns, "orders"))
        metadata = {
            "name": name,
            "labels": dict(rbac.LABELS),
            "annotations": {"aadpodidentity.k8s.io/identity": f"{self.ns}/orders"},
        }
        where = f"/namespaces/{manifests.IDENTITIES}"
        self.world.send("POST", f"/api/v1{where}/serviceaccounts", {"metadata": metadata})
        return name

    def account(self) -> None:
        """Make the service account of the identity, with NMI's right on it."""
        name, where = self.service_account(), f"/namespaces/{manifests.IDENTITIES}"
        for each in manifests.account_tokens(name, accounts=manifests.IDENTITIES):
            self.world.send("POST", f"{RBAC}{where}/{each['kind'].lower()}s", each)


def nothing(_: Scene) -> None:
    pass


def done(ran: Ran) -> bool:
    """Whether a command did all that it is there for."""
    return (ran.code, ran.err) == (0, "")


def told_all(ran: Ran) -> bool:
    """Whether a command that tells something, be it bad news, could see all of it."""
    lacks = ("the right to", "could not", "error:", "cannot be read")
    return not any(each in ran.out + ran.err for each in lacks)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command in one situation."""

    command: str
    """Its name in COMMANDS."""
    line: str
    """The arguments; {ns}, {client}, {identity} and {managed} stand for those of the run."""
    parts: tuple[str, ...] = ()
    """The parts of the work that it does here."""
    only: tuple[str, ...] = ()
    """The parts whose rights are taken away; () for all, those that it always needs included."""
    prepare: Callable[[Scene], None] = nothing
    whole: Callable[[Ran], bool] = done
    times: int = 1
    """Twice, where the first run creates and the second changes."""
    newest: bool = False
    """Whether it needs the newest API server; else it is of the oldest one that tests know."""
    nmi: str = manifests.NAMESPACE
    """NMI's namespace."""
    of: str = ""
    """Of which of these rights it is the case, for its name; "" for all."""
    shows: Callable[[Single], bool] = lambda _: True
    """Whether a right of them is taken away."""

    @property
    def rights(self) -> list[Single]:
        return _singles(self.command, self.parts, self.nmi)

    @property
    def shown(self) -> list[Single]:
        """Return the rights that this case shows to be needed."""
        rows = COMMANDS[self.command].cluster
        if self.only:
            rows = tuple(each for each in rows if set(each.parts) & set(self.only))
        mine = set(singles(rows, places(self.nmi)))
        return [each for each in self.rights if each in mine and self.shows(each)]

    def is_about(self, word: str) -> bool:
        """Return whether the command, or a part of its work, has this word in its name."""
        return any(word in each for each in (self.command, *self.parts))

    def __str__(self) -> str:
        about = ",".join(filter(None, [*(self.only or self.parts), self.of]))
        return f"{self.command}[{about}]".replace(" ", "")


@functools.cache
def _singles(command: str, parts: tuple[str, ...], nmi: str) -> list[Single]:
    return singles(COMMANDS[command].of(parts).cluster, places(nmi))


def places(nmi: str) -> Places:
    return Places(pods=(PODS_NAMESPACE,), nmi=nmi)


ADD = "add --namespace {ns} --name orders --client-id {client}"
FEDERATED = f"{ADD} --federated --tenant-id contoso.com"
DELETE = "delete --namespace {ns} --name orders"


def identities_to_explain(scene: Scene) -> None:
    secret = {"type": 1, "tenantID": "contoso.com"}
    reference = {"name": "mail", "namespace": scene.ns}
    scene.bound("mail", **secret, clientPassword=reference)
    federation = {"type": 3, "tenantID": "contoso.com", "federation": {"subject": "identity"}}
    scene.bound("orders", **federation)
    scene.account()
    body = {"metadata": {"name": "mail"}, "stringData": {"clientSecret": "s"}}
    scene.world.send("POST", f"/api/v1/namespaces/{scene.ns}/secrets", body)
    scene.bound("disk", type=0, resourceID=IDENTITY)
    scene.granted()
    scene.pod()
    reader = {"metadata": {"name": manifests.DEBUG_READER}}
    path = "/api/v1/namespaces/kube-system/serviceaccounts"
    if scene.world.get(f"{path}/{manifests.DEBUG_READER}") is None:
        scene.world.send("POST", path, reader)


def enabled(scene: Scene, **more: Any) -> None:
    """Have NMI's objects in the cluster, those that `check` reads."""
    for each in manifests.nmi(policy=True, **more):
        if scene.world.get(f"{path_of(each)}/{each['metadata']['name']}") is None:
            make(scene, each)


def to_check(scene: Scene) -> None:
    identities_to_explain(scene)
    enabled(scene)


def bundled(ran: Ran) -> bool:
    """Whether an archive was written, and nothing was refused for it."""
    return told_all(ran) and "Wrote " in ran.err and " cannot " not in ran.err


def to_check_by_node(scene: Scene) -> None:
    scene.bound("orders", type=3, tenantID="contoso.com", federation={"audience": "api://other"})
    enabled(scene, as_node=True)


def to_delete(scene: Scene) -> None:
    scene.bound(type=0)
    scene.granted()


def to_delete_with_account(scene: Scene) -> None:
    scene.bound(type=3, tenantID="contoso.com", federation={"subject": "identity"})
    scene.granted()
    scene.account()


def in_azure(scene: Scene) -> None:
    """Have the managed identity: of Azure the person is an owner here."""

    async def make(azure: AzureOperator) -> None:
        await azure.create_group("shop")
        await azure.create_identity("shop", "managed")

    operator(scene.world, make)


def to_detach(scene: Scene) -> None:
    # No run of this file has attached it: an identity that was not granted would stay.
    scene.identity(type=0, resourceID=f"{scene.managed}-{scene.client}")
    record = {ATTACHED_TO: json.dumps([scene.world.plan.scale_set_id])}
    path = f"{CUSTOM}/namespaces/{scene.ns}/azureidentities/orders"
    scene.world.send("PATCH", path, {"metadata": {"annotations": record}})


def shared_with_another_namespace(scene: Scene) -> None:
    """Have an AzureIdentity elsewhere that records a machine which has the same identity."""
    in_azure(scene)
    elsewhere = replace(scene, ns="default")
    path = f"{CUSTOM}/namespaces/default/azureidentities"
    elsewhere.identity("shared", type=0, resourceID=scene.managed)
    record = {ATTACHED_TO: json.dumps([scene.world.plan.scale_set_id])}
    scene.world.send("PATCH", f"{path}/shared", {"metadata": {"annotations": record}})


def to_leave_attached(scene: Scene) -> None:
    where = f"{CUSTOM}/namespaces/{scene.ns}/azureidentities"
    for name in ("orders", "heir"):
        scene.identity(name, type=0, resourceID=IDENTITY)
    record = {ATTACHED_TO: json.dumps([scene.world.plan.scale_set_id])}
    scene.world.send("PATCH", f"{where}/orders", {"metadata": {"annotations": record}})


EXCEPTION, AGENT = "exception", "--namespace {ns} --name agent"


def with_an_exception(scene: Scene) -> None:
    scene.world.custom(scene.ns, "azurepodidentityexceptions", "agent", {"podLabels": {"a": "b"}})


def with_an_older_grant(scene: Scene) -> None:
    scene.granted(ends=False)


def where_no_grant_is_made(scene: Scene) -> None:
    """Have a policy that refuses the grant of this namespace, the last step of `add`."""
    rules = [
        {
            "apiGroups": ["rbac.authorization.k8s.io"],
            "apiVersions": ["*"],
            "operations": ["CREATE"],
            "resources": ["clusterrolebindings"],
        }
    ]
    validations = [{"expression": f"!object.metadata.name.endsWith(':{scene.ns}')"}]
    spec = {"matchConstraints": {"resourceRules": rules}, "validations": validations}
    for kind, made in (
        ("ValidatingAdmissionPolicy", spec),
        (
            "ValidatingAdmissionPolicyBinding",
            {"policyName": scene.ns, "validationActions": ["Deny"]},
        ),
    ):
        body = {"kind": kind, "metadata": {"name": scene.ns}, "spec": made}
        plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
        scene.world.send("POST", f"{ADMISSION}/{plural.lower()}", body)
    with scene.world.control_plane.policies_seen():
        pass


CASES: tuple[Case, ...] = (
    Case(command="list", line="list -n {ns}"),
    Case(
        command="list",
        line="list -n {ns} --grants",
        parts=("grants",),
        only=("grants",),
        prepare=Scene.granted,
        whole=lambda ran: done(ran) and told_all(ran) and "namespace" in ran.out,
    ),
    Case(
        command="explain",
        line="explain pod {ns}/a",
        parts=("secrets", "account"),
        prepare=identities_to_explain,
        whole=told_all,
    ),
    Case(
        command="check",
        line="check",
        parts=("secrets", "account", "no-mic-there", "issuer"),
        prepare=to_check,
        whole=told_all,
    ),
    Case(
        command="check",
        line="check -o json",
        parts=("node-tokens", "no-mic-there", "issuer"),
        only=("node-tokens",),
        prepare=to_check_by_node,
        whole=told_all,
        newest=True,
    ),
    Case(
        command="check",
        line="check -o json --bundle {folder}/{ns}.tar.gz",
        parts=("account", "no-mic-there", "issuer", "bundle"),
        only=("bundle",),
        prepare=to_check,
        whole=bundled,
    ),
    Case(
        command="check",
        line="check -o json --probes",
        parts=("secrets", "account", "no-mic-there", "issuer", "probes"),
        only=("probes",),
        prepare=to_check,
        whole=told_all,
    ),
    Case(
        command="check NAMESPACE",
        line="check {ns}",
        parts=("secrets", "account"),
        prepare=identities_to_explain,
        whole=told_all,
    ),
    Case(command="check --pre", line="check --pre -o json", whole=told_all),
    Case(
        command="nodes",
        line="nodes --timeout 1s",
        whole=lambda ran: "Pods are served on 0 of" in ran.err,
    ),
    *(
        Case(command="exception", line=line, parts=(f"exception-{verb}",), **more)
        for verb, line, more in (
            ("add", f"{EXCEPTION} add {AGENT} --pod-labels a=b", {"whole": told_all}),
            (
                "update",
                f"{EXCEPTION} update {AGENT} --pod-labels c=d",
                {"prepare": with_an_exception, "whole": told_all},
            ),
            ("list", f"{EXCEPTION} list --namespace {{ns}}", {"prepare": with_an_exception}),
            ("delete", f"{EXCEPTION} delete {AGENT}", {"prepare": with_an_exception}),
        )
    ),
    Case(command="grant", line="grant -n {ns} --identity {client}", times=2),
    Case(command="revoke", line="revoke -n {ns} --identity {client}", prepare=Scene.granted),
    Case(
        command="add",
        line=f"{ADD} --identity-resource-id {{identity}} --no-attach",
        parts=("grant",),
        times=2,
    ),
    Case(
        command="add",
        line=f"{ADD} --identity-resource-id {{identity}} --no-attach --no-grant",
        times=2,
    ),
    Case(
        command="add",
        line=f"{ADD} --identity-resource-id {{identity}} --no-attach",
        parts=("grant", "older-grants"),
        only=("older-grants",),
        prepare=with_an_older_grant,
    ),
    Case(
        command="add",
        line=f"{ADD} --identity-resource-id {{identity}} --no-attach",
        parts=("grant", "take-back"),
        only=("take-back",),
        prepare=where_no_grant_is_made,
        whole=lambda ran: "could not" not in ran.err and ran.err.count("taken back") == 3,
    ),
    Case(command="add", line=FEDERATED, parts=("grant", "federated"), only=("federated",), times=2),
    Case(
        command="add",
        line=f"{FEDERATED} --subject identity",
        parts=("grant", "federated", "account"),
        only=("account",),
        times=2,
    ),
    Case(
        command="add",
        line="add --namespace {ns} --name orders --identity-resource-id {managed}",
        parts=("grant", "attach"),
        only=("attach",),
        prepare=in_azure,
        times=2,
    ),
    Case(
        command="add",
        line="add --namespace {ns} --name orders --identity-resource-id {managed}",
        parts=("grant", "attach", "shared"),
        only=("shared",),
        prepare=shared_with_another_namespace,
    ),
    Case(
        command="add",
        line="add -n {ns} --name orders --identity-resource-id {managed} --no-attach",
        parts=("grant", "look-up"),
        only=("look-up",),
        prepare=in_azure,
        times=2,
    ),
    Case(command="delete", line=DELETE, parts=("revoke",), prepare=to_delete),
    Case(
        command="delete",
        line=DELETE,
        parts=("revoke", "detach"),
        only=("detach",),
        prepare=to_detach,
    ),
    Case(
        command="delete",
        line=DELETE,
        parts=("revoke", "account"),
        only=("account",),
        prepare=to_delete_with_account,
    ),
    Case(
        command="delete",
        line=DELETE,
        parts=("revoke", "keep-attached"),
        only=("keep-attached",),
        prepare=to_leave_attached,
    ),
)


# ---- enable and disable: the whole of NMI comes and goes

ENABLE = "enable --no-wait"
EXTENSION = "flux-system"
EXTENSIONS = {each["metadata"]["namespace"] for each in manifests.aks_exceptions()} - {
    manifests.NAMESPACE
}
DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_KINDS = {
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Role": f"{RBAC}/namespaces/{{}}/roles",
    "RoleBinding": f"{RBAC}/namespaces/{{}}/rolebindings",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "AzurePodIdentityException": f"{CUSTOM}/namespaces/{{}}/azurepodidentityexceptions",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
    "CustomResourceDefinition": CRDS,
}


def path_of(manifest: Any) -> str:
    """Return the path of the objects of a manifest's kind."""
    return _KINDS[manifest["kind"]].format(manifest["metadata"].get("namespace"))


def make(scene: Scene, *objects: Any) -> None:
    for each in objects:
        scene.world.send("POST", path_of(each), each)


def take_out(scene: Scene, *objects: Any) -> None:
    for each in objects:
        scene.world.delete(f"{path_of(each)}/{each['metadata']['name']}")


_SECRETS = "/api/v1/namespaces/kube-system/secrets"
_PAUSES = "/api/v1/namespaces/kube-system/configmaps/podidentity-mic-pauses"


def with_a_namespace_of_its_own(scene: Scene) -> None:
    scene.world.namespace(OWN)


def without_definitions(scene: Scene) -> None:
    take_out(scene, *manifests.crds())
    wait_until(lambda: not scene.world.send("GET", CRDS)["items"])


def with_a_pod_that_stays(scene: Scene) -> None:
    scene.pod()


def with_an_extension(scene: Scene) -> None:
    if scene.world.get(f"/api/v1/namespaces/{EXTENSION}") is None:
        scene.world.namespace(EXTENSION)


def with_exceptions(scene: Scene) -> None:
    """Have all extensions, and their exceptions."""
    for name in EXTENSIONS:
        scene.world.namespace(name)
    made = manifests.aks_exceptions()
    make(scene, *(each for each in made if each["metadata"]["namespace"] in EXTENSIONS))


def with_bound_identities(scene: Scene) -> None:
    """Have two of the same permission: its role is made for one, and there for the other."""
    for name in ("orders", "again"):
        scene.bound(name, type=0)


def with_an_older_grant_and_no_nmi(scene: Scene) -> None:
    scene.granted(ends=False)


def with_a_grant_and_no_nmi(scene: Scene) -> None:
    with_a_namespace_of_its_own(scene)
    scene.granted()
    record = {"metadata": {"name": "podidentity-grants"}}
    scene.world.send("POST", f"/api/v1/namespaces/{OWN}/configmaps", record)


def with_an_account(scene: Scene) -> None:
    scene.service_account()


def with_the_taints_rights(scene: Scene) -> None:
    make(scene, *manifests.startup_taint_rights())


def with_admission_policies(scene: Scene) -> None:
    make(scene, *manifests.admission_policies())


def with_a_ledger(scene: Scene) -> None:
    """Have a ledger of MIC's, of a machine that is not there any more: Azure is an owner's here."""
    host = Host.parse(f"{scene.world.plan.scale_set_id}-gone")
    ledger = Ledger(host=host, attached={IDENTITY.lower(): LedgerEntry(IDENTITY, 0.0)})
    path = f"{CUSTOM}/namespaces/{manifests.NAMESPACE}/azureidentityledgers"
    scene.world.delete(path)
    scene.world.send("POST", path, render_ledger(ledger, manifests.NAMESPACE))


def with_an_old_record(scene: Scene) -> None:
    """Have a record as MIC of AAD Pod Identity leaves it."""
    path = f"{CUSTOM}/namespaces/{scene.ns}/azureassignedidentities"
    head = {"apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureAssignedIdentity"}
    metadata = {"name": "old", "finalizers": [FINALIZER]}
    scene.world.send("POST", path, {**head, "metadata": metadata, "spec": {"pod": "p"}})


def with_a_lost_release(scene: Scene) -> None:
    """Have a role of a Helm release whose namespace was deleted."""
    path = f"{RBAC}/clusterrolebindings"
    scene.world.delete(f"{path}/mine-nmi")
    scene.world.send("POST", path, of_a_release("mine-nmi", "gone"))


def with_version_0_1(scene: Scene) -> None:
    old = manifests.nmi()[-1]
    spec = old["spec"]["template"]["spec"]
    spec["containers"] = [{**spec["containers"][0], "name": "nmi"}]
    make(scene, old)


def not_ready(ran: Ran) -> bool:
    """Whether enable waited to its end, and could say why NMI is not ready."""
    lacks = ("right to", "was not proved")
    return "NMI is not ready on every node after 3 s." in ran.err and not any(
        each in ran.err for each in lacks
    )


# ---- Cilium leads requests to NMI

DELETE_DENIAL = Single(
    "", "ciliumclusterwidenetworkpolicies.cilium.io", "delete", "podidentity-imds"
)
_KINDS["CiliumLocalRedirectPolicy"] = f"{CILIUM}/namespaces/{{}}/ciliumlocalredirectpolicies"
_KINDS["CiliumClusterwideNetworkPolicy"] = f"{CILIUM}/ciliumclusterwidenetworkpolicies"
CILIUMS = list(yaml.safe_load_all(CILIUM_CRDS.read_text()))


def with_cilium(scene: Scene) -> None:
    scene.world.define(*CILIUMS)


def as_administrator(scene: Scene, *words: str) -> None:
    """Run a command as somebody who may do everything."""
    shell = CliRunner(env={"KUBECONFIG": str(scene.world.plan.kubeconfig)})
    ran = shell.invoke(main.podidentity, words)
    assert ran.exit_code == 0, ran.output


def with_silent_agents(scene: Scene) -> None:
    """Have NMI ready on both nodes; it has not told what leads requests to it."""
    with_cilium(scene)
    with_ready_agents(scene, "--backend=lrp")


def with_ready_agents(scene: Scene, *flags: str) -> None:
    as_administrator(scene, "enable", "--no-wait", *flags)
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    for pod in nmi_pods(scene.world):
        scene.world.send("PATCH", f"{PODS}/{pod['metadata']['name']}/status", {"status": status})
    path = f"{path_of(manifests.nmi()[-1])}/nmi"
    nodes = len(scene.world.plan.nodes)
    wait_until(lambda: scene.world.get(path)["status"].get("numberReady") == nodes)


def with_redirect(scene: Scene) -> None:
    """Have NMI, to which Cilium leads all requests; nothing denies IMDS yet."""
    with_silent_agents(scene)
    for pod in nmi_pods(scene.world):
        tell(scene.world, pod, "lrp")


def with_another_redirect(scene: Scene) -> None:
    """Have a local redirect policy that must be replaced."""
    with_redirect(scene)
    other = manifests.local_redirect()[1]
    other["spec"]["redirectBackend"]["toPorts"][0]["port"] = "2580"
    scene.world.delete(POLICY)
    make(scene, other)


def with_a_denial_too_many(scene: Scene) -> None:
    """Have IMDS denied, and a node where that cuts pods off."""
    with_redirect(scene)
    as_administrator(scene, "enable", "--no-wait", "--backend=lrp")
    assert scene.world.get(DENIAL) is not None
    tell(scene.world, nmi_pods(scene.world)[0], "nftables")


def with_the_redirects_objects(scene: Scene) -> None:
    with_cilium(scene)
    make(scene, *manifests.local_redirect())


def of_part(
    command: str, part: str, line: str, prepare: Callable[[Scene], None], **more: Any
) -> Case:
    return Case(command=command, line=line, parts=(part,), only=(part,), prepare=prepare, **more)


CASES += (
    Case(command="version", line="version", prepare=with_ready_agents, whole=told_all),
    Case(
        command="enable",
        line=ENABLE,
        times=2,
        shows=lambda right: right.resource != DEFINITIONS,
    ),
    Case(
        command="enable",
        line=ENABLE,
        prepare=without_definitions,
        times=2,
        of="definitions",
        shows=lambda right: right.resource == DEFINITIONS,
    ),
    Case(
        command="enable",
        line=f"{ENABLE} --profile aks-automatic --namespace {OWN}",
        parts=("aks-automatic", "own-namespace"),
        only=("aks-automatic",),
        prepare=with_a_namespace_of_its_own,
        times=2,
        nmi=OWN,
    ),
    of_part(
        "enable",
        "lrp",
        f"{ENABLE} --backend=lrp",
        with_another_redirect,
        times=2,
        shows=lambda right: right.verb != "watch" and right != DELETE_DENIAL,
    ),
    of_part(
        "enable",
        "lrp",
        f"{ENABLE} --backend=lrp",
        with_a_denial_too_many,
        whole=lambda ran: ran.code == 0 and "come by the node's rules" in ran.err,
        of="denial",
        shows=lambda right: right == DELETE_DENIAL,
    ),
    Case(
        command="enable",
        line="enable --backend=lrp",
        parts=("lrp", "wait"),
        only=("lrp",),
        prepare=with_silent_agents,
        whole=lambda ran: ran.code == 0 and "it is not known how pods' requests come" in ran.err,
        of="wait",
        shows=lambda right: right.verb == "watch",
    ),
    of_part("enable", "no-lrp", ENABLE, with_the_redirects_objects),
    of_part("disable", "no-lrp", "disable", with_the_redirects_objects),
    Case(
        command="check",
        line="check -o json",
        parts=("lrp", "no-mic-there"),
        only=("lrp",),
        prepare=with_redirect,
        whole=told_all,
    ),
    of_part("enable", "aks-extensions", ENABLE, with_an_extension),
    of_part(
        "enable",
        "own-namespace",
        f"{ENABLE} --namespace {OWN}",
        with_a_namespace_of_its_own,
        times=2,
        nmi=OWN,
    ),
    of_part("enable", "node-tokens", f"{ENABLE} --node-tokens", nothing, times=2),
    of_part("enable", "startup-taint", f"{ENABLE} --startup-taint", nothing, times=2),
    of_part("enable", "first-grants", ENABLE, with_bound_identities),
    of_part("enable", "account", ENABLE, with_an_account, times=2),
    of_part("enable", "no-startup-taint", ENABLE, with_the_taints_rights),
    of_part(
        "enable",
        "no-admission-policies",
        f"{ENABLE} --no-admission-policies",
        with_admission_policies,
    ),
    of_part("enable", "version-0.1", ENABLE, with_version_0_1),
    of_part("enable", "wait", "enable --timeout 3s", nothing, whole=not_ready),
    Case(
        command="disable",
        line="disable",
        shows=lambda right: right.verb != "watch",
    ),
    Case(
        command="disable",
        line="disable --timeout 3s",
        prepare=with_a_pod_that_stays,
        whole=lambda ran: "Pods of NMI are still there after 3 s" in ran.err,
        of="gone",
        shows=lambda right: right.verb == "watch",
    ),
    of_part("disable", "aks-extensions", "disable", with_exceptions),
    of_part("disable", "detach-all", "disable --detach", with_a_ledger),
    of_part("disable", "old-finalizers", "disable", with_an_old_record),
    of_part(
        "disable",
        "lost-release",
        "disable",
        with_a_lost_release,
        whole=lambda ran: ran.code == 0 and "--selector" in ran.err,
    ),
    of_part("disable", "no-startup-taint", "disable", with_the_taints_rights),
    of_part("enable", "older-grants", ENABLE, with_an_older_grant_and_no_nmi),
    of_part(
        "disable",
        "purge",
        f"disable --purge --yes --namespace {OWN}",
        with_a_grant_and_no_nmi,
        whole=lambda ran: done(ran) and ran.out.count("podidentity-grants deleted") == 1,
        nmi=OWN,
    ),
)


SIGN_IN = f"--mic-arg=--azure-client-id={CLIENT} --mic-arg=--azure-tenant-id=contoso.com"


def with_an_admin_secret(scene: Scene) -> None:
    """Have what MIC signs in to Azure with, and no MIC."""
    values = {"ClientID": CLIENT, "TenantID": "contoso.com", "ClientSecret": "s"}
    body = {"metadata": {"name": manifests.ADMIN_SECRET}, "stringData": values}
    scene.world.send("POST", _SECRETS, body)


def with_mic(scene: Scene) -> None:
    make(scene, *manifests.mic(managed_identity=True))


def with_mic_not_paused(scene: Scene) -> None:
    with_mic(scene)
    scene.world.delete(_PAUSES)


def with_the_archived_mic(scene: Scene) -> None:
    """Have MIC of AAD Pod Identity, as its manifests put it into a cluster."""
    deployment = manifests.mic()[-1]
    labels = {"component": "mic", "k8s-app": "aad-pod-id"}
    deployment["metadata"] = {"name": "mic", "namespace": "default", "labels": labels}
    spec = deployment["spec"]
    spec["selector"]["matchLabels"] = spec["template"]["metadata"]["labels"] = labels
    make(scene, deployment)
    scene.world.bind("aad-pod-id-mic-role", "default", "podidentity-mic")


CASES += (
    Case(
        command="enable",
        line=f"{ENABLE} --mic",
        parts=("mic", "mic-secret"),
        only=("mic", "mic-secret"),
        prepare=with_an_admin_secret,
        times=2,
    ),
    Case(
        command="enable",
        line=f"enable --mic {SIGN_IN} --timeout 3s",
        parts=("mic", "wait-for-mic"),
        only=("wait-for-mic",),
        whole=lambda ran: "MIC is not ready after 3 s" in ran.err,
    ),
    Case(
        command="enable",
        line=f"{ENABLE} --mic --mic-arg=--use-managed-identity",
        parts=("mic", "mic-exception"),
        only=("mic-exception",),
        times=2,
    ),
    of_part("enable", "no-mic", f"{ENABLE} --no-mic", with_mic),
    of_part("disable", "no-mic", "disable", with_mic),
    of_part("enable", "archived-mic", ENABLE, with_the_archived_mic),
    of_part("check", "mic-there", "check -o json", with_mic, whole=told_all),
    Case(command="mic", line="mic pause", prepare=with_mic_not_paused, times=2),
    of_part("mic", "host", "mic pause --host aks-nodepool1-12345678-vmss000000", with_mic),
)


def labelled_elsewhere(scene: Scene) -> None:
    """Have what has the labels of NMI and of MIC in a namespace that may be a tenant's."""
    for made in (manifests.nmi()[-1], manifests.mic()[-1]):
        made["metadata"]["namespace"] = "default"
        make(scene, made)


def in_azure_and_labelled_elsewhere(scene: Scene) -> None:
    in_azure(scene)
    labelled_elsewhere(scene)


def with_a_pod_and_labelled_elsewhere(scene: Scene) -> None:
    scene.pod()
    labelled_elsewhere(scene)


def with_mic_and_labelled_elsewhere(scene: Scene) -> None:
    with_mic_not_paused(scene)
    labelled_elsewhere(scene)


ELSEWHERE = ("elsewhere",)
CASES += (
    Case(
        command="add",
        line="add --namespace {ns} --name orders --identity-resource-id {managed} --no-grant",
        parts=("attach", *ELSEWHERE),
        only=ELSEWHERE,
        prepare=in_azure_and_labelled_elsewhere,
        whole=lambda ran: ran.code == 0 and told_all(ran),
    ),
    Case(
        command="exception",
        line=f"{EXCEPTION} list --namespace {{ns}}",
        parts=("exception-list", *ELSEWHERE),
        only=ELSEWHERE,
        prepare=labelled_elsewhere,
    ),
    Case(
        command="explain",
        line="explain pod {ns}/a",
        parts=ELSEWHERE,
        only=ELSEWHERE,
        prepare=with_a_pod_and_labelled_elsewhere,
        whole=told_all,
    ),
    Case(
        command="check NAMESPACE",
        line="check {ns}",
        parts=ELSEWHERE,
        only=ELSEWHERE,
        prepare=with_a_pod_and_labelled_elsewhere,
        whole=told_all,
    ),
    Case(
        command="check --pre",
        line="check --pre -o json",
        parts=ELSEWHERE,
        only=ELSEWHERE,
        prepare=with_the_archived_mic,
        whole=told_all,
    ),
    Case(
        command="mic",
        line="mic pause",
        parts=ELSEWHERE,
        only=ELSEWHERE,
        prepare=with_mic_and_labelled_elsewhere,
    ),
    Case(
        command="nodes",
        line="nodes --timeout 1s",
        parts=ELSEWHERE,
        only=ELSEWHERE,
        prepare=labelled_elsewhere,
        whole=lambda ran: "Pods are served on 0 of" in ran.err,
    ),
    Case(
        command="version",
        line="version",
        parts=ELSEWHERE,
        only=ELSEWHERE,
        prepare=labelled_elsewhere,
        whole=told_all,
    ),
)


def with_archived_mic_and_an_identity(scene: Scene) -> None:
    """Have what `migrate` reads, nothing of ours, and an identity that nobody may use."""
    with_the_archived_mic(scene)
    scene.bound()


def migrated(scene: Scene) -> None:
    """Have granted by `migrate apply`."""
    with_archived_mic_and_an_identity(scene)
    as_administrator(scene, "migrate", "apply", "--yes", "-n", scene.ns)


def gone_back(scene: Scene) -> None:
    """Have gone back to AAD Pod Identity, but for the permissions and the record of grants."""
    migrated(scene)
    record = {"metadata": {"name": "podidentity-grants"}}
    scene.world.send("POST", "/api/v1/namespaces/kube-system/configmaps", record)


def with_records_of_the_archived_mic(scene: Scene) -> None:
    """Have what the archived MIC has attached, and written down, before it was deleted."""
    scene.world.send(
        "POST",
        f"{CUSTOM}/namespaces/{scene.ns}/azureidentities",
        an_identity(scene.ns),
    )
    grant(scene.world, scene.ns)
    node = scene.world.plan.nodes[0].name
    scene.world.send("POST", RECORDS, a_record(scene.ns, node))


def with_an_older_ledger(scene: Scene) -> None:
    """Have a ledger in which that is not yet."""
    with_records_of_the_archived_mic(scene)
    host = Host.of_node(scene.world.plan.nodes[0].provider_id)
    scene.world.send("POST", LEDGERS, render_ledger(Ledger(host=host), "kube-system"))


RECORDS = f"{CUSTOM}/namespaces/default/azureassignedidentities"


def planned(ran: Ran) -> bool:
    """Whether the plan is there, whatever it says."""
    return not ran.err and "would be refused" in ran.out


CASES += (
    Case(
        command="migrate",
        line="migrate plan -n {ns}",
        prepare=with_archived_mic_and_an_identity,
        whole=planned,
    ),
    of_part(
        "migrate",
        "migrate-apply",
        "migrate apply --yes -n {ns}",
        with_archived_mic_and_an_identity,
    ),
    of_part(
        "migrate",
        "migrate-rollback",
        "migrate rollback --yes",
        gone_back,
        whole=lambda ran: done(ran) and "configmap/podidentity-grants deleted" in ran.out,
    ),
    of_part(
        "migrate",
        "migrate-adopt",
        "migrate adopt --yes",
        with_records_of_the_archived_mic,
        shows=lambda right: right.verb != "patch",
    ),
    of_part(
        "migrate",
        "migrate-adopt",
        "migrate adopt --yes",
        with_an_older_ledger,
        of="ledger",
        shows=lambda right: right.verb == "patch",
    ),
)


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(
        tmp_path_factory.mktemp("oldest"), definitions=manifests.crds(), programs=OLDEST_FOLDER
    ) as world:
        yield world


@pytest.fixture
def place(request: pytest.FixtureRequest, case: Case, monkeypatch: pytest.MonkeyPatch) -> World:
    found: World = request.getfixturevalue("world" if case.newest else "oldest")
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def run(
    place: World, case: Case, podidentity: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Ran]:
    """Run the case as a person with these rights alone, in a namespace of its own.

    `again`: in that of the run before, with what that has made.
    """
    monkeypatch.setattr(path_check, "SECONDS", 3.0)
    monkeypatch.setattr(printing, "COLUMNS", 1000)  # a right's words stay on one line
    monkeypatch.setattr(enable, "TOLD_SECONDS", 3.0)
    monkeypatch.setattr(admission_policies, "UNPROVED_SECONDS", 0.0)
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(place.plan, PERSON)))
    # As in a pod, for `nodes`; no other command reads it.
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    begun: list[Scene] = []

    def as_person(rights: list[Single], *, again: bool = False) -> Ran:
        if not again:
            place.put_back()
            place.namespace(manifests.IDENTITIES)
            begun.append(Scene(place, place.namespace(f"n-{uuid.uuid4().hex[:8]}")))
            case.prepare(begun[-1])
        scene = begun[-1]
        words = {
            "ns": scene.ns,
            "client": scene.client,
            "identity": IDENTITY,
            "managed": scene.managed,
            "folder": str(tmp_path),
        }
        with holding(place, PERSON, [_in(each, scene.ns) for each in rights]):
            for _ in range(case.times):
                ran = podidentity(*case.line.format(**words).split())
                if not case.whole(ran):
                    break
        return ran

    return as_person


def _in(right: Single, ns: str) -> Single:
    namespace = ns if right.namespace == PODS_NAMESPACE else right.namespace
    return Single(namespace, right.resource, right.verb, right.name)


BY_STEPS = [each for each in CASES if each.command in {"enable", "disable"}]
"""Those that go on where they were refused."""


def each_right() -> Iterator[Any]:
    for case in CASES:
        for right in [] if case in BY_STEPS else case.shown:
            where = {"": "", PODS_NAMESPACE: " in pods'"}.get(
                right.namespace, f" in {right.namespace}"
            )
            name = f" {right.name}" if right.name else ""
            yield pytest.param(
                case,
                right,
                id=f"{case}-{right.verb} {right.resource.partition('.')[0]}{name}{where}",
            )


@pytest.mark.parametrize("case", [each for each in CASES if each not in BY_STEPS], ids=str)
def test_a_command_runs_with_the_rights_that_are_printed(case: Case, run: Any) -> None:
    ran = run(case.rights)
    assert case.whole(ran), (ran.out, ran.err)


@pytest.mark.parametrize(("case", "right"), list(each_right()))
def test_a_command_names_the_right_that_it_lacks(case: Case, right: Single, run: Any) -> None:
    refuses(case, right, run([each for each in case.rights if each != right]))


@pytest.mark.timeout(900)  # two of them are sixty commands, of minutes where all is busy
@pytest.mark.parametrize("case", BY_STEPS, ids=str)
def test_what_goes_on_names_each_right_that_it_lacks_and_runs_with_those_that_are_printed(
    case: Case, run: Any
) -> None:
    lacks = list(case.shown)
    ran = run([each for each in case.rights if each not in lacks])
    while lacks:
        named = next((each for each in lacks if names(ran, each) and tells_of(ran, each)), lacks[0])
        refuses(case, named, ran)
        assert tells_of(ran, named)
        lacks.remove(named)
        ran = run([each for each in case.rights if each not in lacks], again=True)
    assert case.whole(ran), (ran.out, ran.err)


def tells_of(ran: Ran, right: Single) -> bool:
    """Whether the right's object is named, where it is of one alone: a watch is of a kind's."""
    return right.verb == "watch" or right.name in ran.err


def refuses(case: Case, right: Single, ran: Ran) -> None:
    """Fail unless a command did less than it is there for, and said which right is missing."""
    assert not case.whole(ran), (right, ran.out, ran.err)
    assert names(ran, right), (right, ran.out, ran.err)
    row = row_of(case, right)
    if not row.without:
        assert ran.code == 1
        assert "podidentity rights" in ran.err or "podidentity grant" in ran.err
    if "ends with status 1" in row.without:
        assert ran.code == 1


def row_of(case: Case, right: Single) -> Right:
    """Return the row of the table that a right is of."""
    for row in COMMANDS[case.command].of(case.parts).cluster:
        if right in singles([row], places(case.nmi)):
            return row
    raise LookupError(right)


def names(ran: Ran, right: Single) -> bool:
    """Whether a command said which right is missing: in the API server's words, or in ours."""
    text = ran.out + ran.err
    plural, _, group = right.resource.partition(".")
    if right.resource.startswith("/"):
        granted = f'NonResourceURLs:["{right.resource}"], Verbs:["{right.verb}"]'
        return granted in text or f"the right to {right.verb} {right.resource}" in text
    in_group = f'in API group "{group}"'
    return (
        (f'cannot {right.verb} resource "{plural}" {in_group}' in text)
        or bool(re.search(rf"the right to [^\n]*\b{right.verb}\b[^\n]*\b{plural}\b", text))
        or _as_granted(text, right, plural)
    )


def _as_granted(text: str, right: Single, plural: str) -> bool:
    """Whether the API server refused to let somebody grant what he does not hold."""
    lacking = [line for line in text.splitlines() if f'Resources:["{plural}"]' in line]
    return "not currently held" in text and any(f'"{right.verb}"' in each for each in lacking)


def test_roles_can_be_asked_for_of_each_command_that_needs_a_right() -> None:
    assert tuple(COMMANDS) == NEEDING


def test_every_part_of_every_command_is_shown() -> None:
    shown = {(case.command, part) for case in CASES for part in (case.only or case.parts)}
    shown |= {
        (case.command, part)
        for case in (*azure_rights.CASES, azure_rights.OF_MIC)
        for part in case.parts
    }
    assert {part for each in COMMANDS.values() for part in each.parts} <= set(PARTS)
    wanted = {(name, part) for name, each in COMMANDS.items() for part in each.parts}
    assert wanted - shown == set()
