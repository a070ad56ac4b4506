"""The chart, put by Helm before the sandbox's API server, without nodes' programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.values import CHART
from podidentity import manifests
from podidentity.cli import main
from tests import release_0_1
from tests.cli.world import CUSTOM, World, running
from tests.deploy import archived
from tests.deploy.helm import (
    IMAGE,
    RELEASE,
    TAKE_OVER,
    Helm,
    HelmRefused,
    Rendered,
    begun,
    finish,
)

Run = Callable[..., Any]
OLD = sorted((Path(__file__).parent / "old_values").glob("*.yaml"))
AUTOMATIC = Path(__file__).parents[1] / "cli/aks_automatic.yaml"
NMI = "aad-pod-identity-nmi"
CLIENT = "9d0b1f0f-4f8c-4c83-8be3-4b2f0d0a2c11"
RESOURCE = (
    "/subscriptions/0ea21a33-8bd0-45ed-94a1-1bc87f2b1a5f/resourceGroups/rg/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/orders"
)
SETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture(scope="module")
def helm() -> Iterator[Helm]:
    with Helm() as found:
        yield found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        for name in ("billing", "tenant-a", "tenant-b", "aad-pod-identity"):
            found.namespace(name)
        with found.kept():
            yield found


@pytest.fixture
def world(cluster: World) -> World:
    """A cluster with some namespaces, and nothing of us."""
    cluster.put_back()
    return cluster


def install(
    helm: Helm, world: World, values: dict[str, Any], namespace: str = "kube-system"
) -> None:
    """Install with these values and an image; do not wait for pods, for there are none."""
    image = {**values.get("image", {}), "repository": IMAGE}
    helm.ask(
        "on_cluster",
        action="install",
        kubeconfig=str(world.plan.kubeconfig),
        namespace=namespace,
        name=RELEASE,
        chart=str(CHART),
        values={**values, "image": image},
    )


@pytest.fixture
def run(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run podidentity in this process; return what it prints as JSON."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)

    def command(*words: str) -> Any:
        main.run([*words, "--output=json"])
        said = capsys.readouterr()
        assert said.err == ""
        return json.loads(said.out)

    return command


def define(world: World, namespace: str = "kube-system") -> None:
    """Have the custom resources there, as a release of ours that is gone has left them.

    Where they are not, an install that does not wait is a race: Helm may make the hook of an
    exception before the API server serves its kind.
    """
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    of = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": namespace}
    for each in manifests.crds():
        annotations = {**each["metadata"].get("annotations", {}), **of}
        metadata = {**each["metadata"], "labels": labels, "annotations": annotations}
        world.define({**each, "metadata": metadata})


@pytest.fixture
def ours(world: World) -> None:
    define(world)


OWN = {
    "namespace": "billing",
    "resourceID": RESOURCE,
    "clientID": CLIENT,
    "binding": {"selector": "orders"},
}
"""An identity that no values file has: somebody made it by hand."""


@contextmanager
def under_the_archived_release(
    helm: Helm, world: World, values: dict[str, Any], old: Path
) -> Iterator[list[tuple[str, str, bool]]]:
    """Have what the archived chart makes of these values, and OWN, and pods that ask for each.

    Yields the pods: namespace, name, and whether that release's NMI serves it, which is so in every
    namespace unless it keeps to them.
    """
    options = {"name": RELEASE, "namespace": "kube-system"}
    made = Rendered(helm.ask("render", chart=str(old), values=values, **options))
    paths, pods = [f"{SETS}/{NMI}"], list[tuple[str, str, bool]]()
    world.send("POST", SETS, made.nmi)
    forced = str(values.get("forceNamespaced", "")).lower() == "true"
    kept = forced or values.get("operationMode") == "managed"
    identities = {**(values.get("azureIdentities") or {}), "own": OWN}
    # Its template is not here, and these objects say what its values say.
    rendered = helm.render({"azureIdentities": identities, "tokens": {"policy": "false"}})
    for each in rendered.objects:
        if each["kind"] not in {"AzureIdentity", "AzureIdentityBinding"}:
            continue
        namespace, spec = each["metadata"]["namespace"], each["spec"]
        metadata = {"name": each["metadata"]["name"], "namespace": namespace}
        path = path_of({**each, "metadata": metadata})
        world.send("POST", path.rpartition("/")[0], {**each, "metadata": metadata})
        paths.append(path)
        if each["kind"] == "AzureIdentityBinding":
            for where in {namespace, "aad-pod-identity"}:
                pod = f"asks-for-{spec['selector']}"
                world.pod(where, pod, {"aadpodidbinding": spec["selector"]})
                pods.append((where, pod, where == namespace or not kept))
    yield pods
    for path in paths:
        if "/own" not in path:
            world.send("DELETE", path)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("path", OLD, ids=lambda path: str(path.stem))
def test_an_old_values_file_installs_unchanged_and_each_refusal_to_come_was_listed_before(
    helm: Helm, world: World, run: Run, path: Path, tmp_path: Path
) -> None:
    values = yaml.safe_load(path.read_text())
    with under_the_archived_release(helm, world, values, archived.chart(tmp_path)) as pods:
        plan = run("migrate", "plan")["refused"]
    listed = {(each["namespace"], pod) for each in plan for pod in each["pods"]}
    install(helm, world, values)
    assert world.get(f"{SETS}/{NMI}") is not None
    after = {
        (namespace, name): run("explain", "pod", f"{namespace}/{name}")["reason"]
        for namespace, name, _ in pods
    }
    refused = {pod for pod, reason in after.items() if reason}
    served = {(namespace, name) for namespace, name, was_served in pods if was_served}
    assert served & refused <= listed
    assert ("billing", "asks-for-orders") in served & refused, "nobody has granted it"
    granted = {
        (each.get("namespace") or "kube-system", f"asks-for-{each['binding']['selector']}")
        for each in (values.get("azureIdentities") or {}).values()
    }
    assert listed - refused <= granted, "what the values grant"


# ---- Half an install, an interrupted upgrade, others' custom resources


DENY = "no-daemonsets"


@contextmanager
def denied(world: World, operation: str) -> Iterator[None]:
    """Have the API server refuse DaemonSets, as a policy or a quota of somebody else does."""
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["daemonsets"]}
    spec = {
        "matchConstraints": {"resourceRules": [{**rule, "operations": [operation]}]},
        "validations": [{"expression": "false", "message": "no DaemonSets today"}],
    }
    policy = {"metadata": {"name": DENY}, "spec": spec}
    world.send("POST", f"{ADMISSION}/validatingadmissionpolicies", policy)
    actions = {"policyName": DENY, "validationActions": ["Deny"]}
    body = {"metadata": {"name": DENY}, "spec": actions}
    world.send("POST", f"{ADMISSION}/validatingadmissionpolicybindings", body)
    with world.control_plane.policies_seen():
        pass
    yield
    for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        world.send("DELETE", f"{ADMISSION}/{plural}/{DENY}")
    with world.control_plane.policies_seen():
        pass


@dataclass
class Release:
    """A release of the chart in a cluster without nodes' programs."""

    helm: Helm
    world: World

    def options(self, **more: Any) -> dict[str, Any]:
        kubeconfig = str(self.world.plan.kubeconfig)
        return {"kubeconfig": kubeconfig, "namespace": "kube-system", "name": RELEASE, **more}

    def do(self, action: str, **more: Any) -> Any:
        return self.helm.ask("on_cluster", action=action, **self.options(**more))

    def values(self, **more: Any) -> dict[str, Any]:
        return {"operationMode": "managed", "image": {"repository": IMAGE}, **more}

    def put(self, action: str, **values: Any) -> None:
        self.do(action, chart=str(CHART), values=self.values(**values))

    def begun(self, *words: str, values: dict[str, Any] | None = None) -> subprocess.Popen[str]:
        """Have Helm's own program begin this; it has flags that the library lacks."""
        where = ("--namespace=kube-system", f"--kubeconfig={self.world.plan.kubeconfig}")
        return begun(*words, *where, values=values)

    def command(
        self, action: str, *flags: str, values: dict[str, Any], chart: Path = CHART
    ) -> None:
        """Have Helm's own program install or upgrade."""
        finish(self.begun(action, RELEASE, str(chart), *flags, values=values))

    def roll_back(self) -> None:
        """Have Helm's own program go back to the first revision."""
        finish(self.begun("rollback", RELEASE, "1"))

    def flags(self) -> list[str]:
        """Return NMI's flags in the cluster; [] without NMI."""
        found = self.world.get(f"{SETS}/{NMI}")
        if found is None:
            return []
        arguments: list[str] = found["spec"]["template"]["spec"]["containers"][0]["args"]
        return arguments

    @property
    def manifest(self) -> str:
        return str(self.do("status")["manifest"])

    @property
    def status(self) -> str:
        return str(self.do("status")["status"])


