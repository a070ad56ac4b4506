"""The archived suite's scenarios of MIC, by their numbers, in one sandbox in real weather.

Where ours differs on purpose the difference is asserted: a record is gone at once with its pod, and
what MIC attached is detached after the grace. Its suite:
https://github.com/Azure/aad-pod-identity/tree/master/test/e2e. 26, 29 and 30, and the old outcomes
under the switches back to them, are in test_other_ways.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from podidentity.build import build
from podidentity_sandbox.demo.prepare import GROUP
from podidentity_sandbox.world import SandboxError
from tests.acceptance.directory import bound, secret
from tests.acceptance.mic.controlled import (
    BLOCKED,
    Controlled,
    Managed,
    controlled,
    exempt,
    of_type_0,
)

FIVE = [f"five-{number}" for number in range(5)]


@pytest.fixture(scope="module")
def place() -> Iterator[Controlled]:
    """The cluster, with all that most tests need on its machine: that takes Azure one change."""
    flags = ("--detach-grace=5s", "--identity-assignment-reconcile-interval=10s")
    with controlled("mic-pods", *flags, nmi=BLOCKED) as found:
        cluster = clusters_own(found)
        found.attach(found.identity("theirs"), system=True)
        found.bind("cluster", cluster)
        found.pod("cluster", "cluster")
        for name in ("orders", "short", "robbed", "theirs", "kept"):
            found.bind(name, found.identity(name))
            found.pod("app" if name == "orders" else name, name)
        found.bind("edited", found.identity("orders"))
        found.pod("edits", "edited")
        found.bind("changed", found.identity("other"))
        found.bind("orders", found.identity("other"), namespace="bank")
        found.pod("app", "orders", namespace="bank")
        found.bind("fresh", found.identity("fresh"), label="mixed")
        found.bind("nobody", nobody(found), label="mixed")
        found.pod("mixed", "mixed")
        for name in FIVE:
            found.bind(name, found.identity(name), label="five")
        found.pod("many", "five")
        yield found


def clusters_own(place: Controlled) -> Managed:
    """Return the identity of the cluster's kubelets, which AKS attached to its machines."""
    ((identity, ids),) = (
        (each, ids)
        for each, ids in place.machine()["userAssignedIdentities"].items()
        if each.endswith("-agentpool")
    )
    return Managed("cluster", identity, ids["clientId"], ids["principalId"])


def nobody(place: Controlled) -> Managed:
    """Return an identity that does not exist."""
    group = f"{place.azure.subscription}/resourceGroups/{GROUP}"
    path = "providers/Microsoft.ManagedIdentity/userAssignedIdentities/nobody"
    return Managed("nobody", f"{group}/{path}", "00000000-1111-2222-3333-444444444444")


@pytest.fixture(scope="module")
def orders(place: Controlled) -> Managed:
    """The identity of the pod `app`."""
    place.assigned("app", namespace="default")
    return place.identity("orders")


def test_scenario_02_an_identity_is_assigned_and_works_by_client_id_and_by_resource_id(
    place: Controlled, orders: Managed
) -> None:
    assert place.has(orders)
    place.works("app", client_id=orders.client_id)
    place.works("app", msi_res_id=orders.resource_id)


def test_scenario_07_a_permitted_client_id_works_and_the_other_one_does_not(
    place: Controlled,
) -> None:
    status, body = place.ask("app", client_id=place.identity("kept").client_id)
    assert (status, body["error"]) == (400, "invalid_request")


def test_scenario_11_the_same_names_in_two_namespaces_are_two_identities(
    place: Controlled, orders: Managed
) -> None:
    place.assigned("app", namespace="bank")
    place.works("app", "bank", client_id=place.identity("other").client_id)
    place.works("app", client_id=orders.client_id)


