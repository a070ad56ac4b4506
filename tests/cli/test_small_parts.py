from __future__ import annotations

import json
from typing import Any

import click
import pytest

from podidentity.cli import attached_hosts, output
from podidentity.cli.azure_access import next_step
from podidentity.cli.parameters import (
    ClientIdType,
    Duration,
    Name,
    PodRef,
    ResourceIdType,
    Selector,
)
from podidentity.cli.rollout import ready, rollout, trouble
from podidentity.core.hosts import Host
from podidentity.core.ids import ObjectRef, ResourceId
from podidentity.wire.arm import ArmError
from tests.cli.scripted import CLIENT, IDENTITY, SCALE_SET, SUBSCRIPTION

MACHINE = f"{SUBSCRIPTION}/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachines/vm"
WANTED = ResourceId.parse(IDENTITY)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Duration(), "90", 90.0),
        (Duration(), "90s", 90.0),
        (Duration(), "2m", 120.0),
        (Duration(), "1h", 3600.0),
        (ClientIdType(), CLIENT.upper(), CLIENT),
        (ResourceIdType(), IDENTITY, IDENTITY),
        (Selector(), "Orders_1.x-y", "Orders_1.x-y"),
        (Selector(), "a" * 63, "a" * 63),
        (Name(), "orders.v1-x", "orders.v1-x"),
        (PodRef(), "shop/orders-0", str(ObjectRef("shop", "orders-0"))),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_good_value_is_taken(kind: click.ParamType[Any], text: str, value: object) -> None:
    found = kind.convert(text, None, None)
    assert (found if isinstance(found, float) else str(found)) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (Duration(), "", "is not a duration such as 90s"),
        (Duration(), "-1s", "is not a duration"),
        (Duration(), "1.5m", "is not a duration"),
        (ClientIdType(), "orders", "must be a GUID, not 'orders'"),
        (ResourceIdType(), SCALE_SET, "must match /subscriptions/<subscription>/"),
        (Selector(), "", "cannot be a label's value"),
        (Selector(), "a" * 64, "cannot be a label's value"),
        (Selector(), "-a", "cannot be a label's value"),
        (Selector(), "ä", "cannot be a label's value"),
        (Selector(), "app=x", "cannot be a label's value"),
        (Name(), "Orders", "cannot be a name"),
        (Name(), "a/b", "cannot be a name"),
        (Name(), "", "cannot be a name"),
        (PodRef(), "orders-0", "is not NAMESPACE/NAME"),
        (PodRef(), "shop/", "is not NAMESPACE/NAME"),
        (PodRef(), "a/b/c", "is not NAMESPACE/NAME"),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_bad_value_is_wrong_usage(kind: click.ParamType[Any], text: str, words: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(text, None, None)
    assert words in caught.value.message


def identity(annotation: str | None, resource_id: str = IDENTITY) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": "orders", "namespace": "shop"}
    if annotation is not None:
        meta["annotations"] = {attached_hosts.ANNOTATION: annotation}
    return {"metadata": meta, "spec": {"clientID": CLIENT, "resourceID": resource_id}}


def test_the_record_is_read_as_it_was_written() -> None:
    hosts = [
        Host.of_node(f"azure://{SCALE_SET}/virtualMachines/7"),
        Host.of_node(f"azure://{MACHINE}"),
    ]
    written = identity(None)
    attached_hosts.write(written, [*hosts, *hosts])
    assert json.loads(written["metadata"]["annotations"][attached_hosts.ANNOTATION]) == [
        SCALE_SET,
        MACHINE,
    ]
    assert attached_hosts.read(written) == hosts


@pytest.mark.parametrize("text", [None, "", "x", "{}", "[1, null, {}]", '["/x"]', '["azure://"]'])
def test_a_record_that_makes_no_sense_records_nothing(text: str | None) -> None:
    assert attached_hosts.read(identity(text)) == []


def test_identities_of_one_azure_identity_are_found_whatever_the_case() -> None:
    same, other = identity(None, IDENTITY.upper()), identity(None, f"{IDENTITY}2")
    broken = {"metadata": {"name": "x", "namespace": "y"}, "spec": {"clientID": "no"}}
    assert attached_hosts.of_same([same, other, broken], WANTED) == [same]


LINKED = (
    "The client 'x' has permission to perform action 'Microsoft.Compute/virtualMachineScaleSets/"
    "write' on scope 's'; however, it does not have permission to perform action 'Microsoft."
    "ManagedIdentity/userAssignedIdentities/assign/action' on the linked scope(s) 'i'."
)
PLAIN = "The client 'x' does not have authorization to perform action '{}' over scope 's'."


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ArmError("LinkedAuthorizationFailed", LINKED, status=403),
            f"the role 'Managed Identity Operator' on the identity {IDENTITY}",
        ),
        (
            ArmError(
                "AuthorizationFailed",
                PLAIN.format("Microsoft.Compute/virtualMachineScaleSets/write"),
                status=403,
            ),
            "the role 'Virtual Machine Contributor' on the nodes' resource group",
        ),
        (
            ArmError(
                "AuthorizationFailed",
                PLAIN.format("Microsoft.ManagedIdentity/userAssignedIdentities/read"),
            ),
            "the role 'Managed Identity Operator' on the identity",
        ),
        (ArmError("AuthorizationFailed", "no"), "the role that grants this action"),
        (ArmError("DenyAssignmentAuthorizationFailed", "no"), "no role can grant it"),
        (ArmError("ResourceNotFound", "no"), f"az identity show --ids {IDENTITY}"),
        (ArmError("FailedIdentityOperation", "no"), "Does the identity exist?"),
        (ArmError("OperationNotAllowed", "no", status=429), "some minutes"),
        (ArmError("Unreachable", "no"), "HTTPS_PROXY"),
        (ArmError("SignIn", "Run az login."), ""),
    ],
    ids=lambda value: getattr(value, "code", value),
)
def test_azures_no_comes_with_a_next_step(error: ArmError, words: str) -> None:
    assert words in next_step(error, WANTED)
    assert bool(words) == bool(next_step(error, WANTED))


