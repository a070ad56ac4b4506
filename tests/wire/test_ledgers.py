from __future__ import annotations

import json
import re
from typing import Any

import pytest

from podidentity.core.hosts import Host
from podidentity.core.ledger import Ledger, LedgerEntry
from podidentity.manifests import crds
from podidentity.wire.ledgers import (
    NotALedger,
    host_of,
    ledger_name,
    parse_ledger,
    render_ledger,
)

COMPUTE = "/subscriptions/S/resourceGroups/MC_g/providers/Microsoft.Compute"
HOST = Host.parse(f"{COMPUTE}/virtualMachineScaleSets/aks-Pool_1-vmss")
IDS = "/subscriptions/S/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
CLIENT = "11111111-2222-3333-4444-555555555555"


def ledger() -> Ledger:
    return Ledger(
        host=HOST,
        attached={f"{IDS}/A".lower(): LedgerEntry(f"{IDS}/A", 1_795_600_000.25, CLIENT)},
        attaching={f"{IDS}/b".lower(): LedgerEntry(f"{IDS}/b", 1_795_600_001.0)},
        detaching={f"{IDS}/c".lower(): LedgerEntry(f"{IDS}/c", 0.0)},
    )


def raw(**spec: Any) -> bytes:
    return json.dumps({"metadata": {"name": "x"}, "spec": spec}).encode()


def test_what_is_written_is_read() -> None:
    body = render_ledger(ledger(), "kube-system")
    assert parse_ledger(json.dumps(body).encode()) == ledger()
    assert host_of(json.dumps(body).encode()) == HOST
    assert "resourceVersion" not in body["metadata"]


def test_a_change_names_the_version_that_it_was_made_of_and_leaves_no_list_out() -> None:
    """As a merge patch: what is not named would stay."""
    body = render_ledger(Ledger(host=HOST), "kube-system", "17")
    assert body["metadata"]["resourceVersion"] == "17"
    assert body["spec"] == {
        "host": HOST.resource_id,
        "attached": [],
        "attaching": [],
        "detaching": [],
    }


def test_its_fields_are_those_of_the_custom_resource() -> None:
    (crd,) = (each for each in crds() if each["spec"]["names"]["kind"] == "AzureIdentityLedger")
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    written = render_ledger(ledger(), "kube-system")["spec"]
    assert written.keys() == spec["properties"].keys()
    entries = spec["properties"]["attached"]["items"]["properties"]
    assert written["attached"][0].keys() == entries.keys()


@pytest.mark.parametrize("name", ["aks-Pool_1-vmss", "x" * 128, "___", "(a)", "a.b"])
def test_its_name_is_one_that_kubernetes_takes_and_that_host_alone_has(name: str) -> None:
    one = Host.parse(f"{COMPUTE}/virtualMachines/{name}")
    other = Host.parse(f"{COMPUTE.replace('MC_g', 'MC_h')}/virtualMachines/{name}")
    for each in (one, other):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", ledger_name(each))
        assert len(ledger_name(each)) <= 253
    assert ledger_name(one) != ledger_name(other)
    assert ledger_name(one) == ledger_name(Host.parse(one.resource_id.upper()))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no AzureIdentityLedger"),
        (b'{"metadata":{}}', "no AzureIdentityLedger"),
        (raw(), "no AzureIdentityLedger"),
        (raw(host="/somewhere"), "names no machine"),
        (raw(host=HOST.resource_id, attached=[{"id": "/x"}]), "must match"),
        (raw(host=HOST.resource_id, attached=[{"id": f"{IDS}/a", "since": "then"}]), "Invalid"),
        (raw(host=HOST.resource_id, attached=[{"id": 1}]), "no AzureIdentityLedger"),
        (
            raw(
                host=HOST.resource_id,
                attached=[{"id": f"{IDS}/a"}],
                detaching=[{"id": f"{IDS}/A"}],
            ),
            "twice",
        ),
    ],
)
def test_one_that_cannot_be_read_is_lost_and_says_why(body: bytes, why: str) -> None:
    with pytest.raises(NotALedger, match=why):
        parse_ledger(body)


def test_the_host_of_a_ledger_is_known_though_its_entries_are_rubbish() -> None:
    assert host_of(raw(host=HOST.resource_id, attached=[{"id": "/x"}])) == HOST
    assert host_of(raw(host="/x")) is None
    assert host_of(b"rubbish") is None
