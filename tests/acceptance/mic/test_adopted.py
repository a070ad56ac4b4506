"""MIC after the archived one, and back: what `migrate adopt` leaves out stays attached.

The archived MIC itself attaches, and its records say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from podidentity_sandbox.weather import CALM
from tests.acceptance.directory import manifest, secret
from tests.acceptance.mic.controlled import (
    API,
    SECONDS,
    Controlled,
    Managed,
    install,
    prepared,
)
from tests.kubernetes.judge import BROUGHT_BY, WANTING
from tests.kubernetes.programs import place as programs

ARCHIVED = programs() / "archived/aad-pod-identity-mic"
pytestmark = pytest.mark.skipif(not ARCHIVED.is_file(), reason=f"{WANTING}: {BROUGHT_BY}")
MIC = "archived-mic"
ITS_FINALIZER = "azureassignedidentity.finalizers.aadpodidentity.k8s.io"
CLOUD = "AzurePublicCloud"
OF = {"ours": "default", "network": "default", "excepted": "kube-system"}
"""The namespace of each identity: an exception is of its own namespace's pods."""
IDLE = {"containers": [{"name": "main", "image": "idle"}]}
EXEMPT = manifest(
    *("v1", "Pod", "exempt", "kube-system"),
    metadata={"labels": {"aadpodidbinding": "excepted", "tier": "exempt"}},
    spec=IDLE,
)


@dataclass
class Adopted:
    """A cluster in which our MIC has just taken the place of the archived one."""

    place: Controlled
    said: str
    """What `migrate adopt` printed."""
    ours: Managed
    """What it wrote into a ledger."""
    left: tuple[Managed, Managed]
    """What it left out: what a pod of the node's network and an excepted one need."""
    cloud: Path
    """How the archived MIC signs in."""


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adopted]:
    # Without weather: the tests ask what is detached, and not how long Azure takes.
    with prepared("mic-adopted", weather=CALM) as place:
        place.sandbox.run("podidentity", "enable")
        ours, network, excepted = map(place.identity, ("ours", "network", "excepted"))
        for each in (ours, network, excepted):
            place.bind(each.name, each, OF[each.name])
            place.pod(f"app-{each.name}", each.name, OF[each.name])
        place.apply(
            manifest(
                *(API, "AzurePodIdentityException", "exempt", "kube-system"),
                spec={"podLabels": {"tier": "exempt"}},
            ),
            EXEMPT,
            manifest(
                *("v1", "Pod", "agent"),
                metadata={"labels": {"aadpodidbinding": "network"}},
                spec={**IDLE, "hostNetwork": True},
            ),
        )
        password = place.loop.run(place.azure.add_secret(place.app)).value
        cloud = tmp_path_factory.mktemp("node") / "azure.json"
        attach_by_archived(place, password, cloud)
        said = place.sandbox.run("podidentity", "migrate", "adopt", "--yes")
        keys = {"ClientID": place.app.client_id, "ClientSecret": password}
        keys |= {"TenantID": place.sandbox.plan.tenant_id, "Cloud": CLOUD}
        entries = {key: value.encode() for key, value in keys.items()}
        place.apply(secret("aadpodidentity-admin-secret", "kube-system", **entries))
        install(place.sandbox, "--detach-grace=0s", "--identity-assignment-reconcile-interval=10s")
        yield Adopted(place, said, ours, (network, excepted), cloud)


def attach_by_archived(place: Controlled, password: str, file: Path) -> None:
    """Have the archived MIC attach what all pods of today need, and end."""
    plan = place.sandbox.plan
    signed_in = {"aadClientId": place.app.client_id, "aadClientSecret": password}
    _, _, subscription, _, group, *_ = plan.scale_set_id.split("/")
    machines = {"subscriptionId": subscription, "resourceGroup": group, "vmType": "vmss"}
    file.write_text(
        json.dumps({"cloud": CLOUD, "tenantId": plan.tenant_id, **signed_in, **machines})
    )
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    place.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {"metadata": {"name": MIC}, "roleRef": role, "subjects": [subject]},
    )
    start_archived(place, file)
    # A real API server refuses reads of a kind for a moment after it was made; kubectl asks again.
    place.sandbox.run("kubectl", "get", "azureassignedidentities")
    place.assigned("agent", "exempt", "app-ours", "app-network", "app-excepted")
    place.delete(f"pods/{MIC}")
    until_gone(place, MIC)