def test_scenarios_12_and_13_what_azure_refuses_keeps_nobody_else_waiting(
    place: Controlled,
) -> None:
    """An identity that does not exist, in one change with one that does, beside one on the host."""

    def by_identity() -> dict[str, str]:
        return {
            each["spec"]["azureIdentityRef"]["metadata"]["name"]: each["status"]["status"]
            for each in place.records("mixed")
        }

    place.until(lambda: by_identity().get("fresh") == "Assigned", "the valid one waits")
    place.until(lambda: by_identity().get("nobody") == "Created", "no record tells that it waits")
    place.works("mixed", client_id=place.identity("fresh").client_id)
    assert place.states("app", "default") == ["Assigned"]

    def is_told() -> bool:
        found = place.request("GET", "azureidentities/nobody").get("status", {})
        return any(each["status"] == "False" for each in found.get("conditions", ()))

    place.until(is_told, "nobody is told which identity is wrong")


def test_scenarios_03_15_16_17_18_and_20_what_mic_attached_goes_and_everything_else_stays(
    place: Controlled,
) -> None:
    """What stays: the machine's own, the cluster's, one of an operator, one that a flag names."""
    pods = ("short", "robbed", "theirs", "kept", "cluster")
    place.assigned(*pods)
    cluster = clusters_own(place)
    place.running("cluster")
    status, body = place.ask("cluster", client_id=cluster.client_id)
    assert status == 200, body
    before = place.machine()
    place.detach(place.identity("robbed"))
    for name in pods:
        place.delete(f"pods/{name}")
    for name in pods:
        place.until(lambda gone=name: not place.records(gone), f"{name}'s record stays")  # type: ignore[misc] # a default of a lambda
    place.until(lambda: not place.has(place.identity("short")), "what MIC attached stays")
    assert place.has(place.identity("theirs"))
    assert place.has(place.identity("kept"))
    assert place.has(cluster)
    after = place.machine()
    assert after["principalId"] == before["principalId"] != ""
    assert after["tenantId"] == before["tenantId"] == place.sandbox.plan.tenant_id
    ours = {each.resource_id.lower() for each in place.identities.values()}
    old = {each.lower() for each in before.get("userAssignedIdentities") or ()} - ours
    assert old <= set(place.on_host())


def test_scenario_06_an_identity_that_is_edited_in_place_is_the_new_one_in_the_same_record(
    place: Controlled,
) -> None:
    other = place.identity("other")
    place.assigned("edits")
    (before,) = place.records("edits")
    spec = {"resourceID": other.resource_id, "clientID": other.client_id}
    place.request("PATCH", "azureidentities/edited", {"spec": spec})

    def is_the_other() -> bool:
        (record,) = place.records("edits")
        copy = record["spec"]["azureIdentityRef"]["spec"]
        return (copy["clientID"], record["status"]["status"]) == (other.client_id, "Assigned")

    place.until(is_the_other, "the record is that of the old identity")
    (after,) = place.records("edits")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    place.works("edits", client_id=other.client_id)


def test_scenario_10_a_pod_whose_label_changes_has_the_other_identity(place: Controlled) -> None:
    place.pod("turns", "orders")
    place.assigned("turns")
    labels = {"metadata": {"labels": {"aadpodidbinding": "changed"}}}
    place.request("PATCH", "pods/turns", labels)

    def has_the_other() -> bool:
        copies = [each["spec"]["azureIdentityRef"] for each in place.records("turns")]
        names = [each["metadata"]["name"] for each in copies]
        return names == ["changed"] and place.states("turns") == ["Assigned"]

    place.until(has_the_other, "it has the old one still")
    place.works("turns", client_id=place.identity("other").client_id)


def test_scenario_14_an_identity_stays_while_another_pod_needs_it(
    place: Controlled, orders: Managed
) -> None:
    place.pod("second", "orders", node=0)
    place.assigned("second")
    place.delete("pods/second")
    place.until(lambda: not place.records("second"), "its record stays")
    place.works("app", client_id=orders.client_id)
    assert place.has(orders)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("azureidentities", id="scenario_04"),
        pytest.param("azureidentitybindings", id="scenario_05"),
    ],
)
def test_an_identity_or_binding_that_is_deleted_takes_the_record_and_the_token(
    place: Controlled, orders: Managed, what: str
) -> None:
    place.bind("brief", orders)
    place.pod(f"without-{what}", "brief")
    place.assigned(f"without-{what}")
    place.running(f"without-{what}")
    place.delete(f"{what}/brief")
    place.until(lambda: not place.records(f"without-{what}"), "its record stays")
    status, body = place.ask(f"without-{what}")
    assert status in {400, 404}, body


