"""The chart, installed by Helm itself into a sandbox, updated, rolled back and taken away.

The tests follow each other in one sandbox, as an operator's commands do.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from deploy.values import CHART
from podidentity import manifests
from podidentity.manifests import boot_unit
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import GROUP, Prepared, prepare
from podidentity_sandbox.plan import ISSUER, Plan
from podidentity_sandbox.weather import CALM
from tests.acceptance.asking import OURS, Load, load, until_answered
from tests.acceptance.planes.cilium import CRDS as CILIUM
from tests.acceptance.planes.cilium import cilium
from tests.acceptance.planes.site import until
from tests.acceptance.sandbox import Sandbox, leaked, opened
from tests.deploy.helm import IMAGE, RELEASE, Helm, HelmRefused
from tests.sandboxes import own

SECONDS = 300
NMI = "app.kubernetes.io/component=nmi"
"""Longest wait of Helm for pods: CI's machine may be busy."""
EXCEPTION = "aks-addon-exception"
UNITS = "/run/podidentity"
"""A folder of the node that is there: its /etc is the machine's own."""
CRDS = ["crd", *(each["metadata"]["name"] for each in manifests.crds())]


class Release:
    """A release of the chart in a sandbox."""

    def __init__(
        self, helm: Helm, place: Sandbox, azure: AzureOperator, loop: asyncio.Runner, made: Prepared
    ) -> None:
        self._helm = helm
        self.place = place
        self.azure = azure
        self.loop = loop
        self.client = made.client_id
        one = {
            "resourceID": made.identity_id,
            "clientID": made.client_id,
            "binding": {"selector": "bound"},
        }
        self.identities = {
            "bound": {**one, "namespace": "default"},
            "of-the-test": {**one, "namespace": "kube-system"},
        }
        """Values of an identity that pods of two namespaces may use."""

    def do(self, what: str, **options: Any) -> Any:
        """Have Helm do this; raise HelmRefused."""
        return self._helm.ask(
            "on_cluster",
            action=what,
            kubeconfig=str(self.place.plan.kubeconfig),
            namespace="kube-system",
            name=RELEASE,
            **options,
        )

    def put(self, what: str, profile: str = "managed", **values: Any) -> None:
        """Install or upgrade with a profile and these values, and wait until all is ready."""
        read = yaml.safe_load((CHART / f"profiles/{profile}.yaml").read_text())
        given = merged(read, {"image": {"repository": IMAGE}, **values})
        self.do(what, chart=str(CHART), values=given, wait="watcher", timeout=SECONDS)

    def get(self, *words: str) -> Any:
        return json.loads(self.place.run("kubectl", "get", "-o", "json", *words))

    def names(self, kind: str) -> set[str]:
        found = self.get(kind, "--all-namespaces")["items"]
        return {f"{each['metadata'].get('namespace')}/{each['metadata']['name']}" for each in found}

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Ask for a token in the pod; return status, and body."""
        status, body, _ = self.loop.run(self.place.ask())
        return status, body


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return values with others over them, as Helm puts its files and flags together."""
    for key, value in over.items():
        known = values.get(key)
        both = isinstance(known, dict) and isinstance(value, dict)
        values[key] = merged(known, value) if both else value  # type: ignore[arg-type]
    return values


@contextmanager
def bare(name: str) -> Iterator[Release]:
    """Have a sandbox whose machines have an identity, and nothing else of pod identity."""
    with Helm() as helm, opened(own(name), weather=CALM) as (place, azure, loop):
        yield Release(helm, place, azure, loop, loop.run(attached(azure, place.plan)))


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    with bare("chart") as found:
        yield found


async def attached(azure: AzureOperator, plan: Plan) -> Prepared:
    """Make an identity, and attach it to the machines."""
    made = await prepare(plan)
    identity = {"type": "UserAssigned", "userAssignedIdentities": {made.identity_id: {}}}
    await azure.arm("PATCH", plan.scale_set_id, {"identity": identity})
    return made


ASKED = (
    "curl -s -m 60 -H Metadata:true 'http://169.254.169.254/metadata/identity/oauth2/token"
    "?api-version=2018-02-01&resource=https://vault.azure.net'"
)


def test_one_install_on_a_bare_cluster_brings_everything_and_a_pod_its_token(
    release: Release,
) -> None:
    release.put("install", azureIdentities=release.identities, test={"identity": "bound"})
    release.place.start_pod()
    status, body = release.ask()
    assert (status, body.get("client_id")) == (200, release.client), body
    assert f"kube-system/{EXCEPTION}" in release.names("azurepodidentityexceptions")
    explained = release.place.run("podidentity", "explain", "default/app")
    assert explained.endswith(" ago: the pod may use bound.\n"), explained


