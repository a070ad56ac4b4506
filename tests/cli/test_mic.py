"""`podidentity mic`: what its flags come to, and the pause that people write."""

from __future__ import annotations

import json
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from podidentity import manifests
from podidentity.cli import main
from podidentity.cli.admin_secret import managed
from podidentity.cli.azure_access import ATTACHED_TO
from podidentity.cli.checks.mic import mic_not_ready, mic_paused, mic_warnings, not_attached
from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.controller import (
    chosen_of,
    flags_of_nmi,
    lacks_sign_in,
    says_how_it_signs_in,
)
from podidentity.cli.programs import AgentPlan
from podidentity.core.decision import Authorization
from podidentity.core.resources import ClientId, ObjectRef, Pod
from podidentity.core.secrets import Secret
from podidentity.settings import MicSettings
from podidentity.wire.events import COMPONENT_OF_MIC, Happening, render_event
from podidentity.wire.pauses import Pauses, parse_pauses
from tests.cli.conftest import DAEMON_SET, Ran, settled_daemon_set
from tests.cli.ids import IDENTITY
from tests.cli.world import CUSTOM, World
from tests.fakes import CLIENT, OTHER_CLIENT

Run = Callable[..., Ran]
PAUSES = "/api/v1/namespaces/kube-system/configmaps/podidentity-mic-pauses"
OLD_MANIFEST = [
    "--cloudconfig=/etc/kubernetes/azure.json",
    "--logtostderr",
    "--v=4",
    "--kubeconfig=/k",
    "--forceNamespaced",
    "--syncRetryDuration=3h0m0s",
    "--leader-election-instance=mic-1",
    "--leader-election-namespace=kube-system",
    "--leader-election-name=lock",
    "--leader-election-duration=20s",
    "--http-probe-port=8081",
    "--prometheus-port=8889",
    "--enableProfile=true",
    "--enableScaleFeatures=true",
    "--createDeleteBatch=30",
    "--clientQps=5",
    f"--immutable-user-msis={CLIENT.upper()},{OTHER_CLIENT}",
    "--config-map-name=c",
    "--type-upgrade-status-key=k",
    "--enable-type-upgrade=false",
    "--update-user-msi-max-retry=2",
    "--update-user-msi-retry-interval=1s",
    "--identity-assignment-reconcile-interval=1m30s",
    "--log-format=json",
    "--custom-user-agent=me",
]


def settings(monkeypatch: pytest.MonkeyPatch, *flags: str, **variables: str) -> MicSettings:
    monkeypatch.setenv("MIC_POD_NAMESPACE", "kube-system")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    plan = main.read(["mic", *flags])
    assert isinstance(plan, AgentPlan)
    assert plan.program == "mic"
    found = pickle.loads(plan.worker)  # noqa: S301 - made here
    assert isinstance(found, MicSettings)
    return found


def test_every_flag_of_the_archived_controller_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, *OLD_MANIFEST)
    assert found.cloud_config == "/etc/kubernetes/azure.json"
    assert (found.lease_holder, found.lease_namespace, found.lease_name, found.lease_duration) == (
        "mic-1",
        "kube-system",
        "lock",
        20.0,
    )
    assert (found.probe_port, found.prometheus_port, found.writes_at_once) == (8081, 8889, 30)
    assert found.immutable == {ClientId(CLIENT), ClientId(OTHER_CLIENT)}
    assert found.reconcile_interval == 90.0
    assert (found.log_format, found.verbose, found.custom_user_agent) == ("json", True, "me")


def test_the_defaults_are_the_archived_controllers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch)
    assert found == MicSettings(own_namespace="kube-system")
    assert (found.lease_namespace, found.lease_name) == ("default", "aad-pod-identity-mic")
    assert (found.lease_duration, found.probe_port, found.prometheus_port) == (15.0, 8080, 8888)
    assert (found.assign, found.authorization) == ("pods", Authorization.RBAC)


