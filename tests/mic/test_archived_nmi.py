"""A drop-in, part by part: NMI of AAD Pod Identity lives on the records that our MIC writes."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from podidentity.core.resources import Assignment, AzureIdentity, AzureIdentityBinding, ObjectRef
from podidentity.mic.calls import About, Record
from podidentity.mic.objects import (
    Live,
    parse_live,
    parse_record,
    render_record,
    render_update,
)
from podidentity.wire.manifests import parse_binding, parse_identity
from tests.fakes import CLIENT, RESOURCE_ID
from tests.mic.archived_nmi import Json, NotDecoded, identity_for

API = "aadpodidentity.k8s.io/v1"
OTHER = "99999999-0000-0000-0000-000000000000"
TENANT = "11111111-0000-0000-0000-000000000000"
META = {
    "name": "orders",
    "namespace": "shop",
    "uid": "u-1",
    "resourceVersion": "41",
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "labels": {"team": "a"},
    "annotations": {"aadpodidentity.k8s.io/Behavior": "namespaced"},
}
IDENTITY: Json = {
    "apiVersion": API,
    "kind": "AzureIdentity",
    "metadata": META,
    "spec": {"type": 0, "clientID": CLIENT, "resourceID": RESOURCE_ID},
}
PRINCIPAL: Json = {
    **IDENTITY,
    "spec": {
        "type": 1,
        "clientID": CLIENT,
        "tenantID": TENANT,
        "clientPassword": {"name": "mail", "namespace": "shop"},
    },
}
BINDING: Json = {
    "apiVersion": API,
    "kind": "AzureIdentityBinding",
    "metadata": {**META, "name": "b"},
    "spec": {"azureIdentity": "orders", "selector": "orders"},
}


def live(found: Json, about: About) -> Live:
    return parse_live(json.dumps(found).encode(), about)


def copies(identity: Json, binding: Json) -> tuple[Live, Live]:
    return live(identity, About.IDENTITY), live(binding, About.BINDING)


def record(state: Assignment, node: str = "n1") -> Record:
    return Record(
        ref=ObjectRef("shop", "web-0-shop-orders"),
        pod=ObjectRef("shop", "web-0"),
        identity=ObjectRef("shop", "orders"),
        binding=ObjectRef("shop", "b"),
        node=node,
        state=state,
        identity_revision="",
        binding_revision="",
    )


def written(
    state: Assignment = Assignment.ASSIGNED, identity: Json = IDENTITY, binding: Json = BINDING
) -> Json:
    """Return a record as it is created."""
    return plain(render_record(record(state), *copies(identity, binding)))


def plain(found: Json) -> Json:
    return dict(json.loads(json.dumps(found)))


def updated(stored: Json, state: Assignment, node: str) -> Json:
    """Return a stored record after the JSON patch of an update."""
    found: Any = plain(stored)
    odd = parse_record(json.dumps(stored).encode()).odd
    for step in render_update(("r-1", "7"), record(state, node), copies(IDENTITY, BINDING), odd):
        *path, last = step["path"].split("/")[1:]
        place = found
        for name in path:
            place = place[name]
        if step["op"] == "add":
            place[last] = step["value"]
    return plain(found)


def test_the_archived_nmi_gives_a_token_of_the_identity_of_a_record_that_says_assigned() -> None:
    stored = [written()]
    found = identity_for(stored, "n1", "web-0", "shop")
    assert found is not None
    assert found["spec"] == IDENTITY["spec"]
    assert identity_for(stored, "n1", "web-0", "shop", CLIENT) == found
    assert identity_for(stored, "n1", "web-0", "shop", OTHER) is None


@pytest.mark.parametrize("caller", [("n2", "web-0", "shop"), ("n1", "web-1", "shop")])
def test_it_finds_nothing_on_another_node_or_of_another_pod(caller: tuple[str, str, str]) -> None:
    assert identity_for([written()], *caller) is None


def test_it_waits_while_a_record_says_created() -> None:
    before = written(Assignment.CREATED)
    assert identity_for([before], "n1", "web-0", "shop") is None
    after = updated(before, Assignment.ASSIGNED, "n1")
    assert identity_for([after], "n1", "web-0", "shop") is not None


@pytest.mark.parametrize("labels", [None, {"nodename": "n1", "podname": "web-0"}])
def test_it_finds_a_record_of_an_archived_mic_that_ours_has_taken_over(labels: Json | None) -> None:
    """Its pod is on another node since, and the record's label with it."""
    old = written(Assignment.CREATED)
    old["metadata"] |= {"labels": labels, "uid": "r-1", "resourceVersion": "7"}
    new = updated(old, Assignment.ASSIGNED, "n2")
    assert identity_for([new], "n1", "web-0", "shop") is None
    assert identity_for([new], "n2", "web-0", "shop", CLIENT) is not None


def test_it_has_the_secret_of_a_service_principal() -> None:
    found = identity_for([written(identity=PRINCIPAL)], "n1", "web-0", "shop", CLIENT)
    assert found is not None
    assert found["spec"] == PRINCIPAL["spec"]


def test_it_knows_the_client_id_of_an_identity_in_the_spelling_of_1_5() -> None:
    spec = {"type": 0, "ClientID": CLIENT, "ResourceID": RESOURCE_ID}
    found = identity_for(
        [written(identity={**IDENTITY, "spec": spec})], "n1", "web-0", "shop", CLIENT
    )
    assert found is not None
    assert found["spec"] == IDENTITY["spec"]


def test_a_list_with_one_field_of_another_type_is_not_read_at_all() -> None:
    wrong = written()
    wrong["spec"]["azureIdentityRef"]["spec"]["replicas"] = "many"
    with pytest.raises(NotDecoded, match=r"azureIdentityRef\.spec\.replicas: 'many' is no int"):
        identity_for([written(), wrong], "n1", "web-0", "shop")


ODD: list[Any] = ["x", 1, -(1 << 70), 1.5, True, [], [1], {}, {"name": 1}, {"a": "b"}]
FIELDS = {
    "identity": (
        *("type", "resourceID", "clientID", "clientPassword", "tenantID", "auxiliaryTenantIDs"),
        *("adResourceID", "adEndpoint", "replicas", "metadata", "nobody-knows-it"),
    ),
    "binding": ("azureIdentity", "selector", "weight", "metadata", "nobody-knows-it"),
}


@pytest.mark.parametrize(
    ("what", "field"), [(what, field) for what, fields in FIELDS.items() for field in fields]
)
def test_no_object_that_ours_can_use_makes_a_list_unreadable(what: str, field: str) -> None:
    """The definitions of 1.5 let a tenant write anything, and a record holds copies of it."""
    odd = [*ODD, {"creationTimestamp": "yesterday"}]
    spelled = (field, f"{field[:1].upper()}{field[1:]}")
    usable = 0
    for whose, name, value in product((IDENTITY, PRINCIPAL), spelled, odd):
        objects = {"identity": whose, "binding": BINDING}
        objects[what] = {**objects[what], "spec": {**objects[what]["spec"], name: value}}
        identity = parse_identity(json.dumps(objects["identity"]).encode())
        binding = parse_binding(json.dumps(objects["binding"]).encode())
        if isinstance(identity, AzureIdentity) and isinstance(binding, AzureIdentityBinding):
            usable += 1
            stored = [written(Assignment.ASSIGNED, **objects)]
            assert identity_for(stored, "n1", "web-0", "shop") is not None, (name, value)
    assert usable