def daemon_set(**status: int) -> dict[str, Any]:
    return {"metadata": {"generation": 2}, "status": status}


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ({}, False),
        ({"observedGeneration": 1, "desiredNumberScheduled": 0}, False),
        ({"observedGeneration": 2, "desiredNumberScheduled": 0}, True),
        ({"observedGeneration": 2, "desiredNumberScheduled": 2, "numberReady": 2}, False),
        (
            {
                "observedGeneration": 2,
                "desiredNumberScheduled": 2,
                "numberReady": 1,
                "updatedNumberScheduled": 2,
            },
            False,
        ),
        (
            {
                "observedGeneration": 2,
                "desiredNumberScheduled": 2,
                "numberReady": 2,
                "updatedNumberScheduled": 2,
            },
            True,
        ),
    ],
    ids=str,
)
def test_a_rollout_is_done_when_every_node_has_a_new_and_ready_pod(
    status: dict[str, int], done: bool
) -> None:
    assert rollout(daemon_set(**status)).done is done


def pod(*containers: dict[str, Any], **conditions: str) -> dict[str, Any]:
    listed = [{"type": kind, "status": status} for kind, status in conditions.items()]
    return {
        "metadata": {"name": "nmi-x"},
        "status": {"phase": "Running", "containerStatuses": list(containers), "conditions": listed},
    }


BACK_OFF = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (pod({"state": {"waiting": BACK_OFF}}), f"CrashLoopBackOff: {BACK_OFF['message']}"),
        (pod({"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}), "Error (exit code 1)"),
        (
            pod({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137}}}),
            "ended (exit code 137)",
        ),
        (pod(PodScheduled="False"), "not PodScheduled"),
        (pod({"state": {"running": {}}}, Ready="False"), "not Ready"),
        ({"metadata": {"name": "nmi-x"}}, "phase unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pod_that_is_not_ready_has_a_reason(found: dict[str, Any], words: str) -> None:
    assert trouble(found) == words


def test_a_pod_that_is_about_to_go_is_not_ready() -> None:
    found = pod(Ready="True")
    assert ready(found)
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not ready(found)


def test_a_table_has_columns_as_wide_as_their_cells() -> None:
    lines = output.table(("A", "LONG"), [("wide cell", "x"), ("y", "")]).splitlines()
    assert lines == ["A           LONG", "wide cell   x", "y"]


def test_documents_are_what_kubectl_takes() -> None:
    both = [{"kind": "A", "x": "ä"}, {"kind": "B"}]
    assert output.documents(both, "yaml") == "kind: A\nx: ä\n---\nkind: B"
    assert json.loads(output.documents(both, "json")) == {
        "apiVersion": "v1",
        "kind": "List",
        "items": both,
    }
