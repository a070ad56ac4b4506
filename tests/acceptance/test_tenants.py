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
from tests.acceptance.stage import opened
from tests.acceptance.street import API, Street, appid, settle
from tests.sandboxes import own

NAME = own("tenants")


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    with opened(NAME) as (place, azure, loop):
        place.run("podidentity", "enable")
        yield loop.run(settle(Street(place, azure, loop)))


def test_both_have_what_is_theirs(street: Street) -> None:
    for name, namespace, identity in (
        ("web", "shop", street.orders),
        ("own", "tenant", street.mine),
    ):
        status, body = street.ask(name, namespace)
        assert (status, appid(body)) == (200, identity.client_id)


# What the tenant writes → what his pod asks for.
Try = Callable[[Street], tuple[list[str], dict[str, str]]]


def _another(street: Street) -> tuple[list[str], dict[str, str]]:
    return _named("another", clientID=street.orders.client_id, resourceID=street.orders.id), {}


def _in_capitals(street: Street) -> tuple[list[str], dict[str, str]]:
    return _named("capitals", clientID=street.orders.client_id.upper()), {}


def _kubelets(street: Street) -> tuple[list[str], dict[str, str]]:
    return _named("kubelets", clientID=street.kubelet.client_id), {}


def _machines(_: Street) -> tuple[list[str], dict[str, str]]:
    return _named("machines", resourceID="system-assigned"), {}


def _by_resource_id(street: Street) -> tuple[list[str], dict[str, str]]:
    made = _named("misfit", clientID=street.mine.client_id, resourceID=street.orders.id)
    return made, {"msi_res_id": street.orders.id}


def _with_my_resource_id(street: Street) -> tuple[list[str], dict[str, str]]:
    made = _named("disguise", clientID=street.orders.client_id, resourceID=street.mine.id)
    return made, {"msi_res_id": street.mine.id}


def _by_object_id(street: Street) -> tuple[list[str], dict[str, str]]:
    made = _named("object", clientID=street.mine.client_id, objectID=street.orders.object_id)
    return made, {"object_id": street.orders.object_id}


def _by_asking(street: Street) -> tuple[list[str], dict[str, str]]:
    made = _named("asking", clientID=street.mine.client_id, resourceID=street.mine.id)
    return made, {"client_id": street.orders.client_id}


def _exception(street: Street) -> tuple[list[str], dict[str, str]]:
    spec = {"podLabels": {"aadpodidbinding": "excepted"}}
    made = [manifest(API, "AzurePodIdentityException", "excepted", "tenant", spec=spec)]
    return made, {"client_id": street.kubelet.client_id}


TRIES: dict[str, Try] = {
    "another": _another,
    "capitals": _in_capitals,
    "kubelets": _kubelets,
    "machines": _machines,
    "misfit": _by_resource_id,
    "disguise": _with_my_resource_id,
    "object": _by_object_id,
    "asking": _by_asking,
    "excepted": _exception,
}


def _named(name: str, **spec: Any) -> list[str]:
    """Return an AzureIdentity and a binding of the tenant; his pod has the name as its label."""
    return bound(name, "tenant", label=name, type=0, **spec)


@pytest.mark.parametrize("name", TRIES)
def test_no_object_of_a_tenant_opens_what_is_not_his(street: Street, name: str) -> None:
    objects, query = TRIES[name](street)
    street.apply(*objects, pod(f"try-{name}", "tenant", name))
    street.loop.run(street.azure.clear_imds_requests())
    status, body = street.ask(f"try-{name}", **query)
    if status == 200:
        # His own identity under a foreign name is his own all the same.
        assert name in {"misfit", "object"}
        assert appid(body) == street.mine.client_id
    else:
        assert status in {400, 403, 404}, body
        assert "access_token" not in body
    assert street.asked_of_imds(street.orders, street.kubelet) == []
    status, body = street.ask("web", "shop", bypass_cache="true")
    assert (status, appid(body)) == (200, street.orders.client_id)


def test_a_permission_of_one_service_account_is_none_of_another(street: Street) -> None:
    grant = ("podidentity", "grant", "--namespace", "tenant", "--service-account", "trusted")
    street.place.run(*grant, "--identity", street.kubelet.client_id)
    street.apply(
        manifest("v1", "ServiceAccount", "trusted", "tenant"),
        *_named("shared", clientID=street.kubelet.client_id),
        pod("trusted", "tenant", "shared", "trusted"),
        pod("other", "tenant", "shared"),
    )
    assert street.ask("other")[0] == 403
    status, body = street.ask("trusted")
    assert (status, appid(body)) == (200, street.kubelet.client_id)
    revoke = ("podidentity", "revoke", "--namespace", "tenant")
    street.place.run(*revoke, "--identity", street.kubelet.client_id)


def test_a_forged_record_of_the_controller_opens_nothing(street: Street) -> None:
    """In standard mode an AzureAssignedIdentity says "assigned", and nothing else is read of it."""
    street.place.run("podidentity", "enable", "--nmi-arg=--operation-mode=standard")
    identity = {"type": 0, "clientID": street.orders.client_id, "resourceID": street.orders.id}
    meta = {"metadata": {"name": "forged", "namespace": "tenant"}}
    bindings = {"azureIdentity": "forged", "selector": "forged"}
    record = {
        "azureIdentityRef": {**meta, "spec": identity},
        "azureBindingRef": {**meta, "spec": bindings},
        "pod": "forger",
        "podNamespace": "tenant",
        "nodename": street.place.plan.nodes[0].name,
    }
    labels = {"labels": {"nodename": street.place.plan.nodes[0].name}}
    # What the record is a copy of names the tenant's own identity, then his neighbour's.
    for client_id, expected in ((street.mine.client_id, 200), (street.orders.client_id, 403)):
        street.apply(
            *_named("forged", clientID=client_id),
            manifest(
                *(API, "AzureAssignedIdentity", "forged", "tenant"),
                metadata=labels,
                spec=record,
                status={"status": "Assigned"},
            ),
            pod("forger", "tenant", "forged"),
        )
        street.loop.run(street.azure.clear_imds_requests())
        status, body = street.ask("forger")
        assert status == expected, body
        assert "access_token" not in body or appid(body) == street.mine.client_id
        assert street.asked_of_imds(street.orders, street.kubelet) == []


@pytest.mark.parametrize("name", ["another", "kubelets"])
def test_without_the_permission_these_tries_would_succeed(street: Street, name: str) -> None:
    """So it is the permission that refused them above."""
    street.place.run("podidentity", "enable", "--nmi-arg=--authorization=off")
    status, body = street.ask(f"try-{name}")
    theirs = {"another": street.orders, "kubelets": street.kubelet}[name]
    assert (status, appid(body)) == (200, theirs.client_id)
