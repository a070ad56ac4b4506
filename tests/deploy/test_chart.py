"""What the chart makes of its values, by the real Helm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import values
from deploy.release.chart import package
from deploy.values import CHART, ROOT
from podidentity import __version__, manifests
from podidentity.cli.agent_choices import Choices, chosen
from podidentity.cli.controller import chosen_of, flags_of
from podidentity.core.data_path import Backend
from podidentity.wire.manifests import parse_binding, parse_identity
from podidentity.wire.rbac import Grantee, holders
from tests.deploy import dashboards
from tests.deploy.helm import IMAGE, Helm, HelmRefused, Object, Rendered

OLD = sorted((Path(__file__).parent / "old_values").glob("*.yaml"))
PROFILES = sorted((CHART / "profiles").glob("*.yaml"))
NAME = "aad-pod-identity-nmi"
MIC = "aad-pod-identity-mic"
CLIENT = "2b7e0000-0000-0000-0000-000000000000"
MANAGED = {
    "clientID": CLIENT,
    "resourceID": "/subscriptions/s/resourceGroups/größe/providers/Microsoft.ManagedIdentity"
    "/userAssignedIdentities/orders",
    "binding": {"selector": "x"},
}
FEDERATED = {"federation": {"clientID": CLIENT, "tenantID": "contoso.com"}}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


@pytest.fixture(scope="module")
def helm() -> Iterator[Helm]:
    with Helm() as running:
        yield running


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: ./scripts/setup as root does it")
    return found


def test_helm_takes_the_package_of_a_release_for_what_it_packs_itself(
    helm: Helm, tmp_path: Path
) -> None:
    """`./scripts/release` packs it, because Helm's own have another time each."""
    own = Path(helm.ask("package", path=str(CHART), destination=str(tmp_path)))
    name, packed = package(CHART, 1)
    assert own.name == name
    ours = tmp_path / f"ours-{name}"
    ours.write_bytes(packed)
    with tarfile.open(own) as helms, tarfile.open(ours) as made:
        assert {each.name for each in made} == {each.name for each in helms}
    values = {"image": {"repository": IMAGE}}
    assert helm.ask("render", chart=str(ours), values=values, name="a", namespace="b") == helm.ask(
        "render", chart=str(CHART), values=values, name="a", namespace="b"
    )


# ---- The same objects as `podidentity enable` makes


def plain(found: Object) -> Object:
    """Return an object without what the release alone gives it, and by the names of `enable`."""
    text = json.dumps(found).replace(NAME, manifests.ACCOUNT).replace(MIC, "podidentity-mic")
    made: Object = json.loads(text)
    made["metadata"].pop("labels", None)
    annotations = made["metadata"].get("annotations", {})
    for of_helm in [each for each in annotations if "helm.sh/" in each]:
        annotations.pop(of_helm)
    if not annotations:
        made["metadata"].pop("annotations", None)
    if (made["kind"], made["metadata"]["name"]) == ("DaemonSet", manifests.ACCOUNT):
        made["metadata"]["name"] = "nmi"
        made["spec"]["selector"] = made["spec"]["template"]["metadata"]["labels"] = {}
    for container in made["spec"]["template"]["spec"]["containers"] if _is_set(made) else ():
        container.pop("imagePullPolicy", None)
    return made


def _is_set(found: Object) -> bool:
    return bool(found["kind"] in {"DaemonSet", "Deployment"})


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(each["kind"], each["metadata"]["name"]): each for each in map(plain, objects)}


def of_release(rendered: Rendered) -> list[Object]:
    """Return the objects that stay: all but those of `helm test`."""
    return [
        each
        for each in rendered.objects
        if each["metadata"].get("annotations", {}).get("helm.sh/hook") != "test"
    ]


ADMIN_SECRET = "aadpodidentity-admin-secret"
IMAGE_OF_BOTH = f"{IMAGE}:{__version__}"


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, {"as_node": True}),
        ({"tokens": {"asNode": "false"}}, {}),
        (
            {"tokens": {"audiences": ["api://contoso's"], "identitiesNamespace": "accounts"}},
            {
                "as_node": True,
                "audiences": ["api://contoso's"],
                "identities": "accounts",
                "extra_args": ["--identities-namespace=accounts"],
            },
        ),
        (
            {"startupTaint": {"enabled": True, "key": "contoso.example/starting"}},
            {"as_node": True, "startup_taint": "contoso.example/starting"},
        ),
        (
            {"rbac": {"identityTypes": [0, 2]}, "nmi": {"extraArgs": ["--hold=1"]}},
            {"types": [0, 2], "as_node": True, "extra_args": ["--hold=1"]},
        ),
        ({"rbac": {"identityTypes": [3]}}, {"types": [3], "as_node": True}),
        (
            {"nmi": {"extraArgs": ["--operation-mode=standard"]}},
            {"as_node": True, "standard": True, "extra_args": ["--operation-mode=standard"]},
        ),
        (
            {"backend": "lrp", "lrp": {"deny": True}},
            {"as_node": True, "redirect": manifests.LocalRedirect()},
        ),
        (
            {"proxy": {"secretName": "corporate"}},
            {"as_node": True, "proxy_secret": "corporate"},
        ),
    ],
    ids=[
        *["plain", "as itself", "audiences", "start-up taint", "no federation", "federation"],
        *["standard", "cilium", "proxy"],
    ],
)
@pytest.mark.parametrize("namespace", ["kube-system", "identity"])
def test_chart_and_enable_make_the_same_objects(
    helm: Helm, given: dict[str, Any], options: dict[str, Any], namespace: str
) -> None:
    rendered = helm.render({"operationMode": "managed", **given}, namespace=namespace)
    enabled = [
        *manifests.crds(),
        *manifests.admission_policies(),
        *manifests.nmi(image=IMAGE_OF_BOTH, namespace=namespace, policy=True, **options),
        *(each for each in manifests.aks_exceptions() if "aks-addon" in each["metadata"]["name"]),
    ]
    if "redirect" in options:
        enabled.append(manifests.local_redirect(options["redirect"], namespace)[-1])
    wanted = by_name([each for each in enabled if each["kind"] != "Namespace"])
    made = by_name(of_release(rendered))
    assert set(made) == set(wanted)
    for name, found in made.items():
        assert _sorted_flags(found) == _sorted_flags(wanted[name]), name


def _sorted_flags(found: Object) -> Object:
    """Return the object with the selection emptied that differs, and flags in any order."""
    if _is_set(found):
        if found["metadata"]["name"] == "nmi":
            found["spec"]["selector"] = found["spec"]["template"]["metadata"]["labels"] = {}
        for container in found["spec"]["template"]["spec"]["containers"]:
            if "args" in container:
                container["args"] = sorted(container["args"])
    return found


@pytest.mark.parametrize("secret", ["", "corporate"], ids=["plain", "proxy"])
def test_chart_and_enable_make_the_same_mic(helm: Helm, secret: str) -> None:
    values = {"mic": {**FEDERATED, "affinity": {"podAntiAffinity": None}}}
    rendered = helm.render({**values, "proxy": {"secretName": secret}})
    flags = [f"--azure-client-id={CLIENT}", "--azure-tenant-id=contoso.com"]
    wanted = by_name(manifests.mic(image=IMAGE_OF_BOTH, extra_args=flags, proxy_secret=secret))
    made = {
        name: found
        for name, found in by_name(of_release(rendered)).items()
        if "mic" in name[1] and name[0] != "CustomResourceDefinition"
    }
    renamed = {("PodDisruptionBudget", "mic-pdb"): ("PodDisruptionBudget", "podidentity-mic")}
    renamed[("Deployment", "podidentity-mic")] = ("Deployment", "mic")
    made = {renamed.get(name, name): found for name, found in made.items()}
    assert set(made) == set(wanted)
    for name, found in made.items():
        assert _unselected(found) == _unselected(wanted[name]), name


