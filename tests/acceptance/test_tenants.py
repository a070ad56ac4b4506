"""From the tenant's side: whatever he writes in his namespace, his neighbour's identity stays shut.

He owns namespace `tenant` and all that is in it. The neighbour's identity `orders` is on the node's
machine, as the kubelet's own is. No try yields a token of another's identity; IMDS, which sees all
that NMI asks for, is not even asked; and the neighbour is served as if nothing had been tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.acceptance.directory import bound, manifest, pod
from tests.acceptance.sandbox import opened
from tests.acceptance.two_tenants import API, TwoTenants, appid, settle
from tests.sandboxes import own

NAME = own("tenants")


@pytest.fixture(scope="module")
def tenants() -> Iterator[TwoTenants]:
    with opened(NAME) as (place, azure, loop):
        place.run("podidentity", "enable")
        yield loop.run(settle(TwoTenants(place, azure, loop)))


def test_both_have_what_is_theirs(tenants: TwoTenants) -> None:
    for name, namespace, identity in (
        ("web", "shop", tenants.orders),
        ("own", "tenant", tenants.mine),
    ):
        status, body = tenants.ask(name, namespace)
        assert (status, appid(body)) == (200, identity.client_id)


# What the tenant writes → what his pod asks for.
Try = Callable[[TwoTenants], tuple[list[str], dict[str, str]]]


def _another(tenants: TwoTenants) -> tuple[list[str], dict[str, str]]:
    return _named("another", clientID=tenants.orders.client_id, resourceID=tenants.orders.id), {}


def _in_capitals(tenants: TwoTenants) -> tuple[list[str], dict[str, str]]:
    return _named("capitals", clientID=tenants.orders.client_id.upper()), {}


def _kubelets(tenants: TwoTenants) -> tuple[list[str], dict[str, str]]:
    return _named("kubelets", clientID=tenants.kubelet.client_id), {}


def _machines(_: TwoTenants) -> tuple[list[str], dict[str, str]]:
    return _named("machines", resourceID="system-assigned"), {}


def _by_resource_id(tenants: TwoTenants) -> tuple[list[str], dict[str, str]]:
    made = _named("misfit", clientID=tenants.mine.client_id, resourceID=tenants.orders.id)
    return made, {"msi_res_id": tenants.orders.id}


def _with_my_resource_id(tenants: TwoTenants) -> tuple[list[str], dict[str, str]]:
    made = _named("disguise", clientID=tenants.orders.client_id, resourceID=tenants.mine.id)
    return made, {"msi_res_id": tenants.mine.id}


def _by_object_id(tenants: TwoTenants) -> tuple[list[str], dict[str, str]]:
    made = _named("object", clientID=tenants.mine.client_id, objectID=tenants.orders.object_id)
    return made, {"object_id": tenants.orders.object_id}


def _by_asking(tenants: TwoTenants) -> tuple[list[str], dict[str, str]]:
    made = _named("asking", clientID=tenants.mine.client_id, resourceID=tenants.mine.id)
    return made, {"client_id": tenants.orders.client_id}


def _exception(tenants: TwoTenants) -> tuple[list[str], dict[str, str]]:
    spec = {"podLabels": {"aadpodidbinding": "excepted"}}
    made = [manifest(API, "AzurePodIdentityException", "excepted", "tenant", spec=spec)]
    return made, {"client_id": tenants.kubelet.client_id}


NOT_PERMITTED = "Service account tenant/default of pod tenant/try-{} may not use the identity"
# What is tried → how it is written, the answer's status, and how it begins; 200: his own identity.
TRIES: dict[str, tuple[Try, int, str]] = {
    "another": (_another, 403, NOT_PERMITTED),
    "capitals": (_in_capitals, 403, NOT_PERMITTED),
    "kubelets": (_kubelets, 403, NOT_PERMITTED),
    "machines": (_machines, 403, NOT_PERMITTED),
    "misfit": (_by_resource_id, 403, "AzureIdentity {}: spec.resourceID is not that of the"),
    "disguise": (_with_my_resource_id, 403, NOT_PERMITTED),
    "object": (_by_object_id, 200, ""),
    "asking": (_by_asking, 400, "Identity not found"),
    "excepted": (_exception, 404, "No AzureIdentityBinding in namespace tenant has the selector"),
}


def _named(name: str, **spec: Any) -> list[str]:
    """Return an AzureIdentity and a binding of the tenant; his pod has the name as its label."""
    return bound(name, "tenant", label=name, type=0, **spec)


@pytest.mark.parametrize("name", TRIES)
def test_no_object_of_a_tenant_opens_what_is_not_his(tenants: TwoTenants, name: str) -> None:
    write, expected, words = TRIES[name]
    objects, query = write(tenants)
    tenants.apply(*objects, pod(f"try-{name}", "tenant", name))
    tenants.loop.run(tenants.azure.clear_imds_requests())
    status, body = tenants.ask(f"try-{name}", **query)
    assert status == expected, body
    if expected == 200:
        # His own identity under a foreign name is his own all the same.
        assert appid(body) == tenants.mine.client_id
    else:
        assert body["error_description"].startswith(words.format(name))
        assert "access_token" not in body
    assert tenants.asked_of_imds(tenants.orders, tenants.kubelet) == []
    status, body = tenants.ask("web", "shop", bypass_cache="true")
    assert (status, appid(body)) == (200, tenants.orders.client_id)


def test_a_permission_of_one_service_account_is_none_of_another(tenants: TwoTenants) -> None:
    grant = ("podidentity", "grant", "--namespace", "tenant", "--service-account", "trusted")
    tenants.place.run(*grant, "--identity", tenants.kubelet.client_id)
    tenants.place.until_granted("tenant", tenants.kubelet.client_id, account="trusted")
    tenants.apply(
        manifest("v1", "ServiceAccount", "trusted", "tenant"),
        *_named("shared", clientID=tenants.kubelet.client_id),
        pod("trusted", "tenant", "shared", "trusted"),
        pod("other", "tenant", "shared"),
    )
    assert tenants.ask("other")[0] == 403
    status, body = tenants.ask("trusted")
    assert (status, appid(body)) == (200, tenants.kubelet.client_id)
    revoke = ("podidentity", "revoke", "--namespace", "tenant")
    tenants.place.run(*revoke, "--identity", tenants.kubelet.client_id)


def test_a_forged_record_of_the_controller_opens_nothing(tenants: TwoTenants) -> None:
    """In standard mode an AzureAssignedIdentity says "assigned", and nothing else is read of it."""
    tenants.place.run("podidentity", "enable", "--nmi-arg=--operation-mode=standard")
    identity = {"type": 0, "clientID": tenants.orders.client_id, "resourceID": tenants.orders.id}
    meta = {"metadata": {"name": "forged", "namespace": "tenant"}}
    bindings = {"azureIdentity": "forged", "selector": "forged"}
    record = {
        "azureIdentityRef": {"apiVersion": API, "kind": "AzureIdentity", **meta, "spec": identity},
        "azureBindingRef": {
            "apiVersion": API,
            "kind": "AzureIdentityBinding",
            **meta,
            "spec": bindings,
        },
        "pod": "forger",
        "podNamespace": "tenant",
        "nodename": tenants.place.plan.nodes[0].name,
    }
    labels = {"labels": {"nodename": tenants.place.plan.nodes[0].name}}
    # What the record is a copy of names the tenant's own identity, then his neighbour's.
    for client_id, expected in ((tenants.mine.client_id, 200), (tenants.orders.client_id, 403)):
        tenants.apply(
            *_named("forged", clientID=client_id),
            manifest(
                *(API, "AzureAssignedIdentity", "forged", "tenant"),
                metadata=labels,
                spec=record,
                status={"status": "Assigned"},
            ),
            pod("forger", "tenant", "forged"),
        )
        tenants.loop.run(tenants.azure.clear_imds_requests())
        status, body = tenants.ask("forger")
        assert status == expected, body
        assert "access_token" not in body or appid(body) == tenants.mine.client_id
        assert tenants.asked_of_imds(tenants.orders, tenants.kubelet) == []


@pytest.mark.parametrize("name", ["another", "kubelets"])
def test_without_the_permission_these_tries_would_succeed(tenants: TwoTenants, name: str) -> None:
    """So it is the permission that refused them above."""
    anybody = "--nmi-arg=--authorization=off"
    tenants.place.run("podidentity", "enable", "--forget=nmi-arg", anybody)
    status, body = tenants.ask(f"try-{name}")
    theirs = {"another": tenants.orders, "kubelets": tenants.kubelet}[name]
    assert (status, appid(body)) == (200, theirs.client_id)
