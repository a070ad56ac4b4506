"""The other ways to run MIC, and outcomes of the archived suite under the switches back to them.

In one sandbox, by parts that each start MIC anew:

    as before: signed in by a secret, in a cluster that a release of 1.5 leaves, by the old rules
    --assign=all-hosts: signed in as the cloud provider's file says, which is replaced
    --assign=none: not signed in at all

In real weather, as test_identities_follow_pods.py beside it. The archived suite:
https://github.com/Azure/aad-pod-identity/tree/master/test/e2e.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.directory import bound, manifest, secret
from tests.acceptance.mic.controlled import (
    API,
    BLOCKED,
    Controlled,
    Managed,
    exempt,
    give_roles,
    install,
    of_type_0,
    prepared,
)
from tests.acceptance.mic.load import Load

FINALIZER = "azureassignedidentity.finalizers.aadpodidentity.k8s.io"
KINDS = {
    "AzureIdentity": "azureidentities",
    "AzureIdentityBinding": "azureidentitybindings",
    "AzureAssignedIdentity": "azureassignedidentities",
    "AzurePodIdentityException": "azurepodidentityexceptions",
}
ADMIN_SECRET = "aadpodidentity-admin-secret"
CROSSING = ("--forceNamespaced=false", "--compat-cross-namespace")
SDK = """
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ManagedIdentityCredential
class Told(RequestsTransport):
    def send(self, request, **kwargs):
        response = super().send(request, **kwargs)
        with open("/tmp/statuses", "a") as told:
            print(response.status_code, file=told)
        return response
credential = ManagedIdentityCredential(transport=Told(), retry_total=20)
print(credential.get_token("https://vault.azure.net/.default").token)
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Controlled]:
    with prepared("mic-ways") as found:
        yield found


# As before


@dataclass
class Leftover:
    """What a release of 1.5 leaves in a cluster."""

    identity: Managed
    record: str
    """Its uid."""


@pytest.fixture(scope="module")
def leftover(place: Controlled) -> Leftover:
    """The definitions of 1.5, which keep every field, and objects in its spelling.

    https://github.com/Azure/aad-pod-identity/releases/tag/v1.6.0
    """
    for kind, plural in KINDS.items():
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {"name": "v1", "served": True, "storage": True}
        place.create(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            {
                "metadata": {
                    "name": f"{plural}.aadpodidentity.k8s.io",
                    "annotations": {"api-approved.kubernetes.io": "unapproved"},
                },
                "spec": {
                    "group": "aadpodidentity.k8s.io",
                    "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                    "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
                },
            },
        )
    old = place.identity("old")
    place.attach(old, system=True)
    spec = {"type": 0, "ResourceID": old.resource_id, "ClientID": old.client_id}
    named = {"AzureIdentity": "old", "Selector": "old"}
    excepted = {"PodLabels": {"tier": "exempt"}}
    place.apply(
        manifest(API, "AzureIdentity", "old", spec=spec),
        manifest(API, "AzureIdentityBinding", "old", spec=named),
        manifest(API, "AzurePodIdentityException", "old", "kube-system", spec=excepted),
    )
    place.pod("old", "old")
    copies = {
        "azureidentityref": place.request("GET", "azureidentities/old"),
        "azurebindingref": place.request("GET", "azureidentitybindings/old"),
    }
    where = {"pod": "old", "podNamespace": "default", "nodename": place.sandbox.plan.nodes[0].name}
    place.apply(
        manifest(
            API,
            "AzureAssignedIdentity",
            "old-default-old",
            metadata={"finalizers": [FINALIZER]},
            spec={**copies, **where},
            Status={"status": "Assigned", "availableReplicas": 1},
        )
    )
    made = place.request("GET", "azureassignedidentities/old-default-old")
    return Leftover(old, made["metadata"]["uid"])


@pytest.fixture(scope="module")
def as_before(place: Controlled, leftover: Leftover) -> Controlled:
    """MIC signed in by the Secret of its namespace, with the old rules and no grace."""
    del leftover
    password = place.loop.run(place.azure.add_secret(place.app))
    place.apply(
        secret(
            ADMIN_SECRET,
            "kube-system",
            ClientID=place.app.client_id.encode(),
            ClientSecret=password.value.encode(),
            TenantID=str(place.sandbox.plan.tenant_id).encode(),
            Cloud=b"AzurePublicCloud",
        )
    )
    open_ = ("--compat-text-errors", "--exception-namespaces=*", *CROSSING, *BLOCKED)
    install_as_before(place, *open_, options=["--no-admission-policies"])
    return place