def _unselected(found: Object) -> Object:
    """Return it without names, selections and variables of the admin secret, which is not there."""
    found["metadata"]["name"] = ""
    spec = found.get("spec", {})
    spec.pop("selector", None)
    if found["kind"] == "Deployment":
        spec["template"]["metadata"]["labels"] = {}
        pod = spec["template"]["spec"]
        for constraint in pod["topologySpreadConstraints"]:
            constraint.pop("labelSelector")
        (container,) = pod["containers"]
        container["env"] = [
            each
            for each in container["env"]
            if each.get("valueFrom", {}).get("secretKeyRef", {}).get("name") != ADMIN_SECRET
        ]
    return found


def test_below_1_30_there_is_no_policy_and_no_start_up_taint(helm: Helm) -> None:
    off = {
        "tokens": {"asNode": "false", "policy": "false"},
        "operationMode": "managed",
        "admissionPolicies": False,
    }
    rendered = helm.render(off)
    assert not rendered.names("ValidatingAdmissionPolicy")
    assert "bindings that NMI cannot use (admissionPolicies)" in rendered.notes


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ({}, True),
        ({"compat": {"foreignSecrets": True}}, False),
        ({"nmi": {"extraArgs": ["--compat-foreign-secrets"]}}, False),
        ({"nmi": {"extraArgs": ["--compat-foreign-secrets=false"]}}, True),
    ],
)
def test_where_nmi_reads_secrets_of_other_namespaces_no_policy_refuses_to_name_one(
    helm: Helm, given: dict[str, Any], there: bool
) -> None:
    names = helm.render({"operationMode": "managed", **given}).names("ValidatingAdmissionPolicy")
    assert (manifests.OWN_SECRETS in names) is there
    assert "podidentity-azureidentities" in names


# ---- Names, so that an upgrade of the archived release is one


@pytest.mark.parametrize("release", ["aad-pod-identity", "identity"])
def test_nmi_is_called_and_selected_as_in_the_archived_chart(helm: Helm, release: str) -> None:
    rendered = helm.render({"operationMode": "managed"}, name=release)
    selected = {
        "app.kubernetes.io/name": "aad-pod-identity",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": "nmi",
    }
    assert rendered.nmi["spec"]["selector"]["matchLabels"] == selected
    assert rendered.nmi["spec"]["template"]["metadata"]["labels"].items() >= selected.items()
    for kind in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding"):
        assert NAME in rendered.names(kind)


def test_another_name_is_that_of_objects_and_of_what_refers_to_them(helm: Helm) -> None:
    given = {"nameOverride": "identity", "rbac": {"createUserFacingClusterRoles": True}}
    rendered = helm.render({"operationMode": "managed", **given}, name="release")
    assert "identity-nmi" in rendered.names("DaemonSet")
    binding = rendered.named("ClusterRoleBinding", "identity-nmi")
    assert binding["roleRef"]["name"] == binding["subjects"][0]["name"] == "identity-nmi"
    policy = rendered.named("ValidatingAdmissionPolicy", manifests.POLICY_OF_NMI)
    (condition,) = policy["spec"]["matchConditions"]
    assert "kube-system:identity-nmi'" in condition["expression"]
    assert {"release-identity-view", "release-identity-edit"} <= rendered.names("ClusterRole")


def test_the_custom_resources_stay_when_the_release_goes(helm: Helm) -> None:
    for each in helm.render({"operationMode": "managed"}).objects:
        if each["kind"] == "CustomResourceDefinition":
            assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


# ---- The image


@pytest.mark.parametrize(
    ("repository", "why"),
    [
        ("", "image.repository is not set"),
        ("mcr.microsoft.com/oss/azure/aad-pod-identity", "is the archived project's"),
        ("contoso.azurecr.io/mirror/aad-pod-identity", "is the archived project's"),
    ],
)
def test_without_an_image_of_ours_it_says_how_to_build_and_push_one(
    helm: Helm, repository: str, why: str
) -> None:
    given = {"operationMode": "managed", "image": {"repository": repository}}
    with pytest.raises(HelmRefused, match=why) as refused:
        helm.render(given, image="")
    assert "./scripts/image" in str(refused.value)
    assert f"dist/image/podidentity-{__version__}.tar docker://" in str(refused.value)
    assert "--set image.repository=REGISTRY/podidentity" in str(refused.value)


def test_a_digest_is_what_counts_and_secrets_go_with_every_pod(helm: Helm) -> None:
    digest = "sha256:" + "0" * 64
    given = {
        "operationMode": "managed",
        "image": {"digest": digest, "tag": "9"},
        "imagePullSecrets": [{"name": "pull"}],
        "nodeUnit": {"enabled": True},
        "backend": "lrp",
    }
    rendered = helm.render(given)
    pods = [each["spec"]["template"]["spec"] for each in rendered.objects if _is_set(each)]
    pods += [each["spec"] for each in rendered.objects if each["kind"] == "Pod"]
    assert len(pods) == 5
    for pod in pods:
        assert pod["imagePullSecrets"] == [{"name": "pull"}]
        for container in pod["containers"]:
            assert container["image"] == f"{IMAGE}@{digest}"


# ---- Values of the archived chart


@pytest.mark.parametrize("path", OLD, ids=lambda path: str(path.stem))
def test_an_old_values_file_renders_unchanged_to_objects_that_kubernetes_knows(
    helm: Helm, path: Path
) -> None:
    rendered = helm.render(read(path))
    assert set(helm.invalid(rendered.objects)) <= UNKNOWN
    assert chosen(rendered.nmi).doubt == ""
    if read(path).get("operationMode") != "managed":
        chosen_of(flags_of(rendered.named("Deployment", MIC)))