def test_scenario_21_a_service_principal_needs_no_machine(place: Controlled) -> None:
    app = place.loop.run(place.azure.make_app("mail"))
    password = place.loop.run(place.azure.add_secret(app))
    place.apply(secret("mail", clientSecret=password.value.encode()))
    reference = {"name": "mail", "namespace": "default"}
    tenant = place.sandbox.plan.tenant_id
    spec: dict[str, Any] = {"type": 1, "clientID": app.client_id, "tenantID": tenant}
    place.sandbox.run("podidentity", "grant", "-n", "default", "--identity", app.client_id)
    place.apply(*bound("mail", label="mail", clientPassword=reference, **spec))
    place.pod("mails", "mail")
    place.assigned("mails")
    place.running("mails")
    status, body = place.ask("mails", client_id=app.client_id)
    assert status == 200, body


def test_scenario_23_an_init_container_has_its_token_while_the_pod_is_pending(
    place: Controlled, orders: Managed
) -> None:
    url = "http://169.254.169.254/metadata/identity/oauth2/token"
    ask = f"curl -sf -m 100 -H Metadata:true '{url}?resource=https://vault.azure.net'"
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "eager", "labels": {"aadpodidbinding": "orders"}},
        "spec": {
            "initContainers": [{"name": "first", "image": "curl", "command": ["sh", "-c", ask]}],
            "containers": [{"name": "main", "image": "idle"}],
        },
    }
    place.apply(json.dumps(body))
    place.works("eager", client_id=orders.client_id)


def test_scenario_08_identities_that_are_removed_one_by_one_take_nothing_from_the_others(
    place: Controlled,
) -> None:
    place.assigned("many")
    left = list(FIVE)

    def status_by(name: str) -> int:
        return place.ask("many", client_id=place.identity(name).client_id)[0]

    for name in (FIVE[index] for index in (3, 0, 4, 1)):
        place.delete(f"azureidentitybindings/{name}")
        place.delete(f"azureidentities/{name}")
        left.remove(name)
        place.until(lambda: len(place.records("many")) == len(left), "its record stays")
        assert {each: status_by(each) for each in left} == dict.fromkeys(left, 200)
        place.until(lambda gone=name: status_by(gone) == 400, f"{name} is given still")  # type: ignore[misc] # a default of a lambda
    place.works("many", client_id=place.identity(left[0]).client_id)
    assert place.states("many") == ["Assigned"]


def test_scenario_22_an_excepted_pod_has_tokens_of_the_machines_identities_and_no_record(
    place: Controlled, orders: Managed
) -> None:
    """An exception of another namespace than MIC's and NMI's counts for nothing."""
    for namespace in ("kube-system", "default"):
        place.apply(*exempt(namespace))
        place.running("exempt", namespace=namespace)
    ask = ("exempt", "kube-system")
    place.until(lambda: place.ask(*ask)[0] == 200, "it has none of the machine's own")
    status, body = place.ask(*ask, client_id=orders.client_id)
    assert (status, body.get("client_id", "").lower()) == (200, orders.client_id)
    for by in ({}, {"client_id": orders.client_id}):
        status, body = place.ask("exempt", **by)
        assert (status, body["error"]) == (400, "invalid_request")
    assert not place.records("exempt")


def test_scenario_24_other_metadata_is_imdss_needs_the_header_and_may_be_blocked(
    place: Controlled,
) -> None:
    assert place.metadata("app", "unknown?api-version=2021-02-01").status == 404
    bare = place.metadata("app", "versions", header="")
    missing = "Required metadata header not specified"
    assert bare.status == 400
    assert bare.json == {"error": "invalid_request", "error_description": missing}
    blocked = place.metadata("app", "instance?api-version=2021-02-01")
    assert blocked.status == 403
    assert blocked.headers["content-type"].startswith("application/json")
    closed = "This metadata is not open to pods of this cluster."
    assert blocked.json == {"error": "access_denied", "error_description": closed}