def test_helm_test_says_plane_backend_proof_and_probe_of_each_node_and_whose_a_real_token_is(
    release: Release,
) -> None:
    said = release.do("test", logs=True, timeout=SECONDS)["logs"]
    (node,) = release.place.plan.nodes
    (line,) = {line for line in said.splitlines() if line.startswith(node.name)}
    assert line.split() == [node.name, "ready", "routed", "nftables", "kernel", "proved"]
    assert f"A token of {release.client} for https://management.azure.com/" in said
    assert "eyJ" not in said
    for kind in ("serviceaccounts", "clusterroles", "clusterrolebindings", "roles", "pods"):
        assert not any(name.endswith("aad-pod-identity-test") for name in release.names(kind))


def test_enable_changes_nothing_of_the_release(release: Release) -> None:
    before = release.get("daemonset", "aad-pod-identity-nmi", "-n", "kube-system")
    with pytest.raises(AssertionError, match="of the Helm release kube-system/aad-pod-identity"):
        release.place.run("podidentity", "enable")
    after = release.get("daemonset", "aad-pod-identity-nmi", "-n", "kube-system")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_an_upgrade_takes_the_custom_resources_over_and_no_request_fails_and_none_leaks(
    release: Release,
) -> None:
    before = release.get("azureidentity", "bound", "-n", "default")["metadata"]["uid"]

    async def upgraded() -> Load:
        place, client = release.place, release.client
        async with load(place, "of-the-chart", clients=6, rate=200, client_id=client) as asked:
            await asyncio.to_thread(
                release.put,
                "upgrade",
                azureIdentities=release.identities,
                test={"identity": "bound"},
                nmi={"logVerbosity": 4},
            )
            await until_answered(place, "of-the-chart", 300)
        return asked

    asked = release.loop.run(upgraded())
    assert asked.failures == []
    assert set(asked.answers) == {OURS}
    assert release.loop.run(leaked(release.azure, "of-the-chart")) == 0
    manifest = release.do("status")["manifest"]
    assert "kind: AzureIdentity\n" in manifest
    assert f"name: {EXCEPTION}\n" in manifest
    assert release.get("azureidentity", "bound", "-n", "default")["metadata"]["uid"] == before


def test_a_rollback_is_ready_and_pods_are_served_as_before(release: Release) -> None:
    release.do("rollback", wait="watcher", timeout=SECONDS)
    assert release.ask()[0] == 200
    arguments = json.dumps(release.get("daemonset", "aad-pod-identity-nmi", "-n", "kube-system"))
    assert "--v=4" not in arguments
    assert f"kube-system/{EXCEPTION}" in release.names("azurepodidentityexceptions")


def test_when_it_goes_the_custom_resources_stay_and_nothing_leaks(
    release: Release,
) -> None:
    release.put("upgrade", azureIdentities=release.identities)
    release.do("uninstall", wait="watcher", timeout=SECONDS)
    assert {"None/azureidentities.aadpodidentity.k8s.io"} <= release.names("crd")
    said = release.loop.run(release.place.shell(f"{ASKED} || echo none")).stdout.decode()
    assert said.strip() == "none"
    assert release.names("daemonsets") == set()
    for kind in ("clusterroles", "clusterrolebindings", "serviceaccounts"):
        assert not any("aad-pod-identity" in name for name in release.names(kind))


def test_custom_resources_of_others_are_taken_over_when_helm_is_told_to(
    release: Release,
) -> None:
    """As they are after the archived chart, whose resources no release has."""
    labels = "app.kubernetes.io/managed-by"
    whose = ("meta.helm.sh/release-name", "meta.helm.sh/release-namespace")
    release.place.run("kubectl", "label", *CRDS, f"{labels}-")
    release.place.run("kubectl", "annotate", *CRDS, *(f"{name}-" for name in whose))
    with pytest.raises(HelmRefused, match="invalid ownership metadata"):
        release.put("install", azureIdentities=release.identities)
    assert release.names("daemonsets") == set()
    release.place.run("kubectl", "label", *CRDS, f"{labels}=Helm")
    said = [f"{whose[0]}={RELEASE}", f"{whose[1]}=kube-system"]
    release.place.run("kubectl", "annotate", *CRDS, *said)


def test_by_the_profile_of_self_managed_machines_it_can_be_installed_over_what_stayed(
    release: Release,
) -> None:
    unit = {"path": UNITS}
    release.put("install", "self-managed", azureIdentities=release.identities, nodeUnit=unit)
    assert release.ask()[0] == 200
    assert release.place.on_node("cat", f"{UNITS}/podidentity-boot.service") == boot_unit()
    wanted = release.place.on_node("ls", f"{UNITS}/kubelet.service.requires").split()
    assert wanted == ["podidentity-boot.service"]
    assert f"kube-system/{EXCEPTION}" not in release.names("azurepodidentityexceptions")


def test_half_a_value_is_refused_and_nothing_is_changed(release: Release) -> None:
    revision = release.do("status")["revision"]
    with pytest.raises(HelmRefused, match="tolerations"):
        release.put("upgrade", nmi={"tolerations": "all"})
    assert release.do("status")["revision"] == revision