def test_the_archived_defaults_keep_their_meaning(helm: Helm) -> None:
    path = Path(__file__).parent / "old_values/defaults-4.1.18.yaml"
    rendered = helm.render(read(path))
    serve, net = rendered.pod["containers"]
    assert serve["resources"]["limits"] == {"cpu": "200m", "memory": "512Mi"}
    assert net["resources"]["limits"] == {"memory": "96Mi"}
    strategy = rendered.nmi["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    assert "an update loses no request" in rendered.notes
    assert "mic.tag: v1.8.17" in rendered.notes
    assert "nmi.tag: v1.8.17" in rendered.notes


def test_what_has_no_effect_is_said_and_by_default_there_is_nothing_to_say(helm: Helm) -> None:
    assert "Without effect" not in helm.render({"operationMode": "managed"}).notes
    given = {
        "forceNamespaced": "true",
        "rbac": {"pspEnabled": True},
        "nmi": {"ipTableUpdateTimeIntervalInSeconds": 10, "allowNetworkPluginKubenet": True},
    }
    notes = helm.render({"operationMode": "managed", **given}).notes
    for said in (
        "forceNamespaced: true",
        "rbac.pspEnabled: true",
        "nmi.ipTableUpdateTimeIntervalInSeconds: 10",
        "nmi.allowNetworkPluginKubenet: true",
    ):
        assert said in notes


def test_the_notes_say_that_in_standard_mode_nmi_does_not_wait_for_mic(helm: Helm) -> None:
    said = "NMI is in standard mode at once, also while MIC is not ready"
    assert said in helm.render().notes
    assert said not in helm.render({"operationMode": "managed"}).notes


def test_nmis_flags_are_those_of_the_values_and_they_parse(helm: Helm) -> None:
    given = {
        "nmi": {
            "probePort": 18085,
            "prometheusPort": 19090,
            "metricsSecurePort": 0,
            "retryAttemptsForCreated": "3",
            "retryAttemptsForAssigned": 4,
            "findIdentityRetryIntervalInSeconds": 2,
            "enableScaleFeatures": False,
            "blockInstanceMetadata": "true",
            "metadataHeaderRequired": "false",
            "setRetryAfterHeader": True,
            "loggingFormat": "json",
            "logVerbosity": 5,
            "authorization": "observe",
            "auditLog": "-",
            "netnsDir": "/var/run/docker/netns",
            "extraArgs": ["--hold=3"],
        },
        "customUserAgent": "contoso/1.0",
        "compat": dict.fromkeys(
            ("crossNamespace", "foreignSecrets", "anyLabelExceptions", "textErrors", "openMetrics"),
            True,
        ),
    }
    rendered = helm.render({"operationMode": "managed", **given})
    for container in ("serve", "net"):
        assert set(rendered.flags(container)) >= {
            "--http-probe-port=18085",
            "--prometheus-port=19090",
            "--metrics-secure-port=0",
            "--retry-attempts-for-created=3",
            "--retry-attempts-for-assigned=4",
            "--find-identity-retry-interval=2",
            "--enableScaleFeatures=false",
            "--block-instance-metadata=true",
            "--metadata-header-required=false",
            "--set-retry-after-header=true",
            "--log-format=json",
            "--v=5",
            "--authorization=observe",
            "--audit-log=-",
            "--custom-user-agent=contoso/1.0",
            "--forceNamespaced=false",
            "--compat-cross-namespace=true",
            "--compat-foreign-secrets=true",
            "--compat-any-label-exceptions=true",
            "--compat-text-errors=true",
            "--compat-open-metrics=true",
        }
        assert rendered.flags(container)[-1] == "--hold=3"
    choices = chosen(rendered.nmi)
    assert choices.doubt == ""
    assert choices.probe_port == 18085
    assert choices.rules.cross_namespace
    assert "--netns-dir=/var/run/docker/netns" in rendered.flags("net")
    assert "--netns-dir=/run/netns" not in rendered.flags("net")
    (mount,) = (
        each for each in rendered.pod["containers"][1]["volumeMounts"] if each["name"] == "netns"
    )
    assert mount["mountPath"] == "/var/run/docker/netns"


def test_by_default_the_flags_are_those_of_the_manifest(helm: Helm) -> None:
    given = {"operationMode": "managed", "tokens": {"asNode": False}}
    choices = chosen(helm.render(given).nmi)
    assert choices == replace(chosen(manifests.nmi()[-1]), account=NAME)
    assert choices.backend is Backend.NFTABLES
    assert choices == Choices(account=NAME, rules=choices.rules, trust=choices.trust)


def test_nmi_and_its_probe_are_on_the_same_nodes_whatever_is_asked_for(helm: Helm) -> None:
    path = Path(__file__).parent / "old_values/nodes-of-several-kinds.yaml"
    rendered = helm.render({**read(path), "operationMode": "managed", "backend": "lrp"})
    pods = [each["spec"]["template"]["spec"] for each in rendered.objects if _is_set(each)]
    assert len(pods) == 3
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert len({json.dumps(pod[key], sort_keys=True) for pod in pods}) == 1
    ((term,),) = (
        each["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
        for each in pods[:1]
    )
    keys = [each["key"] for each in term["matchExpressions"]]
    assert keys == ["agentpool", "kubernetes.io/arch", "type"]
    labels = rendered.nmi["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "platform"
    assert labels["app.kubernetes.io/component"] == "nmi"


def test_without_access_to_secrets_the_rule_is_gone_and_without_rbac_every_role(
    helm: Helm,
) -> None:
    managed = {"operationMode": "managed"}
    role = helm.render({**managed, "rbac": {"allowAccessToSecrets": False}}).named(
        "ClusterRole", NAME
    )
    assert not any("secrets" in rule.get("resources", ()) for rule in role["rules"])
    rendered = helm.render({**managed, "rbac": {"enabled": False}})
    assert rendered.names("ClusterRole") == rendered.names("ClusterRoleBinding") == set()
    assert NAME in rendered.names("ServiceAccount")
    assert "somebody gives service account kube-system/aad-pod-identity-nmi" in rendered.notes


# ---- MIC


def pod_of_mic(rendered: Rendered) -> Object:
    found: Object = rendered.named("Deployment", MIC)["spec"]["template"]["spec"]
    return found


def is_restricted(pod: Object) -> bool:
    """Whether pod security's profile `restricted` admits the pod.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    (container,) = pod["containers"]
    security = container["securityContext"]
    return (
        not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        and not any("hostPath" in volume for volume in pod["volumes"])
        and pod["securityContext"]["runAsNonRoot"] is True
        and pod["securityContext"]["runAsUser"] > 0
        and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        and security["allowPrivilegeEscalation"] is False
        and security["capabilities"] == {"drop": ["ALL"]}
    )


def test_in_managed_mode_there_is_no_mic_and_in_standard_mode_nmi_waits_for_it(
    helm: Helm,
) -> None:
    assert helm.render({"operationMode": "managed"}).names("Deployment") == set()
    rendered = helm.render({})
    assert rendered.names("Deployment") == {MIC}
    assert "--operation-mode=standard" in rendered.flags("serve")
    assert "--operation-mode=standard" in rendered.flags("net")


def test_mic_is_selected_as_in_the_archived_chart_and_two_replicas_are_spread(
    helm: Helm,
) -> None:
    rendered = helm.render({}, name="identity")
    deployment = rendered.named("Deployment", MIC)
    selected = {
        "app.kubernetes.io/name": "aad-pod-identity",
        "app.kubernetes.io/instance": "identity",
        "app.kubernetes.io/component": "mic",
    }
    assert deployment["spec"]["selector"]["matchLabels"] == selected
    assert deployment["spec"]["replicas"] == 2
    (spread,) = pod_of_mic(rendered)["topologySpreadConstraints"]
    assert spread["labelSelector"] == {"matchLabels": selected}
    budget = rendered.named("PodDisruptionBudget", "mic-pdb")["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": selected}}
    given = helm.render({"mic": {"podDisruptionBudget": {"minAvailable": 1}}}, name="identity")
    budget = given.named("PodDisruptionBudget", "mic-pdb")["spec"]
    assert budget == {"minAvailable": 1, "selector": {"matchLabels": selected}}


@pytest.mark.parametrize(
    ("name", "restricted", "excepted"),
    [
        ("defaults-4.1.18", False, True),
        ("readme-service-principal", True, False),
        ("readme-managed-identity", True, True),
    ],
)
def test_mic_has_of_its_node_what_its_way_to_sign_in_needs_and_no_more(
    helm: Helm, name: str, restricted: bool, excepted: bool
) -> None:
    rendered = helm.render(read(Path(__file__).parent / f"old_values/{name}.yaml"))
    assert is_restricted(pod_of_mic(rendered)) is restricted
    assert ("mic" in rendered.names("AzurePodIdentityException")) is excepted
    settings = chosen_of(flags_of(rendered.named("Deployment", MIC)))
    assert bool(settings.cloud_config) is not restricted


def test_with_federation_mic_needs_no_secret_and_nothing_of_its_node(helm: Helm) -> None:
    rendered = helm.render({"mic": FEDERATED})
    assert is_restricted(pod_of_mic(rendered))
    assert rendered.names("Secret") == set()
    assert "mic" not in rendered.names("AzurePodIdentityException")
    flags = flags_of(rendered.named("Deployment", MIC))
    assert flags == [f"--azure-client-id={CLIENT}", "--azure-tenant-id=contoso.com"]


def test_the_admin_secret_has_the_archived_name_and_keys_and_a_change_starts_mic_anew(
    helm: Helm,
) -> None:
    given = read(Path(__file__).parent / "old_values/readme-managed-identity.yaml")
    rendered = helm.render(given)
    secret = rendered.named("Secret", MIC)["stringData"]
    assert secret["UseMSI"] == "true"
    assert set(secret) == {
        "Cloud",
        "SubscriptionID",
        "ResourceGroup",
        "VMType",
        "TenantID",
        "ClientID",
        "ClientSecret",
        "UseMSI",
        "UserAssignedMSIClientID",
    }
    (container,) = pod_of_mic(rendered)["containers"]
    read_from = {
        each["name"]: each["valueFrom"]["secretKeyRef"]["key"]
        for each in container["env"]
        if "secretKeyRef" in each.get("valueFrom", {})
    }
    assert read_from["USE_MSI"] == "UseMSI"
    assert set(read_from.values()) <= set(secret)
    sums = {
        made.named("Deployment", MIC)["spec"]["template"]["metadata"]["annotations"][
            "checksum/config"
        ]
        for made in (
            rendered,
            helm.render({"adminsecret": {**given["adminsecret"], "clientSecret": "new"}}),
        )
    }
    assert len(sums) == 2


@pytest.mark.parametrize("managed", [False, True], ids=["an application", "a managed identity"])
def test_mic_reads_a_secret_that_somebody_else_keeps_and_none_is_made(
    helm: Helm, *, managed: bool
) -> None:
    """As External Secrets or a sealed one: what signs in to Azure stands in no values file."""
    given = {"existingSecret": "mic-of-azure", "useMSI": managed}
    rendered = helm.render({"adminsecret": given})
    assert rendered.names("Secret") == set()
    pod = pod_of_mic(rendered)
    (container,) = pod["containers"]
    read_from = {
        each["name"]: each["valueFrom"]["secretKeyRef"]["name"]
        for each in container["env"]
        if "secretKeyRef" in each.get("valueFrom", {})
    }
    assert set(read_from.values()) == {"mic-of-azure"}
    assert ("USE_MSI" in read_from) is managed
    assert "CLIENT_SECRET" in read_from
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert "cloud-config" not in {each["name"] for each in pod["volumes"]}
    assert ("mic" in rendered.names("AzurePodIdentityException")) is managed


def test_a_secret_of_others_and_one_of_the_values_are_refused_together(helm: Helm) -> None:
    both = {"existingSecret": "mic-of-azure", "clientSecret": "s"}
    with pytest.raises(HelmRefused, match=r"adminsecret\.existingSecret and .*clientSecret"):
        helm.render({"adminsecret": both})


def test_mics_flags_are_those_of_the_values_and_its_rights_follow_its_lock(helm: Helm) -> None:
    given = {
        "mic": {
            "leaderElection": {"namespace": "locks", "name": "mine", "duration": "30s"},
            "probePort": "18080",
            "prometheusPort": 0,
            "immutableUserMSIs": [CLIENT],
            "createDeleteBatch": 40,
            "identityAssignmentReconcileInterval": "5m",
            "loggingFormat": "json",
            "customCloud": {"enabled": True},
            "assign": "all-hosts",
            "attachForNodeNetwork": True,
            "extraArgs": ["--detach-grace=0s"],
        },
        "compat": {"crossNamespace": True},
    }
    rendered = helm.render(given)
    deployment = rendered.named("Deployment", MIC)
    flags = flags_of(deployment)
    assert set(flags) >= {
        "--leader-election-namespace=locks",
        "--leader-election-name=mine",
        "--leader-election-duration=30s",
        "--http-probe-port=18080",
        "--prometheus-port=0",
        f"--immutable-user-msis={CLIENT}",
        "--createDeleteBatch=40",
        "--identity-assignment-reconcile-interval=5m",
        "--log-format=json",
        "--cloud=AzureStackCloud",
        "--azure-environment-file=/etc/kubernetes/akscustom.json",
        "--assign=all-hosts",
        "--attach-for-node-network=true",
        "--compat-cross-namespace=true",
    }
    assert flags[-1] == "--detach-grace=0s"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == 18080
    role = rendered.named("Role", "podidentity-mic-lease")
    assert role["metadata"]["namespace"] == "locks"
    assert {name for rule in role["rules"] for name in rule.get("resourceNames", ())} == {"mine"}


def test_mic_attaches_for_the_nodes_network_only_where_the_values_say_so_and_rbac_decides(
    helm: Helm,
) -> None:
    assert "--attach-for-node-network" not in " ".join(
        flags_of(helm.render({}).named("Deployment", MIC))
    )
    with pytest.raises(HelmRefused, match=r"mic\.attachForNodeNetwork needs nmi\.authorization"):
        helm.render({"mic": {"attachForNodeNetwork": True}, "nmi": {"authorization": "off"}})


def test_a_network_policy_lets_mic_out_and_only_scrapers_in(helm: Helm) -> None:
    assert helm.render({}).names("NetworkPolicy") == set()
    rendered = helm.render({"networkPolicy": {"enabled": True}})
    policy = rendered.named("NetworkPolicy", MIC)
    selected = rendered.named("Deployment", MIC)["spec"]["selector"]["matchLabels"]
    assert policy["spec"]["podSelector"]["matchLabels"] == selected
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 8888}]}]
    given = {"networkPolicy": {"enabled": True}, "mic": {"prometheusPort": "0"}}
    assert helm.render(given).named("NetworkPolicy", MIC)["spec"]["ingress"] == []
    given = {"networkPolicy": {"enabled": True}, "proxy": {"port": "3128"}}
    proxied = helm.render(given).named("NetworkPolicy", MIC)
    ports = [each["port"] for each in proxied["spec"]["egress"][0]["ports"]]
    assert ports == [53, 53, 443, 6443, 3128]
    assert helm.invalid([policy]) == []


# ---- Identities


def test_identities_of_the_values_can_be_used_and_their_namespaces_are_permitted(
    helm: Helm,
) -> None:
    path = Path(__file__).parent / "old_values/readme-identities.yaml"
    rendered = helm.render({**read(path), "operationMode": "managed"}, namespace="apps")
    parsed = {
        each["metadata"]["name"]: parse_identity(json.dumps(each).encode())
        for each in rendered.objects
        if each["kind"] == "AzureIdentity"
    }
    assert {str(each.ref) for each in parsed.values()} == {
        "apps/azure-identity",
        "billing/service-principal",
    }
    bindings = [
        parse_binding(json.dumps(each).encode())
        for each in rendered.objects
        if each["kind"] == "AzureIdentityBinding"
    ]
    assert {str(each.ref) for each in bindings} == {
        "apps/azure-identity-binding",
        "billing/service-principal",
    }
    roles = [each for each in rendered.objects if each["kind"] == "ClusterRole"]
    bound = [each for each in rendered.objects if each["kind"] == "ClusterRoleBinding"]
    for name, namespace in (
        ("7d0b1f0f-4f8c-4c83-8be3-4b2f0d0a2c11", "apps"),
        ("3d7b1f0f-4f8c-4c83-8be3-4b2f0d0a2c11", "billing"),
    ):
        assert [each.grantee for each in holders(name, roles, bound)] == [Grantee(namespace)]


def test_an_identity_of_two_namespaces_has_one_role_and_a_credential_of_another_tenant_too(
    helm: Helm,
) -> None:
    kind = "Microsoft.ManagedIdentity/userAssignedIdentities"
    via = f"/subscriptions/s/resourceGroups/g/providers/{kind}/Via"
    one = {
        "type": 3,
        "clientID": "AAAAAAAA-0000-0000-0000-000000000000",
        "tenantID": "contoso.com",
        "federation": {"via": via},
        "binding": {"selector": "x"},
    }
    given = {"a": {**one, "namespace": "a"}, "b": {**one, "namespace": "b"}}
    rendered = helm.render({"operationMode": "managed", "azureIdentities": given})
    roles = [each for each in rendered.objects if each["kind"] == "ClusterRole"]
    bound = [each for each in rendered.objects if each["kind"] == "ClusterRoleBinding"]
    for name in ("aaaaaaaa-0000-0000-0000-000000000000", via.lower()):
        granted = [each.grantee for each in holders(name, roles, bound)]
        assert granted == [Grantee("a"), Grantee("b")]


def test_before_their_kinds_are_there_custom_resources_come_after_all_else_and_are_the_releases(
    helm: Helm,
) -> None:
    path = Path(__file__).parent / "old_values/readme-identities.yaml"
    rendered = helm.render({**read(path), "operationMode": "managed"}, name="identity")
    custom = [each for each in rendered.objects if "aadpodidentity.k8s.io/" in each["apiVersion"]]
    assert len(custom) == 5
    for each in custom:
        assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert each["metadata"]["annotations"] == {
            "helm.sh/hook": "post-install,post-upgrade,post-rollback",
            "meta.helm.sh/release-name": "identity",
            "meta.helm.sh/release-namespace": "kube-system",
        }


@pytest.mark.parametrize(
    ("identity", "why"),
    [
        ({"binding": {"selector": "x"}}, "clientID"),
        ({"clientID": CLIENT, "type": 0, "binding": {"selector": "x"}}, "resourceID is required"),
        ({"clientID": CLIENT, "type": 1, "binding": {"selector": "x"}}, "tenantID is required"),
        ({**MANAGED, "binding": {}}, "selector"),
        ({**MANAGED, "binding": {"selector": ""}}, "binding/selector"),
        ({**MANAGED, "binding": {"selector": "a b"}}, "binding/selector"),
        ({**MANAGED, "binding": {"selector": "x", "name": "X"}}, "binding/name"),
        ({**MANAGED, "clientID": "nope"}, "clientID"),
        ({**MANAGED, "resourceID": "/x"}, "resourceID"),
        ({**MANAGED, "resourceID": f"{MANAGED['resourceID']}/"}, "resourceID"),
        ({**MANAGED, "tenantID": "https://contoso.com"}, "tenantID"),
        ({**MANAGED, "adEndpoint": "login.example.com"}, "adEndpoint"),
        ({**MANAGED, "name": "Orders"}, "name"),
        ({**MANAGED, "clientPassword": "kept"}, "clientPassword"),
        ({**MANAGED, "federation": {"subject": "all"}}, "federation"),
        ({**MANAGED, "namespace": "a.b"}, "namespace"),
    ],
)
def test_half_an_identity_is_refused_by_its_key(
    helm: Helm, identity: dict[str, Any], why: str
) -> None:
    with pytest.raises(HelmRefused, match=why) as refused:
        helm.render({"operationMode": "managed", "azureIdentities": {"orders": identity}})
    assert "orders" in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {"operationMode": "both"},
        {"azureIdentities": [{"name": "x"}]},
        {"nameOverride": "Mine"},
        {"imagePullSecrets": ["pull"]},
        {"customUserAgent": "two\nlines"},
    ],
    ids=str,
)
def test_a_wrong_value_at_the_top_is_refused_by_name(helm: Helm, given: dict[str, Any]) -> None:
    (key,) = given
    with pytest.raises(HelmRefused, match=key):
        helm.render(given)


REQUIRED, PREFERRED = (
    f"{how}DuringSchedulingIgnoredDuringExecution" for how in ("required", "preferred")
)
LARGE = {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["16"]}]}
UNKNOWN = {
    f"no schema: {kind}"
    for kind in (
        *("AzureIdentity", "AzureIdentityBinding", "AzurePodIdentityException"),
        *("ServiceMonitor", "PrometheusRule"),
    )
}
LABEL = r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
TOO_LONG = f"{'.'.join(['x' * 50] * 5)}/team"
ZONES = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone"}
HARD = {**ZONES, "whenUnsatisfiable": "DoNotSchedule"}
EVICTED = {"key": "a/b", "effect": "NoExecute"}
LARGEST = 10**15 - 1
NEAR = {"podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}}


@pytest.mark.parametrize(
    "given",
    [
        {"nmi": {"prometheusport": 1}},
        {"nmi": {"tolerations": {"operator": "Exists"}}},
        {"adminsecret": {"existingSecret": "a..b"}},
        {"aks": {"extensions": ["flux"]}},
        {"azureIdentities": {"Orders": MANAGED}},
        {"azureIdentities": {"x" * 254: MANAGED}},
        {"dashboards": {"labels": {"grafana_dashboard": "a b"}}},
        {"image": {"repository": "r/p:1.0"}},
        {"image": {"repository": "https://r/p"}},
        {"image": {"repository": "r/P"}},
        {"image": {"tag": "a b"}},
        {"image": {"digest": "sha256:xyz"}},
        {"mic": {"replicas": -1}},
        {"mic": {"replicas": 10**10}},
        {"mic": {"affinity": {"nodeAfinity": {}}}},
        {"mic": {"affinity": {"podAntiAffinity": {PREFERRED: [{"weight": 1}]}}}},
        {"mic": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone"}]}},
        {"mic": {"topologySpreadConstraints": [{**HARD, "maxSkew": 2**31}]}},
        {"mic": {"topologySpreadConstraints": [{**HARD, "minDomains": 2**31}]}},
        {"mic": {"leaderElection": {"namespace": "a.b"}}},
        {"mic": {"leaderElection": {"duration": "15"}}},
        {"mic": {"leaderElection": {"duration": "2s"}}},
        {"mic": {"leaderElection": {"duration": "4500ms"}}},
        {"mic": {"cloudConfig": "azure.json"}},
        {"mic": {"customCloud": {"configPath": "/etc/../x"}}},
        {"mic": {"immutableUserMSIs": ["x"]}},
        {"mic": {"podDisruptionBudget": {"minAvailable": "half"}}},
        {"mic": {"podDisruptionBudget": {"minAvailable": "5"}}},
        {"mic": {"podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}}},
        {"nmi": {"probePort": 99999}},
        {"nmi": {"probePort": "99999"}},
        {"nmi": {"probePort": "0"}},
        {"nmi": {"prometheusPort": -1}},
        {"nmi": {"extraArgs": [1]}},
        {"nmi": {"podAnnotations": {"prometheus.io/port": 9090}}},
        {"nmi": {"podLabels": {"team": "a b"}}},
        {"nmi": {"podLabels": {TOO_LONG: "a"}}},
        {"nmi": {"nodeSelector": {"gpu": True}}},
        {"nmi": {"tolerations": [{"operator": "exists"}]}},
        {"nmi": {"tolerations": [{}]}},
        {"nmi": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        {"nmi": {"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 3}]}},
        {"nmi": {"tolerations": [{**EVICTED, "tolerationSeconds": 2**53 + 1}]}},
        {"nmi": {"blockInstanceMetadata": "yes"}},
        {"nmi": {"resources": {"limits": {"memory": "192MB"}}}},
        {"nmi": {"resources": {"limits": {"memory": 2**53 + 1}}}},
        {"nmi": {"resources": {"limits": {"ephemeral-storage": "1e4294967296"}}}},
        {
            "nmi": {
                "resources": {
                    "limits": {"memory": str(2**53)},
                    "requests": {"memory": str(2**53 + 1)},
                }
            }
        },
        {"nmi": {"resources": {"limit": {"memory": "192Mi"}}}},
        {"nmi": {"resources": {"limits": {"gpu": 1}}}},
        {"nmi": {"resources": {"claims": [{"name": "gpu"}]}}},
        {"nmi": {"resources": {"requests": {"memory": "512Mi"}}}},
        {"nmi": {"net": {"resources": {"limits": {"memory": "36863Ki"}}}}},
        {"mic": {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1999m"}}}},
        {"nmi": {"updateStrategy": {"type": "Recreate"}}},
        {"nmi": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "all"}}}},
        {"nmi": {"updateStrategy": {"rollingUpdate": {"maxSurge": 0}}}},
        {"nmi": {"priorityClassName": "High"}},
        {"nmi": {"appArmorProfile": {"type": "unconfined"}}},
        {"nmi": {"appArmorProfile": {"type": "Localhost"}}},
        {"nmi": {"appArmorProfile": {"localhostProfile": "podidentity"}}},
        {"nmi": {"seLinuxOptions": {"kind": "spc_t"}}},
        {"nmi": {"netnsDir": "run/netns"}},
        {"nmi": {"auditLog": "audit.log"}},
        {"nodeUnit": {"kubelet": "kubelet"}},
        {"proxy": {"secretName": "UPPER"}},
        {"proxy": {"port": 70000}},
        {"serviceMonitor": {"interval": "30"}},
        {"startupTaint": {"key": "a/b/c"}},
        {"startupTaint": {"key": TOO_LONG}},
        {"test": {"timeoutSeconds": 0}},
        {"tokens": {"identitiesNamespace": ""}},
        {"tokens": {"audiences": [""]}},
    ],
    ids=str,
)
def test_a_value_that_kubernetes_would_refuse_or_misread_is_refused_by_name(
    helm: Helm, given: dict[str, Any]
) -> None:
    ((group, inside),) = given.items()
    with pytest.raises(HelmRefused) as refused:
        helm.render(given, image=given.get("image", {}).get("repository", IMAGE))
    assert group in str(refused.value)
    assert any(key in str(refused.value) for key in inside)


@pytest.mark.parametrize(
    "given",
    [
        {"image": {"repository": "localhost:5000/a/b-c__d.e"}},
        {"image": {"repository": "p", "tag": "v1.0_x"}},
        {"image": {"digest": f"sha256:{'a' * 64}"}},
        {"imagePullSecrets": [{"name": "pull.secret"}]},
        {"nmi": {"probePort": "65535", "prometheusPort": 0, "metricsSecurePort": "0"}},
        {"nmi": {"auditLog": "-", "nodeSelector": {"a.example.com/b": ""}}},
        {"nmi": {"tolerations": [{**EVICTED, "tolerationSeconds": LARGEST}]}},
        {"nmi": {"resources": {"limits": {"cpu": 1, "memory": "1.5Gi"}, "requests": None}}},
        {"nmi": {"resources": {"limits": {"memory": "128e6", "cpu": "0.5"}}}},
        {"nmi": {"resources": {"limits": {"memory": LARGEST, "cpu": str(LARGEST)}}}},
        {"nmi": {"resources": {"requests": {"memory": "1G"}, "limits": {"memory": "954Mi"}}}},
        {"mic": {"resources": {"requests": {"cpu": "1000m"}, "limits": {"cpu": 1}}}},
        {"mic": {"replicas": 0, "leaderElection": {"duration": "1m30s"}}},
        {"mic": {"leaderElection": {"duration": "3s"}}},
        {"mic": {"affinity": {"podAntiAffinity": {PREFERRED: [{"weight": 1, **NEAR}]}}}},
        {"mic": {"topologySpreadConstraints": [HARD]}},
        {"nmi": {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [LARGE]}}}}},
        {"nmi": {"blockInstanceMetadata": "True", "resources": {"limits": {"cpu": 1}}}},
        {"nmi": {"appArmorProfile": {"type": "Localhost", "localhostProfile": "podidentity"}}},
        {"nmi": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}}},
        {"dashboards": {"enabled": True, "labels": {"team": "a"}}},
        {"mic": {"podDisruptionBudget": {"maxUnavailable": "50%"}}},
        {"mic": {"customCloud": {"configPath": "/etc/..data/.hidden"}}},
        {"test": {"identity": "Orders_1"}},
    ],
    ids=str,
)
def test_a_value_of_an_unusual_form_that_kubernetes_takes_is_taken(
    helm: Helm, given: dict[str, Any]
) -> None:
    made = helm.render(given, image=given.get("image", {}).get("repository", IMAGE)).objects
    assert helm.invalid([each for each in made if not each["apiVersion"].startswith("aad")]) == []


def test_keys_without_values_make_no_invalid_object_and_no_word_of_their_own(helm: Helm) -> None:
    """As `prometheusPort:` alone in a file: to Helm that is null, which takes the default away."""
    given: dict[str, Any] = {}
    for each in (each for value in values.read(values.VALUES.read_text()) for each in value.walk()):
        *groups, last = each.path
        inside = given
        for group in groups:
            inside = inside.setdefault(group, {})
        if not each.parts:
            inside[last] = True if last == "enabled" else None
    made = helm.render(given).objects
    assert "nil" not in json.dumps(made)
    assert set(helm.invalid(made)) <= UNKNOWN


def groups(found: Iterable[values.Value]) -> Iterator[tuple[str, ...]]:
    for each in found:
        if each.parts:
            yield each.path
            yield from groups(each.parts)


@pytest.mark.parametrize("path", [*groups(values.read(values.VALUES.read_text()))], ids=".".join)
def test_a_group_of_values_without_any_is_refused_by_its_name_or_makes_valid_objects(
    helm: Helm, path: tuple[str, ...]
) -> None:
    given: Any = None
    for name in reversed(path):
        given = {name: given}
    image = "" if path == ("image",) else IMAGE
    if path in {("adminsecret",), ("nmi", "net")}:
        assert set(helm.invalid(helm.render(given).objects)) <= UNKNOWN
    else:
        with pytest.raises(HelmRefused, match=rf"value {'.'.join(path)} is missing\. If your"):
            helm.render(given, image=image)


@pytest.mark.parametrize("end", ["xx.", "xx-", "xx.a"])
def test_a_name_that_is_cut_ends_as_names_may(helm: Helm, end: str) -> None:
    name = "x" * 56 + end + "xx"
    given = {"nameOverride": name, "rbac": {"createUserFacingClusterRoles": True}}
    for each in helm.render(given, name="a").objects:
        labels = each["metadata"].get("labels", {}).values()
        assert not [found for found in labels if not re.fullmatch(LABEL, found)]
        assert not re.search(r"[.-]-|[.-]$", each["metadata"]["name"])


def test_a_name_that_yaml_would_read_as_a_number_stays_a_name(helm: Helm) -> None:
    scraped = {name: {"enabled": True} for name in ("serviceMonitor", "dashboards")}
    given = {"nameOverride": "007", "azureIdentities": {"1e3": MANAGED}, **scraped}
    made = helm.render(given, namespace="123", name="0x1f").objects
    for each in made:
        labels = each["metadata"].get("labels", {})
        names = [each["metadata"]["name"], each["metadata"].get("namespace", ""), *labels.values()]
        assert {type(name) for name in names} == {str}, each
        assert each["kind"] != "Service" or re.match("[a-z]", names[0]), names[0]
    (bound,) = (each for each in made if each["kind"] == "AzureIdentityBinding")
    assert bound["spec"]["azureIdentity"] == "1e3"


# ---- Kinds of clusters


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: str(path.stem))
def test_a_profile_renders_to_objects_that_kubernetes_knows(helm: Helm, path: Path) -> None:
    rendered = helm.render(read(path), namespace="podidentity")
    unknown = {
        f"no schema: {kind}"
        for kind in (
            "AzurePodIdentityException",
            "CiliumLocalRedirectPolicy",
            "CiliumClusterwideNetworkPolicy",
        )
    }
    assert set(helm.invalid(rendered.objects)) <= unknown
    assert chosen(rendered.nmi).doubt == ""


def test_on_aks_automatic_nothing_is_in_kube_system_and_no_taint_is_tolerated_by_a_wildcard(
    helm: Helm,
) -> None:
    rendered = helm.render(read(CHART / "profiles/aks-automatic.yaml"), namespace="podidentity")
    for each in rendered.objects:
        assert each["metadata"].get("namespace", "podidentity") == "podidentity"
        if _is_set(each):
            found = each["spec"]["template"]["spec"]["tolerations"]
            assert found == manifests.automatic_tolerations()


def test_exceptions_of_extensions_are_there_and_count_where_they_are_named(helm: Helm) -> None:
    given = {"operationMode": "managed", "aks": {"extensions": ["flux-system", "acstor"]}}
    rendered = helm.render(given, namespace="identity")
    assert rendered.names("AzurePodIdentityException") == {
        "aks-addon-exception",
        "flux-extension-exception",
        "microsoft-flux-exception",
        "container-storage-exception",
    }
    flag = "--exception-namespaces=acstor,flux-system,identity,kube-system"
    assert flag in rendered.flags()
    none = helm.render({"operationMode": "managed", "installMICException": False})
    assert none.names("AzurePodIdentityException") == set()


def test_selinux_and_apparmor_are_those_of_the_values(helm: Helm) -> None:
    given = {"seLinuxOptions": {"type": "spc_t"}, "appArmorProfile": {"type": "Unconfined"}}
    found = helm.render({"operationMode": "managed", "nmi": given}).pod["securityContext"]
    assert found["seLinuxOptions"] == {"type": "spc_t"}
    assert found["appArmorProfile"] == {"type": "Unconfined"}


# ---- The node unit


def unit_program(rendered: Rendered) -> list[str]:
    found = rendered.named("DaemonSet", "podidentity-node-unit")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    command: list[str] = container["command"]
    return command


def run_unit(rendered: Rendered, tmp_path: Path) -> str:
    """Run the program of the pod on folders of its own, until it says that it is done."""
    python, flags, program, *arguments = unit_program(rendered)
    unit = rendered.named("ConfigMap", "podidentity-node-unit")["data"]
    mounted = tmp_path / "mounted"
    mounted.mkdir(exist_ok=True)
    for name, text in unit.items():
        (mounted / name).write_text(text)
    program = program.replace("/etc/podidentity", str(mounted)).replace(
        "/run/node-unit", str(tmp_path)
    )
    with subprocess.Popen(
        [shutil.which(python) or python, flags, program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout
        said = running.stdout.readline()
        running.terminate()
    assert running.returncode == 0
    return said


def test_the_node_unit_is_off_by_default(helm: Helm) -> None:
    assert "podidentity-node-unit" not in helm.render({"operationMode": "managed"}).names(
        "DaemonSet"
    )


def test_the_node_unit_is_kept_on_each_node_as_systemctl_would_enable_it(
    helm: Helm, tmp_path: Path
) -> None:
    folder = tmp_path / "system"
    folder.mkdir()
    given = {"enabled": True, "path": str(folder), "kubelet": "k3s-agent.service"}
    rendered = helm.render({"operationMode": "managed", "nodeUnit": given})
    assert "is there" in run_unit(rendered, tmp_path)
    unit = folder / "podidentity-boot.service"
    assert unit.read_text() == manifests.boot_unit("k3s-agent.service")
    assert (folder / "k3s-agent.service.requires" / unit.name).resolve() == unit
    assert "is there" in run_unit(rendered, tmp_path), "again"
    away = helm.render({"operationMode": "managed", "nodeUnit": {**given, "remove": True}})
    assert "is away" in run_unit(away, tmp_path)
    assert [each for each in folder.rglob("*") if each.name == unit.name] == []


def test_what_keeps_the_unit_has_no_token_no_capability_and_one_folder_of_the_node(
    helm: Helm,
) -> None:
    rendered = helm.render({"operationMode": "managed", "nodeUnit": {"enabled": True}})
    pod = rendered.named("DaemonSet", "podidentity-node-unit")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert "hostNetwork" not in pod
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    paths = [each["hostPath"]["path"] for each in pod["volumes"] if "hostPath" in each]
    assert paths == ["/etc/systemd/system"]
    assert helm.invalid([rendered.named("DaemonSet", "podidentity-node-unit")]) == []


# ---- helm test


def test_the_test_may_look_and_change_nothing_and_all_of_it_goes_with_it(helm: Helm) -> None:
    given = {"test": {"identity": "bound", "resource": "https://vault.azure.net"}}
    rendered = helm.render({"operationMode": "managed", **given, "nmi": {"probePort": 18085}})
    made = [
        each
        for each in rendered.objects
        if each["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"
    ]
    assert {each["kind"] for each in made} == {
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ClusterRole",
        "ClusterRoleBinding",
        "Pod",
    }
    for each in made:
        policy = each["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert policy == "before-hook-creation,hook-succeeded"
        for rule in each.get("rules", ()):
            assert rule["verbs"] == ["list"]
    pod = rendered.named("Pod", "aad-pod-identity-test")
    assert pod["metadata"]["labels"]["aadpodidbinding"] == "bound"
    (container,) = pod["spec"]["containers"]
    assert container["args"] == [
        "nodes",
        "--namespace=kube-system",
        "--timeout=120s",
        "--probe-port=18085",
        "--token=https://vault.azure.net",
    ]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    off = helm.render({"operationMode": "managed", "test": {"enabled": False}})
    assert "aad-pod-identity-test" not in off.names("Pod") | off.names("ServiceAccount")


def test_the_test_comes_to_nodes_where_nmi_does(helm: Helm) -> None:
    """On a cluster all of whose nodes have taints it would wait for ever for one without."""
    dedicated = [{"key": "dedicated", "operator": "Exists"}]
    tolerations = {"nmi": {"tolerations": dedicated}}
    given = {"operationMode": "managed", **tolerations}
    pod = helm.render(given).named("Pod", "aad-pod-identity-test")["spec"]
    assert pod["tolerations"] == dedicated
    given["test"] = {"tolerations": [], "nodeSelector": {"agentpool": "system"}}
    pod = helm.render(given).named("Pod", "aad-pod-identity-test")["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "agentpool": "system"}


# ---- Argo CD, Flux, and `helm template`


def test_what_it_renders_is_the_same_each_time(helm: Helm) -> None:
    """No random value, no certificate, no time: else Argo CD would have a change each time."""
    given = {
        "azureIdentities": read(OLD[0].parent / "readme-identities.yaml")["azureIdentities"],
        "adminsecret": {"clientID": CLIENT, "clientSecret": "s"},
        **{name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboards")},
        **{name: {"enabled": True} for name in ("networkPolicy", "nodeUnit", "startupTaint")},
    }
    assert helm.render(given).objects == helm.render(given).objects


def test_only_the_test_and_what_needs_definitions_are_hooks_and_each_object_is_there_once(
    helm: Helm,
) -> None:
    given = {"nodeUnit": {"enabled": True}, "backend": "lrp", "networkPolicy": {"enabled": True}}
    objects = helm.render(given).objects
    hooks = {
        (each["metadata"]["annotations"]["helm.sh/hook"], each["kind"])
        for each in objects
        if "helm.sh/hook" in each["metadata"].get("annotations", {})
    }
    assert {kind for hook, kind in hooks if hook != "test"} == {"AzurePodIdentityException"}
    places = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in objects
    ]
    assert len(places) == len(set(places))


@pytest.mark.parametrize(("types", "said"), [([0, 1, 3], True), ([0, 3], False)])
def test_the_notes_say_that_nmi_may_read_all_secrets_and_what_takes_that_away(
    helm: Helm, types: list[int], *, said: bool
) -> None:
    given = {"operationMode": "managed", "rbac": {"identityTypes": types}}
    assert ("rbac.identityTypes: [0, 3]" in helm.render(given).notes) is said


# ---- Watching


def test_the_service_for_scraping_selects_nmi_and_alerts_say_where_to_read_on(
    helm: Helm, tmp_path: Path, promtool: str
) -> None:
    given = {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "runbookUrl": "https://docs.example.com/watch"},
        "operationMode": "managed",
    }
    rendered = helm.render(given)
    service = rendered.named("Service", f"{NAME}-metrics")
    assert service["spec"]["selector"] == rendered.nmi["spec"]["selector"]["matchLabels"]
    monitor = rendered.named("ServiceMonitor", NAME)
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    rule = rendered.named("PrometheusRule", "aad-pod-identity")
    page = (ROOT / "docs/how-to/watch-nmi.md").read_text()
    for group in rule["spec"]["groups"]:
        for each in group["rules"]:
            url = each["annotations"]["runbook_url"]
            assert url == f"https://docs.example.com/watch#{each['alert'].lower()}"
            assert f"### {each['alert']}\n" in page
    given = {**given, "operationMode": "standard"}
    services = helm.render(given).names("Service")
    assert services == {f"{NAME}-metrics", f"{MIC}-metrics"}
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(rule["spec"]))
    subprocess.run([promtool, "check", "rules", rules], check=True, capture_output=True)


@pytest.mark.parametrize("program", ["nmi", "mic"])
def test_a_dashboard_is_one_to_grafana_and_each_of_its_queries_finds_numbers(
    helm: Helm, tmp_path: Path, promtool: str, program: str
) -> None:
    given = {"dashboards": {"enabled": True}}
    found = helm.render({"operationMode": "managed", **given}).named(
        "ConfigMap", "aad-pod-identity-dashboards"
    )
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert set(found["data"]) == {"nmi.json", "mic.json"}
    nmi = dashboards.of_nmi()
    scrape = nmi if program == "nmi" else dashboards.of_mic()
    dashboard = json.loads(found["data"][f"{program}.json"])
    known = helm.ask("as_grafana_has_it", dashboard=dashboard)
    assert list(dashboards.lost(dashboard, known)) == []
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"]
        drawn = panel["fieldConfig"]["defaults"]
        # A rate that is drawn from its smallest value on looks like an outage.
        assert drawn["decimals" if panel["type"] == "stat" else "min"] == 0
        for target in panel["targets"]:
            names = re.findall(r"\b(?:aad)?podidentity_\w+", target["expr"])
            # A name of both programs is that of NMI as well, on each node.
            if program == "mic" and any(f"# TYPE {name} " in nmi for name in names):
                assert "podidentity_mic_leading" in names, panel["title"]
            assert names, panel["title"]
            for name in names:
                assert f"# TYPE {name.removesuffix('_bucket')} " in scrape, name
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert dashboards.without_value(promtool, tmp_path, queries) == ""
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y)
        for at in places
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))


def test_a_slip_of_the_pen_in_a_dashboard_is_found(
    helm: Helm, tmp_path: Path, promtool: str
) -> None:
    """What the test above relies on."""
    dashboard = json.loads((CHART / "dashboards/nmi.json").read_text())
    dashboard["panels"][4]["fieldConfig"]["defaults"]["unti"] = "s"
    known = helm.ask("as_grafana_has_it", dashboard=dashboard)
    assert list(dashboards.lost(dashboard, known)) == ["panels.4.fieldConfig.defaults.unti"]
    for query in (
        'sum(podidentity_data_path{hop="prooved"}) or vector(0)',
        "histogram_quantile(0.5, sum by (le) (rate(podidentity_mic_assigned_seconds[5m])))",
    ):
        assert "FAILED" in dashboards.without_value(promtool, tmp_path, [query])


# ---- What others say of it


def test_helm_finds_nothing_to_mend(helm: Helm) -> None:
    given = {"operationMode": "managed", "image": {"repository": IMAGE}}
    report = helm.ask("lint", path=str(CHART), values=given, strict=True)
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


def test_the_schema_is_one() -> None:
    check = ROOT / ".venvs/helm/bin/check-jsonschema"
    subprocess.run([check, "--check-metaschema", CHART / "values.schema.json"], check=True)
    schema = str(CHART / "values.schema.json")
    subprocess.run([check, "--schemafile", schema, values.VALUES], check=True)
