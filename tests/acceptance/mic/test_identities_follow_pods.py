"""The archived suite's scenarios of MIC, by their numbers, in one sandbox in real weather.

Where ours differs on purpose the difference is asserted: a record is gone at once with its pod, and
what MIC attached is detached after the grace. Its suite:
https://github.com/Azure/aad-pod-identity/tree/master/test/e2e. Scenarios 1, 22, 24 and 26 are NMI's
alone: tests/acceptance/test_scenarios.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from podidentity_sandbox.demo.prepare import GROUP
from tests.acceptance.directory import bound, secret
from tests.acceptance.mic.controlled import Controlled, Managed, controlled

pytestmark = pytest.mark.usefixtures("orders")


@pytest.fixture(scope="module")
def place() -> Iterator[Controlled]:
    flags = ("--detach-grace=5s", "--identity-assignment-reconcile-interval=10s")
    with controlled("mic-pods", *flags) as found:
        yield found


@pytest.fixture(scope="module")
def orders(place: Controlled) -> Managed:
    """An identity that the pod `app` has, for all tests of this file."""
    found = place.identity("orders")
    place.bind("orders", found)
    place.pod("app", "orders")
    place.assigned("app")
    return found


def test_scenario_02_an_identity_is_assigned_and_works_by_client_id_and_by_resource_id(
    place: Controlled, orders: Managed
) -> None:
    assert place.has(orders)
    place.works("app", client_id=orders.client_id)
    place.works("app", msi_res_id=orders.resource_id)


def test_scenario_03_a_pod_that_is_deleted_has_no_record_and_its_identity_goes_after_the_grace(
    place: Controlled, orders: Managed
) -> None:
    short = place.identity("short")
    place.bind("short", short)
    place.pod("brief", "short")
    place.assigned("brief")
    place.delete("pods/brief")
    place.until(lambda: not place.records("brief"), "its record stays")
    place.until(lambda: not place.has(short), "its identity stays")
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
    """Scenarios 4 and 5."""
    place.bind("short", orders)
    place.pod(f"without-{what}", "short")
    place.assigned(f"without-{what}")
    place.delete(f"{what}/short")
    place.until(lambda: not place.records(f"without-{what}"), "its record stays")
    status, body = place.ask(f"without-{what}", "default", 15)
    assert status in {400, 404}, body


def test_scenario_06_an_identity_that_is_edited_in_place_is_the_new_one_in_the_same_record(
    place: Controlled, orders: Managed
) -> None:
    other = place.identity("other")
    place.grant(other)
    place.bind("edited", orders)
    place.pod("edits", "edited")
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
    place.delete("pods/edits")


def test_scenario_07_a_permitted_client_id_works_and_the_other_one_does_not(
    place: Controlled,
) -> None:
    status, body = place.ask("app", client_id=place.identity("kept").client_id)
    assert (status, body["error"]) == (400, "invalid_request")


def test_scenario_10_a_pod_whose_label_changes_has_the_other_identity(place: Controlled) -> None:
    other = place.identity("other")
    place.bind("changed", other)
    place.pod("turns", "orders")
    place.assigned("turns")
    labels = {"metadata": {"labels": {"aadpodidbinding": "changed"}}}
    place.request("PATCH", "pods/turns", labels)

    def has_the_other() -> bool:
        names = [
            each["spec"]["azureIdentityRef"]["metadata"]["name"] for each in place.records("turns")
        ]
        return names == ["changed"] and place.states("turns") == ["Assigned"]

    place.until(has_the_other, "it has the old one still")
    place.works("turns", client_id=other.client_id)
    place.delete("pods/turns")


def test_scenario_11_the_same_names_in_two_namespaces_are_two_identities(
    place: Controlled, orders: Managed
) -> None:
    place.bind("orders", place.identity("other"), namespace="bank")
    place.pod("app", "orders", namespace="bank")
    place.assigned("app", namespace="bank")
    place.works("app", "bank", client_id=place.identity("other").client_id)
    place.works("app", client_id=orders.client_id)


def test_scenarios_12_and_13_what_azure_refuses_keeps_nobody_else_waiting(
    place: Controlled,
) -> None:
    """An identity that does not exist, in one change with one that does, beside one on the host."""
    nobody = Managed(
        "nobody",
        f"{place.azure.subscription}/resourceGroups/{GROUP}/providers/Microsoft.ManagedIdentity"
        "/userAssignedIdentities/nobody",
        "00000000-1111-2222-3333-444444444444",
    )
    fresh = place.identity("fresh")
    place.bind("nobody", nobody, label="mixed")
    place.bind("fresh", fresh, label="mixed")
    place.pod("mixed", "mixed")

    def by_identity() -> dict[str, str]:
        return {
            each["spec"]["azureIdentityRef"]["metadata"]["name"]: each["status"]["status"]
            for each in place.records("mixed")
        }

    place.until(lambda: by_identity().get("fresh") == "Assigned", "the valid one waits")
    assert by_identity()["nobody"] == "Created"
    place.works("mixed", client_id=fresh.client_id)
    assert place.states("app") == ["Assigned"]

    def is_told() -> bool:
        found = place.request("GET", "azureidentities/nobody").get("status", {})
        return any(each["status"] == "False" for each in found.get("conditions", ()))

    place.until(is_told, "nobody is told which identity is wrong")
    place.delete("pods/mixed")
    place.delete("azureidentities/nobody")


def test_scenario_14_an_identity_stays_while_another_pod_needs_it(
    place: Controlled, orders: Managed
) -> None:
    place.pod("second", "orders", node=0)
    place.assigned("second")
    place.delete("pods/second")
    place.until(lambda: not place.records("second"), "its record stays")
    place.works("app", client_id=orders.client_id)
    assert place.has(orders)


def test_scenario_15_a_record_goes_though_somebody_detached_its_identity(place: Controlled) -> None:
    short = place.identity("short")
    place.bind("short", short)
    place.pod("robbed", "short")
    place.assigned("robbed")
    place.detach(short)
    place.delete("pods/robbed")
    place.until(lambda: not place.records("robbed"), "its record stays")


def test_scenarios_16_17_18_and_20_what_was_there_and_what_is_immutable_stays(
    place: Controlled,
) -> None:
    """The machine's own identity, the cluster's, one of an operator, one that a flag names."""
    plan = place.sandbox.plan
    before = place.loop.run(place.azure.arm("GET", plan.scale_set_id))["identity"]
    theirs, kept = place.identity("theirs"), place.identity("kept")
    place.attach(theirs)
    place.bind("theirs", theirs)
    place.bind("kept", kept)
    for name in ("theirs", "kept"):
        place.pod(f"uses-{name}", name)
    place.assigned("uses-theirs", "uses-kept")
    for name in ("theirs", "kept"):
        place.delete(f"pods/uses-{name}")
    place.until(
        lambda: not place.records("uses-theirs") and not place.records("uses-kept"), "records stay"
    )
    # A witness: what MIC attached goes, later than those two would have.
    witness = place.identity("witness")
    place.bind("witness", witness)
    place.pod("saw", "witness")
    place.assigned("saw")
    place.delete("pods/saw")
    place.until(lambda: not place.has(witness), "what MIC attached stays")
    assert place.has(theirs)
    assert place.has(kept)
    after = place.loop.run(place.azure.arm("GET", plan.scale_set_id))["identity"]
    assert (after.get("principalId"), after.get("tenantId")) == (
        before.get("principalId"),
        before.get("tenantId"),
    )
    old = {each.lower() for each in before.get("userAssignedIdentities") or ()}
    ours = {each.resource_id.lower() for each in place.identities.values()}
    assert old - ours <= set(place.on_host())


def test_scenario_19_what_somebody_detached_while_it_was_in_use_comes_back(
    place: Controlled, orders: Managed
) -> None:
    place.detach(orders)
    place.until(lambda: place.has(orders), "it stays away")
    place.assigned("app")
    place.works("app", client_id=orders.client_id)


def test_scenario_21_a_service_principal_needs_no_machine(place: Controlled) -> None:
    app = place.loop.run(place.azure.make_app("mail"))
    password = place.loop.run(place.azure.add_secret(app))
    tenant = place.sandbox.plan.tenant_id
    place.apply(secret("mail", clientSecret=password.value.encode()))
    reference = {"name": "mail", "namespace": "default"}
    spec: dict[str, Any] = {
        "type": 1,
        "clientID": app.client_id,
        "tenantID": tenant,
        "clientPassword": reference,
    }
    place.apply(*bound("mail", label="mail", clientPassword=reference, **spec))
    place.sandbox.run("podidentity", "grant", "-n", "default", "--identity", app.client_id)
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
    place.running("eager")
    place.works("eager", client_id=orders.client_id)


def test_scenario_08_identities_that_are_removed_one_by_one_take_nothing_from_the_others(
    place: Controlled,
) -> None:
    names = [f"five-{number}" for number in range(5)]
    for name in names:
        place.bind(name, place.identity(name), label="five")
    place.pod("many", "five")
    place.assigned("many")
    for name in (names[index] for index in (3, 0, 4, 1)):
        place.delete(f"azureidentitybindings/{name}")
        place.delete(f"azureidentities/{name}")
        names.remove(name)
        place.until(lambda: len(place.records("many")) == len(names), "its record stays")
        place.works("many", client_id=place.identity(names[0]).client_id)
    assert place.states("many") == ["Assigned"]


def test_scenario_25_exactly_one_mic_says_active_and_all_are_ready(place: Controlled) -> None:
    said = [_page(place, each, "/healthz") for each in place.mics()]
    assert sorted(said) == ["Active", "Not Active"]
    for each in place.mics():
        assert json.loads(_page(place, each, "/readyz"))["ready"]


def _page(place: Controlled, pod: dict[str, object], path: str) -> str:
    meta = pod["metadata"]
    assert isinstance(meta, dict)
    command = ("kubectl", "get", "--raw")
    return place.sandbox.run(
        *command, f"/api/v1/namespaces/kube-system/pods/{meta['name']}:8080/proxy{path}"
    )


def test_scenario_09_forty_pods_are_assigned(place: Controlled, orders: Managed) -> None:
    names = [f"crowd-{number}" for number in range(40)]
    for name in names:
        place.pod(name, "orders")
    place.assigned(*names)
    place.works(names[-1], client_id=orders.client_id)


def test_scenario_27_leaders_that_are_deleted_one_after_the_other_lose_no_assignment(
    place: Controlled,
) -> None:
    names = [f"late-{number}" for number in range(3)]
    for name in names:
        place.bind(name, place.identity(name))
        place.pod(name, name)
        gone = place.leader()
        place.kill(gone)
        place.until(lambda: place.leads_another(gone), "nobody leads")  # noqa: B023 - awaited here
    place.assigned(*names)
    place.works(names[0], client_id=place.identity(names[0]).client_id)