@pytest.fixture
def release(helm: Helm, world: World) -> Release:
    return Release(helm, world)


def test_half_an_install_is_finished_by_the_same_command_again(release: Release) -> None:
    with denied(release.world, "CREATE"), pytest.raises(HelmRefused, match="no DaemonSets today"):
        release.put("install")
    assert release.status == "failed"
    assert release.flags() == []
    release.put("upgrade")
    assert release.status == "deployed"
    assert release.flags() != []


def test_half_an_install_is_taken_away_whole(release: Release) -> None:
    with denied(release.world, "CREATE"), pytest.raises(HelmRefused):
        release.put("install")
    release.do("uninstall")
    ours = {"labelSelector": f"app.kubernetes.io/instance={RELEASE}"}
    for path in (f"{RBAC}/clusterroles", f"{ADMISSION}/validatingadmissionpolicies"):
        assert release.world.send("GET", path, **ours)["items"] == []


def test_an_upgrade_that_the_cluster_refuses_leaves_nmi_as_it_was_and_can_be_repeated(
    release: Release,
) -> None:
    define(release.world)
    release.put("install")
    before = release.flags()
    changed = {"nmi": {"extraArgs": ["--hold=3"]}}
    with denied(release.world, "UPDATE"), pytest.raises(HelmRefused, match="no DaemonSets today"):
        release.put("upgrade", **changed)
    assert release.flags() == before
    release.put("upgrade", **changed)
    assert release.flags() == [*before, "--hold=3"]