def start_archived(place: Controlled, file: Path) -> None:
    files = {"cloud": file, "program": ARCHIVED}
    volumes = [{"name": name, "hostPath": {"path": str(path)}} for name, path in files.items()]
    container = {
        "name": "mic",
        "image": "mic",
        "command": [str(ARCHIVED), f"--cloudconfig={file}", "--logtostderr"],
        "env": [{"name": "MIC_POD_NAMESPACE", "value": "default"}],
        "volumeMounts": [{"name": name, "mountPath": str(path)} for name, path in files.items()],
    }
    place.apply(manifest("v1", "Pod", MIC, spec={"containers": [container], "volumes": volumes}))


def until_gone(place: Controlled, pod: str, namespace: str = "default") -> None:
    wait = ("kubectl", "wait", "--for=delete", "--namespace", namespace)
    place.sandbox.run(*wait, f"pod/{pod}", f"--timeout={SECONDS:g}s")


def test_what_adopt_leaves_out_stays_while_all_others_go_and_an_excepted_pod_is_replaced(
    adopted: Adopted,
) -> None:
    """While an excepted pod is there MIC detaches nothing that it needs: so it goes, too."""
    place = adopted.place
    for pod, each in zip(("default/agent", "kube-system/exempt"), adopted.left, strict=True):
        assert f"pod {pod} asks IMDS itself for {each.resource_id} on " in adopted.said
    place.request("DELETE", "pods/exempt", namespace="kube-system")
    until_gone(place, "exempt", "kube-system")
    for name in ("excepted", "network", "ours"):
        place.request("DELETE", f"pods/app-{name}", namespace=OF[name])
        place.until(lambda gone=name: not place.records(f"app-{gone}"), "its record stays")  # type: ignore[misc] # a default of a lambda
    place.until(lambda: not place.has(adopted.ours), "what MIC took as its own stays")
    assert [place.has(each) for each in adopted.left] == [True, True]
    place.apply(EXEMPT)


def test_what_adopt_leaves_out_stays_after_a_restart_of_mic_beside_what_mic_attaches_and_detaches(
    adopted: Adopted,
) -> None:
    place = adopted.place
    for each in place.mics():
        place.stop(each["metadata"]["name"])
    place.pod("later", "ours")
    place.pod("beside", "network")
    place.assigned("later", "beside")
    for name in ("later", "beside"):
        place.delete(f"pods/{name}")
    place.until(lambda: not place.records("beside"), "its record stays")
    place.until(lambda: not place.has(adopted.ours), "what MIC attached stays")
    assert [place.has(each) for each in adopted.left] == [True, True]


def test_the_archived_mic_has_the_cluster_back_and_ours_waits_until_it_ends(
    adopted: Adopted,
) -> None:
    place = adopted.place
    place.sandbox.run("podidentity", "disable")
    start_archived(place, adopted.cloud)
    place.pod("given-back", "ours")
    place.assigned("given-back")
    install(place.sandbox, options=["--no-wait"])
    place.until(lambda: "delete its Deployment" in place.told(), "ours does not say that it waits")
    place.pod("meanwhile", "ours")
    place.assigned("meanwhile")
    assert finalizers(place, "meanwhile") == {ITS_FINALIZER}, "the archived MIC made it"
    place.delete(f"pods/{MIC}")
    until_gone(place, MIC)
    place.until(lambda: ITS_FINALIZER not in finalizers(place, "meanwhile"), "ours does not begin")
    place.pod("taken-again", "ours")
    place.assigned("given-back", "meanwhile", "taken-again")


def finalizers(place: Controlled, pod: str) -> set[str]:
    (record,) = place.records(pod)
    return set(record["metadata"].get("finalizers", ()))