def test_by_the_profile_of_federation_nmi_reads_no_secret_and_a_pod_gets_its_token(
    release: Release,
) -> None:
    app = release.loop.run(release.azure.make_app("by-federation"))
    of_pods = "system:serviceaccount:default:default"
    trust = release.azure.add_federated_credential(app, "pod", issuer=ISSUER, subject=of_pods)
    release.loop.run(trust)
    federated = {
        "namespace": "default",
        "type": 3,
        "clientID": app.client_id,
        "tenantID": release.azure.tenants.home.id,
        "binding": {"selector": "bound"},
    }
    release.put("upgrade", "federated", azureIdentities={"by-federation": federated})
    status, body = release.ask()
    assert (status, body.get("client_id")) == (200, app.client_id), body
    role = json.dumps(release.get("clusterrole", "aad-pod-identity-nmi")["rules"])
    assert '"pods"' in role
    assert '"secrets"' not in role


def test_in_standard_mode_mic_attaches_what_a_pod_needs_and_the_pod_waits_for_its_token(
    release: Release,
) -> None:
    made = release.loop.run(release.azure.create_identity(GROUP, "by-mic"))
    plan = release.place.plan
    by_mic = {
        "namespace": "default",
        "resourceID": made["id"],
        "clientID": made["clientId"],
        "binding": {"selector": "by-mic"},
    }
    release.put(
        "upgrade",
        "standard",
        azureIdentities={**release.identities, "by-mic": by_mic},
        adminsecret={
            "cloud": "AzurePublicCloud",
            "subscriptionID": plan.subscription_id,
            "resourceGroup": plan.node_group,
            "tenantID": plan.tenant_id,
            "clientID": plan.operator_id,
            "clientSecret": plan.operator_secret,
        },
    )
    release.place.run("kubectl", "label", "pod", "app", "aadpodidbinding=by-mic", "--overwrite")
    status, body, _ = release.loop.run(release.place.ask(seconds=90))
    assert (status, body.get("client_id")) == (200, made["clientId"].lower()), body
    found = release.loop.run(release.azure.arm("GET", plan.scale_set_id))
    on_host = {each.lower() for each in found["identity"]["userAssignedIdentities"]}
    assert made["id"].lower() in on_host


def test_what_stays_after_the_release_goes_by_one_command(release: Release) -> None:
    """What MIC attached; and the rules of the node, where NMI was told to take them with it."""
    release.put("upgrade", nmi={"extraArgs": ["--on-exit=remove"]})
    assert "podid" in release.place.on_node("nft", "list", "tables")
    release.do("uninstall", wait="watcher", timeout=SECONDS)
    # Helm waits for the DaemonSet. Its pods answer until nobody is connected any more.
    gone = ("--for=delete", "pods", "--all-namespaces", "-l", NMI, f"--timeout={SECONDS}s")
    release.place.run("kubectl", "wait", *gone)
    assert "podid" not in release.place.on_node("nft", "list", "tables")
    assert "2579" not in release.place.on_node("ip", "rule", "list")
    said = release.loop.run(release.place.shell(f"{ASKED} -o /dev/null -w '%{{http_code}}'"))
    assert said.stdout.decode() in {"200", "400"}, "a pod reaches the metadata service again"
    left = release.get("azureidentityledgers", "--all-namespaces")["items"]
    (attached,) = (each["id"] for one in left for each in one["spec"]["attached"])
    assert attached.endswith("/by-mic")
    release.place.run("podidentity", "disable", "--detach")
    assert release.get("azureidentityledgers", "--all-namespaces")["items"] == []
    found = release.loop.run(release.azure.arm("GET", release.place.plan.scale_set_id))
    on_host = {each.lower() for each in found["identity"]["userAssignedIdentities"]}
    assert attached.lower() not in on_host
    assert on_host, "what others attached stays"
    assert release.names("validatingadmissionpolicies") == set()
    for kind in ("clusterroles", "clusterrolebindings", "serviceaccounts"):
        left = {each.rpartition("/")[2] for each in release.names(kind)}
        assert not any(each.startswith(("aad-pod-identity", "podidentity-nmi")) for each in left)


@pytest.mark.skipif(os.geteuid() != 0, reason="programs in the kernel: root")
def test_by_the_profile_of_cilium_requests_come_by_its_redirection(release: Release) -> None:
    release.place.run("kubectl", "apply", "-f", str(CILIUM))
    release.place.run("kubectl", "label", "pod", "app", "aadpodidbinding=bound", "--overwrite")
    with cilium(release.place, "packets", "single"):
        release.put("install", "cilium", azureIdentities=release.identities)
        status, body = release.ask()
        assert (status, body.get("client_id")) == (200, release.client), body
        path = {"hop": "proved", "plane": "routed", "backend": "lrp"}
        until(lambda: release.place.readiness()["path"], lambda found: found == path)