def test_an_upgrade_that_is_interrupted_is_rolled_back_or_goes_on(release: Release) -> None:
    define(release.world)
    release.put("install")
    before = release.flags()
    values = release.values(nmi={"extraArgs": ["--hold=3"]})
    wanted = release.options(chart=str(CHART), values=values, wait="watcher", timeout=300)
    release.helm.begin("on_cluster", action="upgrade", **wanted)
    ends = time.monotonic() + 60
    while "--hold=3" not in release.flags():
        assert time.monotonic() < ends, "Helm changes nothing"
        time.sleep(0.02)
    release.helm.kill()
    assert release.status == "pending-upgrade"
    with pytest.raises(HelmRefused, match="in progress"):
        release.put("upgrade")
    release.do("rollback", version=1)
    assert release.status == "deployed"
    assert release.flags() == before
    release.put("upgrade", nmi={"extraArgs": ["--hold=3"]})
    assert release.flags() == [*before, "--hold=3"]


@pytest.mark.parametrize(
    ("there", "edited"),
    [(archived.KINDS, False), (archived.KINDS[1:3], False), (archived.KINDS, True)],
    ids=["archived", "some of them", "edited"],
)
def test_custom_resources_of_the_archived_project_are_taken_over_with_their_objects(
    release: Release, there: list[Any], edited: bool
) -> None:
    world, names = release.world, [each["metadata"]["name"] for each in manifests.crds()]
    world.define(*(archived.definition(each, edited=edited) for each in there))
    spec = {"azureIdentity": "orders", "selector": "orders"}
    world.custom("billing", "azureidentitybindings", "orders", spec)
    with pytest.raises(HelmRefused, match="invalid ownership metadata"):
        release.put("install")
    assert release.flags() == []
    with pytest.raises(HelmRefused, match=r"conflict with .*\.spec\.versions"):
        release.command("install", "--take-ownership", values=release.values())
    assert release.status == "failed", "half of it is there"
    release.command("upgrade", "--install", *TAKE_OVER, values=release.values())
    for crd in manifests.crds():
        found = world.get(f"{CRDS}/{crd['metadata']['name']}")
        schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        wanted = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        assert schema["properties"]["spec"] == wanted["properties"]["spec"]
    assert world.get(f"{CUSTOM}/namespaces/billing/azureidentitybindings/orders")["spec"] == spec
    if edited:
        kept = world.get(f"{CRDS}/{names[0]}")["metadata"]["annotations"]
        assert kept["example.com/mine"] == "kept"


# ---- The archived release becomes ours, and comes back


@dataclass
class TakenOver:
    """A release of the archived chart, with objects that its users made."""

    release: Release
    values: dict[str, Any]
    before: dict[archived.Named, Any]
    """What the archived release made, as it was."""
    kept: dict[archived.Named, Any]
    """Custom resources and their definitions, none of which may go."""

    def ours(self, **more: Any) -> dict[str, Any]:
        """Return the old values, with our image."""
        return {**self.values, "image": {"repository": IMAGE}, **more}

    def is_back(self) -> None:
        """See that all is as it was, and nothing that was kept was made anew."""
        found = archived.live(self.release.world, self.release.manifest)
        assert archived.said(found) == archived.said(self.before)
        self.is_kept()

    def is_kept(self) -> None:
        manifest = yaml.safe_dump_all(self.kept.values())
        found = archived.live(self.release.world, manifest)
        assert uids(found) == uids(self.kept)
        named = ("AzureIdentity", "billing", "orders")
        assert found[named]["spec"] == self.kept[named]["spec"]


