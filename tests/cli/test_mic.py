"""`podidentity mic`: what its flags come to, and the pause that people write."""

from __future__ import annotations

import json
import pickle
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from podidentity import manifests
from podidentity.cli import main
from podidentity.cli.azure_access import ATTACHED_TO
from podidentity.cli.check import mic_not_ready, mic_paused, not_attached
from podidentity.cli.controller import chosen_of, flags_of_nmi
from podidentity.cli.programs import AgentPlan
from podidentity.core.decision import Authorization
from podidentity.core.resources import ClientId, ObjectRef
from podidentity.settings import MicSettings
from podidentity.wire.pauses import Pauses, parse_pauses
from tests.cli.conftest import Ran
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
    ],
    ids=["short", "half", "no duration", "no id", "no choice"],
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
    unready = mic_not_ready(where, ["n1: ErrImagePull"])
    assert (unready.reason, "n1: ErrImagePull" in unready.what) == ("ControllerNotReady", True)


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
    yield world
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
    record = {ATTACHED_TO: json.dumps([controlled.plan.scale_set_id])}
    controlled.send("PATCH", path, {"metadata": {"annotations": record}})
    deleted = podidentity("delete", *where)
    assert deleted.code == 0, deleted.err
    assert "stays attached" in deleted.err
    assert controlled.get(path) is None