def install_as_before(place: Controlled, *nmi: str, options: Sequence[str] = ()) -> None:
    """Have MIC run as before, beside NMI with these flags."""
    install(place.sandbox, "--detach-grace=0s", CROSSING[1], nmi=nmi, options=options)


def test_scenario_29_objects_of_a_release_of_1_5_keep_working(
    as_before: Controlled, leftover: Leftover
) -> None:
    as_before.assigned("old")
    as_before.works("old", client_id=leftover.identity.client_id)

    def is_taken_over() -> bool:
        meta = as_before.request("GET", "azureassignedidentities/old-default-old")["metadata"]
        return meta["uid"] == leftover.record and not meta.get("finalizers")

    as_before.until(is_taken_over, "its record has a finalizer, or is another one")
    for path, namespace in (
        ("azureidentities/old", "default"),
        ("azureidentitybindings/old", "default"),
        ("azurepodidentityexceptions/old", "kube-system"),
    ):
        as_before.until(lambda at=(path, namespace): as_before.condition(*at), f"{path} has none")  # type: ignore[misc] # a default of a lambda
        assert as_before.condition(path, namespace)["status"] == "True"
    spec = as_before.request("GET", "azureidentities/old")["spec"]
    assert spec["ClientID"] == leftover.identity.client_id


def test_signed_in_by_a_secret_mic_attaches_what_a_pod_needs(as_before: Controlled) -> None:
    shared = as_before.identity("shared")
    as_before.bind("shared", shared)
    for name in ("one", "two"):
        as_before.pod(name, "shared")
    as_before.assigned("one", "two")
    as_before.works("one", client_id=shared.client_id)


def test_scenarios_03_and_14_as_before_an_identity_goes_with_its_last_pod_at_once(
    as_before: Controlled, leftover: Leftover
) -> None:
    shared = as_before.identity("shared")
    as_before.delete("pods/two")
    as_before.until(lambda: not as_before.records("two"), "its record stays")
    as_before.works("one", client_id=shared.client_id)
    assert as_before.has(shared)
    for name in ("one", "old"):
        as_before.delete(f"pods/{name}")
    as_before.until(lambda: not as_before.records("one"), "its record stays")
    as_before.until(lambda: not as_before.has(shared), "it stays attached")
    as_before.until(lambda: not as_before.records("old"), "its record stays")
    assert as_before.has(leftover.identity), "MIC did not attach it"


def test_scenario_11_as_before_of_the_same_names_in_two_namespaces_the_first_counts(
    as_before: Controlled,
) -> None:
    first, second = as_before.identity("first"), as_before.identity("second")
    for namespace, identity in (("beta", second), ("alpha", first)):
        as_before.bind("twin", identity, namespace)
        as_before.grant(identity)
    as_before.pod("twin", "twin")

    def is_assigned() -> bool:
        found = {each["metadata"]["name"]: each for each in as_before.records("twin")}
        record = found.get("twin-default-twin", {"status": {}})
        return bool(record["status"].get("status") == "Assigned")

    as_before.until(is_assigned, "no record has the old name")
    record = as_before.request("GET", "azureassignedidentities/twin-default-twin")
    assert record["spec"]["azureIdentityRef"]["metadata"]["namespace"] == "alpha"
    as_before.works("twin", client_id=first.client_id)


def test_scenario_07_as_before_a_client_id_of_another_pod_is_not_found_in_plain_text(
    as_before: Controlled, leftover: Leftover
) -> None:
    where = "identity/oauth2/token?resource=https://vault.azure.net&client_id="
    reply = as_before.metadata("twin", f"{where}{leftover.identity.client_id}")
    assert reply.status == 404
    assert reply.body.startswith("no azure identity found for request clientID ")