def uids(objects: dict[archived.Named, Any]) -> dict[archived.Named, str]:
    return {named: each["metadata"]["uid"] for named, each in objects.items()}


KEPT = {"AzureIdentity", "AzureIdentityBinding", "AzurePodIdentityException"}


@pytest.fixture
def old(release: Release, tmp_path: Path) -> TakenOver:
    """The release, with values as a platform has them and an identity that somebody else made."""
    world = release.world
    values = yaml.safe_load((OLD[0].parent / "a-platform-for-tenants.yaml").read_text())
    release.command("install", values=values, chart=archived.chart(tmp_path))
    world.control_plane.wait_until_served("aadpodidentity.k8s.io", ["azureidentities"])
    identity = {"type": 0, "clientID": CLIENT, "resourceID": RESOURCE}
    world.custom("billing", "azureidentities", "orders", identity)
    before = archived.live(world, release.manifest)
    kept = {named: each for named, each in before.items() if named[0] in KEPT}
    kept["AzureIdentity", "billing", "orders"] = world.get(
        f"{CUSTOM}/namespaces/billing/azureidentities/orders"
    )
    for each in archived.KINDS:
        name = each["metadata"]["name"]
        kept[each["kind"], "", name] = world.get(f"{CRDS}/{name}")
    assert len(kept) == 4 + 4 + 2 + 1
    return TakenOver(release, values, before, kept)