def test_its_variables_count(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch,
        CLOUD="AzureChinaCloud",
        TENANT_ID="t",
        CLIENT_ID="c",
        USE_MSI="True",
        USER_ASSIGNED_MSI_CLIENT_ID="u",
        FORCENAMESPACED="true",
        AZURE_ENVIRONMENT_FILEPATH="/e",
        SUBSCRIPTION_ID="s",
        VM_TYPE="vmss",
    )
    assert (found.cloud, found.tenant, found.client_id) == ("AzureChinaCloud", "t", "c")
    assert (found.managed_identity, found.managed_client_id) == (True, "u")
    assert (found.force_namespaced, found.environment_file) == (True, "/e")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--leader-election-duration=1s"], "3 at least"),
        (["--leader-election-duration=3.5s"], "whole seconds"),
        (["--detach-grace=soon"], "is not a duration"),
        (["--immutable-user-msis=mine"], "must be a GUID"),
        (["--assign=some"], "is not one of"),
        (
            ["--attach-for-node-network", "--authorization=observe"],
            "needs --authorization=rbac",
        ),
    ],
    ids=["short", "half", "no duration", "no id", "no choice", "no permission"],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], says: str
) -> None:
    monkeypatch.setenv("MIC_POD_NAMESPACE", "kube-system")
    ran = CliRunner().invoke(main.podidentity, ["mic", *flags])
    assert ran.exit_code == 2
    assert says in ran.output


def test_without_its_namespace_it_ends_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIC_POD_NAMESPACE", raising=False)
    ran = CliRunner().invoke(main.podidentity, ["mic"])
    assert (ran.exit_code, "MIC_POD_NAMESPACE" in ran.output) == (2, True)


def test_nmi_waits_for_records_only_where_mic_makes_them() -> None:
    assert flags_of_nmi(chosen_of(())) == ["--operation-mode=standard"]
    assert flags_of_nmi(chosen_of(("--assign=all-hosts",))) == []


def paused(world: World) -> Pauses:
    return parse_pauses(world.get(PAUSES))


def test_mic_is_paused_for_all_or_for_one_host_and_goes_on(world: World, podidentity: Run) -> None:
    host = world.plan.scale_set_id.lower()
    where = ("--namespace", "kube-system")
    one = podidentity("mic", "pause", "--host", world.plan.nodes[0].name, *where)
    assert (one.code, host in one.out) == (0, True)
    assert paused(world) == Pauses(hosts=frozenset({host}))
    assert podidentity("mic", "pause", *where).code == 0
    assert paused(world) == Pauses(all=True, hosts=frozenset({host}))
    refused = podidentity("mic", "resume", "--host", host, *where)
    assert (refused.code, "without --host" in refused.err) == (1, True)
    assert podidentity("mic", "resume", *where).code == 0
    assert paused(world) == Pauses()
    podidentity("mic", "pause", "--host", world.plan.scale_set_id, *where)
    podidentity("mic", "resume", "--host", world.plan.nodes[0].name, *where)
    assert paused(world) == Pauses()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pause", "--host", "nobody", "--namespace", "kube-system"), "There is no node nobody"),
        (("pause", "--host", "/x", "--namespace", "kube-system"), "names no machine"),
        (("pause",), "MIC does not run in this cluster"),
    ],
    ids=["no node", "no host", "no MIC"],
)
@pytest.mark.usefixtures("world")
def test_what_cannot_be_paused_is_told(
    podidentity: Run, arguments: tuple[str, ...], says: str
) -> None:
    ran = podidentity("mic", *arguments)
    assert (ran.code, says in ran.err) == (1, True)


# What `check` says of it


def condition(reason: str, status: str = "False") -> dict[str, Any]:
    told = {"type": "Ready", "status": status, "reason": reason, "message": "the identity is gone"}
    meta = {"name": "orders", "namespace": "shop"}
    return {"metadata": meta, "status": {"conditions": [{"type": "Other"}, told]}}