def test_scenario_22_as_before_an_exception_of_any_namespace_counts(as_before: Controlled) -> None:
    as_before.apply(*exempt("default"))
    as_before.running("exempt")
    by = "identity/oauth2/token?resource=https://vault.azure.net"
    for more in ("", f"&client_id={as_before.identity('old').client_id}"):
        as_before.until(
            lambda path=by + more: as_before.metadata("exempt", path).status == 200,  # type: ignore[misc] # a default of a lambda
            f"it has none of the machine's: {more}",
        )
    assert not as_before.records("exempt")


def test_scenario_24_as_before_blocked_metadata_is_refused_in_plain_text(
    as_before: Controlled,
) -> None:
    path = "?api-version=2021-02-01"
    assert as_before.metadata("twin", f"unknown{path}").status == 404
    assert as_before.metadata("twin", "versions", header="").status == 400
    blocked = as_before.metadata("twin", f"instance{path}")
    assert blocked.status == 403
    assert blocked.headers["content-type"] == "text/plain; charset=utf-8"
    assert blocked.body == "Request blocked by AAD Pod Identity NMI\n"


def test_scenario_28_as_before_an_invalid_resource_id_is_taken_without_a_policy(
    as_before: Controlled, leftover: Leftover
) -> None:
    right = leftover.identity.resource_id
    wrong = right.replace("userAssignedIdentities", "systemAssignedIdentities")
    as_before.apply(of_type_0("wrong", wrong, leftover.identity))
    told = "azureidentities/wrong"
    as_before.until(lambda: as_before.condition(told).get("status") == "False", "nobody is told")


def test_scenario_30_many_pods_of_many_namespaces_on_many_nodes_are_assigned(
    as_before: Controlled,
) -> None:
    nodes = as_before.hollow_nodes(30)
    shared = [as_before.identity(name) for name in ("shared", "first", "second", "old")]
    load = Load(place=as_before, pods=200, namespaces=20, nodes=nodes, identities=shared)
    load.bind()
    load.make()
    as_before.until(lambda: load.states() == ["Assigned"] * 200, "not all are Assigned")


def test_scenario_26_an_sdk_that_obeys_retry_after_has_its_token_in_the_end(
    as_before: Controlled,
) -> None:
    """While MIC pauses nothing is attached: so the first answer tells to come again."""
    place = as_before
    flags = ("--set-retry-after-header", "--retry-attempts-for-created=1")
    more = ("--retry-attempts-for-assigned=1", "--find-identity-retry-interval=1")
    install_as_before(place, *flags, *more)
    place.sandbox.run("podidentity", "mic", "pause")
    place.bind("late", place.identity("late"))
    place.pod("late", "late")
    place.until(lambda: place.states("late") == ["Created"], "it has no record")
    place.running("late")
    refused = place.metadata("late", "identity/oauth2/token?resource=https://vault.azure.net")
    assert (refused.status, refused.headers["retry-after"]) == (503, "20")

    async def asked() -> str:
        shell = place.sandbox.shell
        asking = asyncio.create_task(shell(f"{sys.executable} -c '{SDK}'", pod="late"))
        await shell("until [ -s /tmp/statuses ]; do sleep 0.2; done", pod="late")
        await asyncio.to_thread(place.sandbox.run, "podidentity", "mic", "resume")
        ran = await asking
        return (ran.stdout + ran.stderr).decode()

    assert place.loop.run(asked()).startswith("eyJ")
    first, *between, last = place.inside("late", "cat /tmp/statuses").split()
    assert (first, set(between) <= {"503"}, last) == ("503", True, "200")


def works_in_the_end(place: Controlled, pod: str, identity: Managed) -> None:
    """Have a pod use an identity that comes to its machine, which no record tells."""
    place.running(pod)
    by = {"client_id": identity.client_id}
    place.until(lambda: place.ask(pod, **by)[0] == 200, "IMDS does not know it")
    place.works(pod, **by)


# Every host


@dataclass
class CloudFile:
    """The cloud provider's file of a node."""

    path: Path
    tenant: str

    def write(self, **more: Any) -> None:
        """Write it in place, as the kubelet's mount of one file shows it."""
        known = {"cloud": "AzurePublicCloud", "tenantId": self.tenant}
        self.path.write_text(json.dumps({**known, **more}))


@dataclass
class Everywhere:
    """MIC that attaches to all hosts."""

    place: Controlled
    file: CloudFile
    roles: list[str]
    """Role assignments of the identity that it signs in by first."""