@pytest.mark.parametrize("helm_3", [True, False], ids=["made by Helm 3", "made by another program"])
def test_the_archived_release_is_taken_over_with_its_values_and_comes_back_whole(
    old: TakenOver, *, helm_3: bool
) -> None:
    """Where Helm's program made it itself: tests/acceptance/test_chart_take_over.py."""
    release, world = old.release, old.release.world
    if helm_3:
        archived.recorded_by_helm_3(world, "kube-system", RELEASE)
    with pytest.raises(HelmRefused, match="invalid ownership metadata"):
        release.do("upgrade", chart=str(CHART), values=old.ours())
    assert release.status == "deployed"
    old.is_back()
    if helm_3:
        with pytest.raises(HelmRefused, match="forceConflicts enabled when serverSideApply disabl"):
            release.command("upgrade", *TAKE_OVER, values=old.ours())
        release.command("upgrade", "--take-ownership", values=old.ours())
    else:
        release.command("upgrade", *TAKE_OVER, values=old.ours())
    manifest = release.manifest
    found = archived.live(world, manifest)
    assert {
        each["metadata"]["labels"].get("app.kubernetes.io/part-of") for each in found.values()
    } == {"podidentity"}
    assert len(found) == len([each for each in yaml.safe_load_all(manifest) if each])
    assert uids(found).items() >= uids(old.before).items(), "nothing was made anew"
    pod = found["DaemonSet", "kube-system", NMI]["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["containers"]] == ["serve", "net"]
    assert "iptableslock" not in {each["name"] for each in pod["volumes"]}
    old.is_kept()
    # As the page on the take-over has it.
    removing = {"nmi": {"extraArgs": ["--on-exit=remove"]}}
    release.command("upgrade", "--reset-then-reuse-values", values=removing)
    assert {"--on-exit=remove", "--prometheus-port=9090"} <= {*release.flags()}
    release.roll_back()
    old.is_back()
    left = archived.live(world, manifest).keys() - old.before.keys()
    assert {named[0] for named in left} == {"CustomResourceDefinition"}


def test_a_take_over_that_is_cut_off_goes_back_and_can_be_begun_again(old: TakenOver) -> None:
    release = old.release
    words = ("upgrade", RELEASE, str(CHART), "--wait", *TAKE_OVER)
    with release.begun(*words, values=old.ours()) as running:
        ends = time.monotonic() + 60
        while "--prometheus-port=9090" not in release.flags():
            assert time.monotonic() < ends, "Helm changes nothing"
            time.sleep(0.02)
        running.kill()
    assert release.status == "pending-upgrade"
    release.roll_back()
    old.is_back()
    release.command("upgrade", *TAKE_OVER, values=old.ours())
    assert release.status == "deployed"
    old.is_kept()


def test_with_the_archived_defaults_in_the_place_of_ours_the_flag_is_named_that_keeps_both(
    old: TakenOver,
) -> None:
    release = old.release
    image = {"image": {"repository": IMAGE}}
    with pytest.raises(HelmRefused, match="with --reset-then-reuse-values"):
        release.do("upgrade", chart=str(CHART), values=image, reuse_values=True)
    old.is_back()
    given = release.do("get_values")
    assert given == old.values
    with pytest.raises(HelmRefused, match=r"--reset-then-reuse-values --set image\.repository="):
        release.do("upgrade", chart=str(CHART), values=given)
    release.command("upgrade", "--reset-then-reuse-values", *TAKE_OVER, values=image)
    assert "--prometheus-port=9090" in release.flags()


# ---- What `podidentity enable` made becomes a release


def path_of(made: Any) -> str:
    """Return where an object of these kinds is in the API."""
    version, kind, metadata = made["apiVersion"], made["kind"].lower(), made["metadata"]
    group = f"/api/{version}" if version == "v1" else f"/apis/{version}"
    place = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return f"{group}{place}/{plural}/{metadata['name']}"


def left_by_0_1(world: World) -> dict[str, Any]:
    """Have what release 0.1 left in clusters; return what people have of it, by its paths."""
    world.namespace("shop")
    kept = {}
    for each in release_0_1.objects():
        if each["kind"] == "DaemonSet":
            # Of no node here: nothing of these would end its pods.
            each["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/os": "another"}
        if each["kind"] == "CustomResourceDefinition":
            world.define(each)
            continue
        path = path_of(each)
        made = world.send("POST", path.rpartition("/")[0], each)
        if (
            each["kind"] in {"AzureIdentity", "AzureIdentityBinding", "ConfigMap"}
            or "-use-" in path
        ):
            kept[path] = made
    return kept


def test_from_0_1_the_refusal_names_the_command_and_then_the_chart_takes_over_what_stays(
    release: Release,
) -> None:
    world = release.world
    kept = left_by_0_1(world)
    assert len(kept) == 4 + 3 + 1, "custom resources, grants and the record of them"
    with pytest.raises(HelmRefused, match="podidentity disable --namespace kube-system"):
        release.put("install")
    assert release.flags() == []
    # No kubelet here ends those of other releases, for which `disable` waits.
    world.send("DELETE", "/api/v1/namespaces/kube-system/pods", gracePeriodSeconds="0")
    ran = subprocess.run(
        [sys.executable, "-m", "podidentity", "disable", "--namespace", "kube-system"],
        env={**os.environ, **world.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "daemonset.apps/nmi deleted" in ran.stdout
    for path in (f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"):
        assert world.get(f"{path}/podidentity-nmi") is None
    with pytest.raises(HelmRefused, match="invalid ownership metadata"):
        release.put("install")
    release.command("install", *TAKE_OVER, values=release.values())
    assert release.flags() != []
    for path, before in kept.items():
        assert world.get(path) == before, "what people made and were granted is as it was"


@pytest.fixture
def automatic(tmp_path: Path) -> Iterator[World]:
    """A new cluster with what AKS Automatic refuses."""
    policies = yaml.safe_load(AUTOMATIC.read_text())["items"]
    with running(tmp_path) as world:
        world.namespace("podidentity")
        for each in policies:
            world.send("POST", f"{ADMISSION}/validatingadmissionpolicies", each)
            name = each["metadata"]["name"]
            binding = {
                "metadata": {"name": f"{name}-binding"},
                "spec": {"policyName": name, "validationActions": ["Deny"]},
            }
            world.send("POST", f"{ADMISSION}/validatingadmissionpolicybindings", binding)
        with world.control_plane.policies_seen():
            pass
        yield world


def test_on_aks_automatic_its_profile_is_installed_and_the_default_refused(
    helm: Helm, automatic: World
) -> None:
    with pytest.raises(HelmRefused, match="aks-managed-protect-system-namespaces"):
        install(helm, automatic, {"operationMode": "managed"})
    define(automatic, "podidentity")
    profile = yaml.safe_load((CHART / "profiles/aks-automatic.yaml").read_text())
    install(helm, automatic, profile, "podidentity")
    daemon_sets = automatic.send("GET", "/apis/apps/v1/namespaces/podidentity/daemonsets")["items"]
    names = {each["metadata"]["name"] for each in daemon_sets}
    assert names == {"aad-pod-identity-nmi", "podidentity-probe"}