@pytest.mark.parametrize("reason", ["Denied", "Forbidden", "RefusedByAzure"])
def test_an_identity_that_azure_refuses_is_found_by_its_condition(reason: str) -> None:
    (found,) = not_attached(condition(reason))
    assert (found.reason, found.what) == (reason, "The identity is gone.")


@pytest.mark.parametrize(
    "identity",
    [condition("Malformed"), condition("Usable", "True"), {"metadata": {}}, {"status": None}],
    ids=["the rules say so", "well", "untold", "empty"],
)
def test_what_the_rules_say_is_found_by_the_rules(identity: dict[str, Any]) -> None:
    assert list(not_attached(identity)) == []


def test_a_mic_that_is_paused_or_not_ready_is_found_with_the_next_step() -> None:
    where = ObjectRef("kube-system", "mic")
    paused = mic_paused(where, Pauses(all=True))
    assert (paused.reason, "mic resume" in paused.mend) == ("ControllerPaused", True)
    ours: dict[str, Any] = {"metadata": {"name": "mic", "namespace": "kube-system"}}
    unready = mic_not_ready(ours, ["n1: ErrImagePull"])
    assert (unready.reason, "n1: ErrImagePull" in unready.what) == ("ControllerNotReady", True)
    assert "podidentity enable --no-mic goes back" in unready.mend
    ours["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
    ours["metadata"]["annotations"] = {"meta.helm.sh/release-name": "identity"}
    assert "helm rollback identity --namespace kube-system" in mic_not_ready(ours, []).mend


@pytest.mark.parametrize(
    ("flags", "secret", "lacks"),
    [
        ([], "", True),
        (["--azure-client-id=11111111-1111-1111-1111-111111111111"], "", False),
        (["--use-managed-identity"], "", False),
        ([], "aadpodidentity-admin-secret", False),
        ([], "another", False),
    ],
)
def test_a_mic_lacks_a_sign_in_where_neither_a_flag_nor_a_secret_has_one(
    world: World, ns: str, flags: list[str], secret: str, lacks: bool
) -> None:
    container: dict[str, Any] = {"name": "mic", "args": ["mic", *flags]}
    if secret:
        world.send("POST", f"/api/v1/namespaces/{ns}/secrets", {"metadata": {"name": secret}})
        source = {"secretKeyRef": {"name": secret, "key": "ClientID"}}
        container["env"] = [{"name": "CLIENT_ID", "valueFrom": source}]
    template = {"spec": {"containers": [container]}}
    found = {"metadata": {"namespace": ns, "name": "mic"}, "spec": {"template": template}}
    told = on_cluster(
        ClusterTarget(kubeconfig=str(world.plan.kubeconfig), context=None),
        lambda kube: lacks_sign_in(kube, found),
    )
    assert told is lacks


NOW = 1_700_000_000.0
MIC_PODS = [{"metadata": {"namespace": "kube-system", "name": "mic-0"}}]


def event(reason: str, at: float, *, pod: str = "mic-0", what: str = "writes") -> dict[str, Any]:
    own = Pod(ref=ObjectRef("kube-system", pod), uid="u", labels={})
    note = f"Azure throttles MIC: {what}; MIC goes on by itself"
    happening = Happening(about=own, reason=reason, note=note, first=at, last=at, count=1)
    return dict(render_event(happening, pod, COMPONENT_OF_MIC))


def test_what_keeps_mic_from_its_work_in_azure_is_found_by_its_newest_event() -> None:
    events = [event("AzureThrottles", NOW - 20, what="reads"), event("AzureThrottles", NOW - 80)]
    (found,) = mic_warnings(MIC_PODS, events, NOW)
    assert (found.reason, found.about.name) == ("AzureThrottles", "mic-0")
    assert found.what == "Azure throttles MIC: reads."
    assert found.mend == "MIC goes on by itself."


@pytest.mark.parametrize(
    "told",
    [
        event("AzureThrottles", NOW - 130),
        event("AzureThrottles", NOW, pod="gone"),
        event("BackOff", NOW),
        {**event("AzureThrottles", NOW), "source": {"component": "somebody"}},
    ],
    ids=["over", "of a pod that has gone", "of another reason", "of somebody else"],
)
def test_other_events_are_no_trouble_of_mic(told: dict[str, Any]) -> None:
    assert list(mic_warnings(MIC_PODS, [told], NOW)) == []


# Where a MIC runs, nobody else changes machines

DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"


@pytest.fixture(params=["ours", "archived"])
def controlled(world: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """The world with a MIC: ours, or that of AAD Pod Identity as its manifests have it."""
    deployment, namespace = manifests.mic()[-1], "kube-system"
    if request.param == "archived":
        namespace, labels = "default", {"component": "mic", "k8s-app": "aad-pod-id"}
        deployment["metadata"] = {"name": "mic", "namespace": namespace, "labels": labels}
        deployment["spec"]["selector"]["matchLabels"] = labels
        deployment["spec"]["template"]["metadata"]["labels"] = labels
    world.send("POST", DEPLOYMENTS.format(namespace), deployment)
    right = world.bind("aad-pod-id-mic-role", "default", "podidentity-mic")
    yield world
    world.send("DELETE", right)
    world.send("DELETE", f"{DEPLOYMENTS.format(namespace)}/mic")


def test_add_and_delete_leave_machines_alone_where_a_mic_runs(
    controlled: World, podidentity: Run
) -> None:
    namespace = controlled.namespace(f"n-{uuid.uuid4().hex[:8]}")
    where = ("--namespace", namespace, "--name", "orders")
    added = podidentity("add", *where, "--identity-resource-id", IDENTITY, "--client-id", CLIENT)
    assert added.code == 0, added.err
    assert "attaches it to the machines of the pods that need it" in added.out
    path = f"{CUSTOM}/namespaces/{namespace}/azureidentities/orders"
    hosts = [controlled.plan.scale_set_id, f"{controlled.plan.scale_set_id}-2"]
    record = {ATTACHED_TO: json.dumps(hosts)}
    controlled.send("PATCH", path, {"metadata": {"annotations": record}})
    deleted = podidentity("delete", *where)
    assert deleted.code == 0, deleted.err
    one = controlled.plan.scale_set
    for line, name in zip(deleted.err.splitlines(), (one, f"{one}-2"), strict=True):
        assert line.startswith(f"stays attached to scale set {name}: ")
        assert "alone changes machines, and detaches what it attached itself. " in line
        assert f"az vmss identity remove --resource-group {controlled.plan.node_group}" in line
    assert "detach" not in deleted.out
    assert controlled.get(path) is None


# `enable`


def printed(podidentity: Run, *flags: str) -> list[dict[str, Any]]:
    ran = podidentity("enable", "--dry-run", "-o", "json", *flags)
    assert ran.code == 0, ran.err
    found: list[dict[str, Any]] = json.loads(ran.out)["items"]
    return found


def kinds(objects: list[dict[str, Any]], name: str) -> set[str]:
    return {each["kind"] for each in objects if each["metadata"]["name"] == name}


def flags_of_serve(objects: list[dict[str, Any]]) -> list[str]:
    (nmi,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == NMI)
    args: list[str] = nmi["spec"]["template"]["spec"]["containers"][0]["args"]
    return args


NMI = ("DaemonSet", "nmi")


def test_enable_with_mic_brings_mic_and_has_nmi_wait_for_it(podidentity: Run) -> None:
    found = printed(podidentity, "--mic", "--mic-arg=--detach-grace=0s")
    assert kinds(found, "podidentity-mic") == {
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "PodDisruptionBudget",
    }
    (mic,) = (each for each in found if each["kind"] == "Deployment")
    (container,) = mic["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["mic", "--detach-grace=0s"]
    assert "--operation-mode=standard" in flags_of_serve(found)
    assert "--operation-mode=managed" not in flags_of_serve(found)


def test_with_a_managed_identity_mics_pods_are_excepted(podidentity: Run) -> None:
    found = printed(podidentity, "--mic-arg=--use-managed-identity")
    assert "AzurePodIdentityException" in kinds(found, "podidentity-mic")


def test_the_cloud_providers_file_is_mounted_for_root_alone(podidentity: Run) -> None:
    """It may name a managed identity, so MIC's pods are excepted as well."""
    path = "/etc/kubernetes/azure.json"
    found = printed(podidentity, f"--mic-arg=--cloudconfig={path}")
    assert "AzurePodIdentityException" in kinds(found, "podidentity-mic")
    (mic,) = (each for each in found if each["kind"] == "Deployment")
    pod = mic["spec"]["template"]["spec"]
    assert pod["volumes"][-1]["hostPath"] == {"path": path, "type": "File"}
    (container,) = pod["containers"]
    mount = {"name": "cloud-config", "mountPath": path, "readOnly": True}
    assert container["volumeMounts"][-1] == mount
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsNonRoot"]) == (
        0,
        False,
    )
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (usual,) = (each for each in printed(podidentity, "--mic") if each["kind"] == "Deployment")
    assert usual["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


def test_in_managed_mode_nmi_waits_for_nobody(podidentity: Run) -> None:
    found = printed(podidentity, "--mic-arg=--assign=all-hosts")
    assert "--operation-mode=standard" not in flags_of_serve(found)


def test_without_it_there_is_no_mic(podidentity: Run) -> None:
    found = printed(podidentity)
    assert not any(each["kind"] == "Deployment" for each in found)


def test_a_flag_that_mic_would_not_take_is_refused_before_anything_is_made(
    podidentity: Run,
) -> None:
    ran = podidentity("enable", "--mic-arg=--no-such-flag")
    assert (ran.code, "--no-such-flag" in ran.err) == (2, True)


def test_enable_keeps_mic_and_its_flags_until_it_is_told_otherwise(
    world: World, podidentity: Run
) -> None:
    podidentity("enable", "--no-wait", *SIGN_IN, "--mic-arg=--detach-grace=1m")
    podidentity("enable", "--no-wait")
    path = f"{DEPLOYMENTS.format('kube-system')}/mic"
    (container,) = world.get(path)["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "--detach-grace=1m"
    assert len(container["args"]) == 4
    gone = podidentity("enable", "--no-wait", "--no-mic")
    assert "its ledgers (AzureIdentityLedgers)" in gone.out
    assert world.get(path) is None
    podidentity("disable", "--timeout=1s")


SIGN_IN = (f"--mic-arg=--azure-client-id={CLIENT}", "--mic-arg=--azure-tenant-id=contoso.com")


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ((), "MIC has no credential for Azure"),
        (("--mic-arg=--detach-grace=0s",), "MIC has no credential for Azure"),
        (SIGN_IN[:1], "The tenant to sign in to Azure in"),
        (("--mic-arg=--azure-client-id=me", SIGN_IN[1]), "must be a GUID, not 'me'"),
    ],
)
def test_enable_brings_no_mic_that_could_not_sign_in_and_changes_nothing(
    world: World, podidentity: Run, flags: tuple[str, ...], why: str
) -> None:
    assert podidentity("enable", "--no-wait").code == 0
    before = settled_daemon_set(world)
    ran = podidentity("enable", "--no-wait", "--mic", *flags)
    assert (ran.code, ran.out) == (1, "")
    assert why in ran.err
    assert "Nothing was changed" in ran.err
    assert "--mic-arg=--use-managed-identity" in ran.err
    assert world.get(DAEMON_SET) == before
    assert world.get(f"{DEPLOYMENTS.format('kube-system')}/mic") is None


def mode(world: World) -> str:
    """Return NMI's flag of its mode."""
    spec = world.get(DAEMON_SET)["spec"]["template"]["spec"]
    (flag,) = (
        each for each in spec["containers"][0]["args"] if each.startswith("--operation-mode")
    )
    return str(flag)


def test_nmi_changes_to_standard_mode_when_mic_is_ready_and_not_before(
    world: World, podidentity: Run
) -> None:
    assert podidentity("enable", "--no-wait").code == 0
    ran = podidentity("enable", "--mic", *SIGN_IN, "--timeout=1s")
    assert ran.code == 1
    assert "MIC is not ready after 1 s. NMI stays in managed mode." in ran.err
    assert "To go back: podidentity enable --no-mic." in ran.err
    assert mode(world) == "--operation-mode=managed"
    ran = podidentity("enable", "--no-wait")
    assert (ran.code, mode(world)) == (0, "--operation-mode=managed")
    assert "NMI stays in managed mode, for MIC is not ready." in ran.err
    path = f"{DEPLOYMENTS.format('kube-system')}/mic"
    pods = "/api/v1/namespaces/kube-system/pods"
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    for pod in world.send("GET", pods, labelSelector="app.kubernetes.io/component=mic")["items"]:
        world.send("PATCH", f"{pods}/{pod['metadata']['name']}/status", {"status": ready})
    while world.get(path)["status"].get("readyReplicas") != 2:
        time.sleep(0.01)
    ran = podidentity("enable", "--timeout=1s")
    assert "MIC is ready in 2 of 2 replicas" in ran.out
    assert mode(world) == "--operation-mode=standard"
    assert podidentity("enable", "--no-wait", "--no-mic").code == 0
    assert mode(world) == "--operation-mode=managed"
    podidentity("disable", "--timeout=1s")


@pytest.mark.parametrize("controlled", ["archived"], indirect=True)
def test_the_exception_of_the_archived_mic_counts_where_it_is(
    controlled: World, podidentity: Run
) -> None:
    exceptions = f"{CUSTOM}/namespaces/default/azurepodidentityexceptions"
    body = {"metadata": {"name": "mic-exception"}, "spec": {"podLabels": {"component": "mic"}}}
    head = {"apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzurePodIdentityException"}
    controlled.send("POST", exceptions, {**head, **body})
    podidentity("enable", "--no-wait")
    nmi = controlled.get(DAEMON_SET)
    args = nmi["spec"]["template"]["spec"]["containers"][0]["args"]
    (flag,) = (each for each in args if each.startswith("--exception-namespaces="))
    assert {"default", "kube-system"} <= set(flag.partition("=")[2].split(","))
    controlled.send("DELETE", f"{exceptions}/mic-exception")
    podidentity("disable", "--timeout=1s")


# The admin Secret of AAD Pod Identity

SECRETS = "/api/v1/namespaces/kube-system/secrets"
ADMIN_SECRET = f"{SECRETS}/aadpodidentity-admin-secret"
OLD = {"ClientID": "msi", "ClientSecret": "msi", "TenantID": "t", "Cloud": "AzurePublicCloud"}
PRINCIPAL = {**OLD, "ClientID": CLIENT, "ClientSecret": "s3cr3t", "TenantID": "contoso.com"}
MANAGED = {**OLD, "UseMSI": "true", "UserAssignedMSIClientID": CLIENT}


def of_values(**values: str) -> Secret:
    return Secret(
        ref=ObjectRef("kube-system", "aadpodidentity-admin-secret"),
        entries={name: value.encode() for name, value in values.items()},
        digest="",
    )


@pytest.mark.parametrize(
    ("values", "is_managed"),
    [
        ({}, False),
        (OLD, False),
        (MANAGED, True),
        ({"UseMSI": "True\n"}, True),
        ({**MANAGED, "UserAssignedMSIClientID": ""}, True),
        ({**MANAGED, "UseMSI": "false"}, False),
        ({**MANAGED, "UseMSI": ""}, False),
        ({"UseMSI": "false", "UserAssignedMSIClientID": "msi"}, False),
    ],
    ids=["empty", "of 1.5", "an id", "the machine's own", "no id", "not so", "not said", "unused"],
)
def test_an_admin_secret_says_whether_a_managed_identity_signs_in(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], *, is_managed: bool
) -> None:
    assert managed(of_values(**values)) is is_managed
    # MIC itself reads it so.
    read = settings(monkeypatch, USE_MSI=values.get("UseMSI", ""))
    assert read.managed_identity is is_managed


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"UseMSI": "s3cr3t"}, "its key UseMSI is neither true nor false"),
        ({**MANAGED, "UserAssignedMSIClientID": "s3cr3t"}, "UserAssignedMSIClientID is no client"),
    ],
)
def test_what_an_admin_secret_says_wrongly_is_named_without_its_value(
    values: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as told:
        managed(of_values(**values))
    assert "s3cr3t" not in str(told.value)
    with pytest.raises(ValueError, match="UseMSI is no text"):
        managed(replace(of_values(), entries={"UseMSI": b"\xff"}))


def test_only_flags_that_choose_the_way_leave_the_admin_secret_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("USE_MSI", "true")  # of this shell, and not of MIC's container
    monkeypatch.setenv("CLIENT_ID", CLIENT)
    for flags in ([], ["--detach-grace=1s"], ["--azure-tenant-id=t"], ["--assign=all-hosts"]):
        assert not says_how_it_signs_in(flags)
        assert not chosen_of(flags).managed_identity
    for flag in (
        "--use-managed-identity",
        "--use-managed-identity=false",
        "--cloudconfig=/etc/kubernetes/azure.json",
        f"--azure-client-id={CLIENT}",
        "--assign=none",
    ):
        assert says_how_it_signs_in([flag])


@pytest.fixture
def admin_secret(world: World, podidentity: Run) -> Iterator[Callable[..., None]]:
    """Puts the Secret there, with these values."""

    def put(**values: str) -> None:
        world.delete(ADMIN_SECRET)
        meta = {"name": ADMIN_SECRET.rpartition("/")[2]}
        world.send("POST", SECRETS, {"metadata": meta, "stringData": values})

    yield put
    world.delete(ADMIN_SECRET)
    podidentity("disable", "--timeout=1s")


def read_of_secret(world: World) -> set[str]:
    """Return the keys of the Secret that MIC reads."""
    mic = world.get(f"{DEPLOYMENTS.format('kube-system')}/mic")
    (container,) = mic["spec"]["template"]["spec"]["containers"]
    found = [each.get("valueFrom", {}).get("secretKeyRef") for each in container["env"]]
    return {each["key"] for each in found if each}


def test_where_the_admin_secret_says_so_mic_signs_in_by_a_managed_identity(
    world: World, podidentity: Run, admin_secret: Callable[..., None]
) -> None:
    exception = f"{CUSTOM}/namespaces/kube-system/azurepodidentityexceptions/podidentity-mic"
    usual = {"Cloud", "TenantID", "ClientID", "ClientSecret"}
    for values, keys in (
        (PRINCIPAL, usual),
        (MANAGED, usual | {"UseMSI", "UserAssignedMSIClientID"}),
    ):
        admin_secret(**values)
        ran = podidentity("enable", "--no-wait", "--mic")
        assert ran.code == 0, ran.err
        assert read_of_secret(world) == keys
        assert (world.get(exception) is not None) is ("UseMSI" in values)
    # What flags say counts before it.
    ran = podidentity("enable", "--no-wait", *SIGN_IN)
    assert (ran.code, read_of_secret(world)) == (0, usual)
    assert world.get(exception) is None  # with it its pods would have tokens that they do not need


def test_an_admin_secret_that_cannot_be_used_is_told_before_anything_is_made(
    world: World, podidentity: Run, admin_secret: Callable[..., None]
) -> None:
    admin_secret(UseMSI="maybe")
    ran = podidentity("enable", "--no-wait", "--mic")
    assert ran.code == 1
    assert "Secret kube-system/aadpodidentity-admin-secret cannot be used: its key" in ran.err
    assert "--mic-arg=--use-managed-identity=false" in ran.err
    assert world.get(DAEMON_SET) is None