@pytest.fixture(scope="module")
def everywhere(as_before: Controlled, tmp_path_factory: pytest.TempPathFactory) -> Everywhere:
    """MIC in managed mode, by a managed identity of its machine, as AKS configures it."""
    place = as_before
    place.request("DELETE", f"secrets/{ADMIN_SECRET}", namespace="kube-system")
    its_own = place.identity("controller")
    place.attach(its_own)
    roles = place.loop.run(give_roles(place.azure, place.sandbox, its_own.principal_id))
    path = tmp_path_factory.mktemp("node") / "azure.json"
    file = CloudFile(path, str(place.sandbox.plan.tenant_id))
    file.write(useManagedIdentityExtension=True, userAssignedIdentityID=its_own.client_id)
    install(place.sandbox, "--assign=all-hosts", f"--cloudconfig={path}", "--detach-grace=0s")
    return Everywhere(place, file, roles)


def test_signed_in_by_a_managed_identity_mic_attaches_to_all_hosts_before_the_first_pod(
    everywhere: Everywhere,
) -> None:
    place = everywhere.place
    roams = place.identity("roams")
    place.bind("roams", roams)
    place.until(lambda: place.has(roams), "it is not attached")
    place.pod("roams", "roams")
    works_in_the_end(place, "roams", roams)
    assert place.records("roams") == []


def test_a_cloud_configuration_that_changes_counts_at_once_and_a_secret_in_it_too(
    everywhere: Everywhere,
) -> None:
    place = everywhere.place
    password = place.loop.run(place.azure.add_secret(place.app))
    everywhere.file.write(aadClientId=place.app.client_id, aadClientSecret=password.value)
    for each in everywhere.roles:
        place.loop.run(place.azure.arm("DELETE", each))
    later = place.identity("later")
    place.bind("later", later)
    place.until(lambda: place.has(later), "it is not attached")


# No host


@pytest.fixture(scope="module")
def nowhere(everywhere: Everywhere) -> Controlled:
    """MIC that attaches nothing, and cannot sign in."""
    install(everywhere.place.sandbox, "--assign=none", nmi=["--on-exit=remove"])
    return everywhere.place


def test_mic_that_attaches_nothing_needs_no_credential_and_leaves_it_to_the_operator(
    nowhere: Controlled,
) -> None:
    before = set(nowhere.on_host())
    by_hand = nowhere.identity("by-hand")
    nowhere.bind("by-hand", by_hand)
    nowhere.pod("by-hand", "by-hand")
    nowhere.until(lambda: nowhere.condition("azureidentities/by-hand"), "it has no condition")
    assert nowhere.condition("azureidentities/by-hand")["status"] == "True"
    assert (set(nowhere.on_host()), nowhere.records("by-hand")) == (before, [])
    nowhere.attach(by_hand)
    works_in_the_end(nowhere, "by-hand", by_hand)


def test_a_missing_permission_is_told_on_the_identity_until_it_is_granted(
    nowhere: Controlled,
) -> None:
    ids = {"resourceID": nowhere.identity("later").resource_id}
    ids |= {"clientID": nowhere.identity("later").client_id}
    place, path = nowhere, "azureidentities/waits"
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "waits"}}
    place.apply(json.dumps(space), *bound("waits", "waits", label="waits", type=0, **ids))
    place.pod("waits", "waits", "waits")

    def reason() -> Any:
        return place.condition(path, "waits").get("reason")

    place.until(lambda: reason() == "NotPermitted", "nobody is told")
    told = place.condition(path, "waits")["message"]
    assert f"podidentity grant --namespace waits --identity {ids['clientID']}" in told
    place.grant(place.identity("later"), "waits")
    place.until(lambda: reason() == "Usable", "it is told still", 45)


def test_scenario_01_as_before_the_rules_are_on_the_node_until_pod_identity_is_taken_away(
    nowhere: Controlled,
) -> None:
    def tables() -> str:
        return nowhere.sandbox.on_node("nft", "list", "tables")

    assert "table ip podid\n" in tables()
    nowhere.sandbox.run("podidentity", "disable")
    nowhere.until(lambda: "podid" not in tables(), "rules stay")