def test_scenario_28_an_identity_with_an_invalid_resource_id_is_refused_and_a_valid_one_taken(
    place: Controlled, orders: Managed
) -> None:
    """The archived suite had Gatekeeper's policy for it."""
    wrong = orders.resource_id.replace("userAssignedIdentities", "systemAssignedIdentities")
    with pytest.raises(SandboxError, match=r"spec\.resourceID must match /subscriptions/"):
        place.apply(of_type_0("wrong", wrong, orders))
    place.apply(of_type_0("right", orders.resource_id, orders))
    assert place.request("GET", "azureidentities/right")["spec"]["clientID"] == orders.client_id


def test_scenario_25_exactly_one_mic_says_active_and_all_are_ready(place: Controlled) -> None:
    names = [each["metadata"]["name"] for each in place.mics()]
    assert sorted(_page(place, each, "/healthz") for each in names) == ["Active", "Not Active"]
    for each in names:
        said = json.loads(_page(place, each, "/readyz"))
        assert (said["ready"], said["build"]) == (True, build())


def _page(place: Controlled, pod: str, path: str) -> str:
    where = f"/api/v1/namespaces/kube-system/pods/{pod}:8080/proxy{path}"
    return place.sandbox.run("kubectl", "get", "--raw", where)


def test_a_pause_keeps_azure_as_it_is_and_check_says_so(place: Controlled, orders: Managed) -> None:
    place.sandbox.run("podidentity", "mic", "pause")
    waits = place.identity("waits")
    place.bind("waits", waits)
    place.pod("waits", "waits")
    place.pod("goes-on", "orders")
    place.assigned("goes-on")
    place.until(lambda: place.states("waits") == ["Created"], "it is not even recorded")
    assert "ControllerPaused" in place.checked()
    assert not place.has(waits)
    assert place.has(orders)
    place.sandbox.run("podidentity", "mic", "resume")
    place.assigned("waits")
    assert "ControllerPaused" not in place.checked()


def test_scenario_09_forty_pods_are_assigned_and_each_has_its_token(
    place: Controlled, orders: Managed
) -> None:
    names = [f"crowd-{number}" for number in range(40)]
    for name in names:
        place.pod(name, "orders")
    place.assigned(*names)
    place.running(*names)
    given = [(status, body.get("client_id")) for status, body in place.ask_all(names)]
    assert given == [(200, orders.client_id)] * len(names)
    place.works(names[-1], client_id=orders.client_id)
    for name in names:
        place.delete(f"pods/{name}")
    place.until(lambda: not place.records(names[0]), "its record stays")


def test_a_leader_that_is_stopped_hands_over_before_its_lease_ends(place: Controlled) -> None:
    held = place.followers(place.leader())
    assert held[0] == "", "it was not given back, and was taken when it had ended"


def test_scenarios_19_and_27_leaders_that_die_lose_no_assignment_and_the_next_repairs_drift(
    place: Controlled, orders: Managed
) -> None:
    """An identity that is in use is detached by somebody, and pods come, while leaders die."""
    place.detach(orders)
    names = [f"late-{number}" for number in range(2)]
    for name in names:
        place.bind(name, place.identity(name))
        place.pod(name, name)
        gone = place.leader()
        place.stop(gone, seconds=0)
        place.until(lambda: place.leads_another(gone), "nobody leads")  # noqa: B023 - awaited here
    place.assigned(*names)
    place.works(names[0], client_id=place.identity(names[0]).client_id)
    place.until(lambda: place.has(orders), "it stays away")
    place.assigned("app", namespace="default")
    place.works("app", client_id=orders.client_id)


def test_scenario_01_the_rules_are_on_every_node_and_close_it_when_pod_identity_is_gone(
    place: Controlled,
) -> None:
    """The archived one took its rules away; `--on-exit=remove` does: test_other_ways.py."""

    def closed() -> list[bool]:
        numbers = range(len(place.sandbox.plan.nodes))
        return [
            "table ip podid\n" in place.sandbox.on_node("nft", "list", "tables", number=number)
            for number in numbers
        ]

    assert closed() == [True, True]
    place.sandbox.run("podidentity", "disable")
    place.until(lambda: not place.pods_of("mic") + place.pods_of("nmi"), "its pods stay")
    assert closed() == [True, True]
