from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from podidentity import manifests
from podidentity.core.decision import Rules, exception_of, match
from podidentity.core.resources import AzurePodIdentityException, ObjectRef, Pod
from podidentity.kernel.attestation import MARK
from podidentity.nmi.path_watch import LABELS
from podidentity.nmi.server.messages import Limits
from podidentity.settings import SERVE_UID
from podidentity.supervisor.main import DRAIN_SECONDS
from podidentity.wire.manifests import parse_exception
from tests.cli.world import CUSTOM, World
from tests.core import worlds

KINDS = {
    "AzureIdentity": "azureidentities",
    "AzureIdentityBinding": "azureidentitybindings",
    "AzureAssignedIdentity": "azureassignedidentities",
    "AzurePodIdentityException": "azurepodidentityexceptions",
}
NAMES = itertools.count()


def version(crd: dict[str, Any]) -> dict[str, Any]:
    (only,) = crd["spec"]["versions"]
    found: dict[str, Any] = only
    return found


# What the archived project served; its CRDs: https://github.com/Azure/aad-pod-identity (charts).
@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        (
            "AzureIdentity",
            [
                ("Type", "string", ".spec.type"),
                ("ClientID", "string", ".spec.clientID"),
                ("Age", "date", ".metadata.creationTimestamp"),
            ],
        ),
        (
            "AzureIdentityBinding",
            [
                ("AzureIdentity", "string", ".spec.azureIdentity"),
                ("Selector", "string", ".spec.selector"),
                ("Age", "date", ".metadata.creationTimestamp"),
            ],
        ),
        ("AzureAssignedIdentity", []),
        ("AzurePodIdentityException", []),
    ],
)
def test_a_custom_resource_has_its_old_names_and_columns(
    kind: str, columns: list[tuple[str, str, str]]
) -> None:
    (crd,) = [each for each in manifests.crds() if each["spec"]["names"]["kind"] == kind]
    plural = KINDS[kind]
    assert crd["metadata"]["name"] == f"{plural}.aadpodidentity.k8s.io"
    assert crd["metadata"]["annotations"] == {"api-approved.kubernetes.io": "unapproved"}
    assert crd["spec"]["scope"] == "Namespaced"
    assert crd["spec"]["names"] == {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
    }
    only = version(crd)
    assert (only["name"], only["served"], only["storage"]) == ("v1", True, True)
    found = only.get("additionalPrinterColumns", [])
    assert [(each["name"], each["type"], each["jsonPath"]) for each in found] == columns


def test_the_assignments_status_is_written_through_the_object_itself() -> None:
    with_status = {
        crd["spec"]["names"]["kind"] for crd in manifests.crds() if version(crd).get("subresources")
    }
    assert with_status == KINDS.keys() - {"AzureAssignedIdentity"}


IDENTITY = {
    "metadata": {"name": "x", "resourceVersion": "1"},
    "apiVersion": "aadpodidentity.k8s.io/v1",
    "kind": "AzureIdentity",
    "spec": {"type": 0, "resourceID": "/subscriptions/s", "clientID": "c"},
}
BINDING = {
    "metadata": {"name": "y"},
    "apiVersion": "aadpodidentity.k8s.io/v1",
    "kind": "AzureIdentityBinding",
    "spec": {"azureIdentity": "x", "selector": "s"},
}
OLD: list[tuple[str, dict[str, Any]]] = [
    ("AzureIdentity", {}),
    ("AzureIdentity", {"spec": {}}),
    ("AzureIdentity", {"spec": IDENTITY["spec"]}),
    (
        "AzureIdentity",
        {
            "spec": {
                "metadata": {},
                "type": 1,
                "clientID": "c",
                "clientPassword": {"name": "n", "namespace": "ns"},
                "tenantID": "t",
                "auxiliaryTenantIDs": ["a"],
                "adResourceID": "r",
                "adEndpoint": "https://login.microsoftonline.com/",
                "replicas": 1,
            },
            "status": {"metadata": {}, "availableReplicas": 1},
        },
    ),
    (
        "AzureIdentity",
        {
            "metadata": {"annotations": {"aadpodidentity.k8s.io/Behavior": "namespaced"}},
            "spec": {"type": 2, "auxiliaryTenantIDs": None, "replicas": None},
        },
    ),
    ("AzureIdentityBinding", {"spec": {**BINDING["spec"], "metadata": {}, "weight": 5}}),  # type: ignore[dict-item]
    (
        "AzureAssignedIdentity",
        {
            "metadata": {"labels": {"nodename": "n"}},
            "spec": {
                "metadata": {},
                "azureIdentityRef": IDENTITY,
                "azureBindingRef": BINDING,
                "pod": "p",
                "podNamespace": "ns",
                "nodename": "n",
                "replicas": None,
            },
            "status": {"metadata": {}, "status": "Assigned", "availableReplicas": 1},
        },
    ),
    (
        "AzurePodIdentityException",
        {"spec": {"metadata": {}, "podLabels": {"app": "mic", "component": "mic"}}},
    ),
]
OLDEST: list[tuple[str, dict[str, Any]]] = [
    (
        "AzureIdentity",
        {
            "spec": {
                "ResourceID": "/subscriptions/s",
                "ClientID": "c",
                "TenantID": "t",
                "ClientPassword": {"Name": "n", "Namespace": "ns"},
            }
        },
    ),
    ("AzureIdentityBinding", {"spec": {"AzureIdentity": "x", "Selector": "s"}}),
    (
        "AzureAssignedIdentity",
        {
            "spec": {"azureidentityref": {"spec": {"ClientID": "c"}}, "azurebindingref": {}},
            "Status": {"status": "Assigned", "availableReplicas": 1},
        },
    ),
    ("AzurePodIdentityException", {"spec": {"PodLabels": {"app": "mic"}}}),
]
"""As releases up to 1.5 wrote them."""
NEW: list[tuple[str, dict[str, Any]]] = [
    (
        "AzureIdentity",
        {
            "spec": {
                "type": 3,
                "objectID": "o",
                "federation": {"subject": "identity", "audience": "a", "via": "/subscriptions/s"},
            }
        },
    ),
    ("AzurePodIdentityException", {"spec": {"podLabels": {}, "azureIdentities": ["c"]}}),
]


@pytest.fixture
def create(world: World) -> Iterator[Callable[[str, dict[str, Any]], Any]]:
    """Stores an object, which other tests of this world do not see."""
    made: list[str] = []

    def post(kind: str, body: dict[str, Any]) -> Any:
        name = f"m{next(NAMES)}"
        meta = {**body.get("metadata", {}), "name": name}
        whole = {"apiVersion": "aadpodidentity.k8s.io/v1", "kind": kind, **body, "metadata": meta}
        path = f"{CUSTOM}/namespaces/default/{KINDS[kind]}"
        stored = world.send("POST", path, whole)
        made.append(f"{path}/{name}")
        return stored

    yield post
    for path in made:
        world.delete(path)
        if world.get(path) is not None:  # a manifest may have a finalizer
            world.send("PATCH", path, {"metadata": {"finalizers": None}})


def without_status(body: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return what is stored: a status is not taken where it has a subresource of its own."""
    kept = {"spec", "status", "Status"} if kind == "AzureAssignedIdentity" else {"spec"}
    return {name: value for name, value in body.items() if name in kept}


@pytest.mark.parametrize(("kind", "body"), [*OLD, *OLDEST, *NEW], ids=str)
def test_a_manifest_is_stored_without_the_loss_of_a_field(
    create: Callable[[str, dict[str, Any]], Any], kind: str, body: dict[str, Any]
) -> None:
    stored = create(kind, body)
    expected = without_status(body, kind)
    assert {name: stored[name] for name in expected} == expected


def test_a_definition_of_the_oldest_releases_can_become_ours() -> None:
    """It kept all fields, which the API server takes from no definition that is changed."""
    assert [each["spec"].get("preserveUnknownFields") for each in manifests.crds()[:4]] == [
        False
    ] * 4


def test_conditions_are_stored_through_the_status(
    world: World, create: Callable[[str, dict[str, Any]], Any]
) -> None:
    stored = create("AzureIdentity", {"spec": IDENTITY["spec"]})
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "Malformed",
        "message": "why",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    path = f"{CUSTOM}/namespaces/default/azureidentities/{stored['metadata']['name']}/status"
    changed = world.send("PATCH", path, {"status": {"conditions": [condition]}})
    assert changed["status"]["conditions"] == [condition]


def test_what_a_manifest_lists_is_independent_of_what_another_lists() -> None:
    first, second, *_ = manifests.crds()
    first["metadata"]["labels"]["x"] = "y"
    assert "x" not in second["metadata"]["labels"]


def containers(*extra: str, image: str = manifests.IMAGE) -> dict[str, Any]:
    """Return the containers of NMI's pod, by name."""
    *_, daemon_set = manifests.nmi(image=image, extra_args=extra)
    found = daemon_set["spec"]["template"]["spec"]["containers"]
    return {container["name"]: container for container in found}


def test_nmis_flags_follow_those_of_the_file_in_both_containers() -> None:
    plain = containers()
    made = containers("--log-format=json", image="i:1")
    assert list(made) == ["serve", "net"]
    for name, container in made.items():
        assert container["image"] == "i:1"
        assert container["args"][0] == name
        assert container["args"] == [*plain[name]["args"], "--log-format=json"]


def test_nmi_may_do_what_it_needs_and_nothing_else() -> None:
    _, role, binding, readers, *_, daemon_set = manifests.nmi(standard=True)
    granted = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    reading = {"list", "watch"}
    custom = "aadpodidentity.k8s.io"
    assert granted == {
        ("", "pods"): reading,
        ("", "serviceaccounts"): reading,
        ("", "secrets"): reading,
        ("", "serviceaccounts/token"): {"create"},
        ("", "events"): {"create", "patch"},
        ("authorization.k8s.io", "subjectaccessreviews"): {"create"},
        ("authentication.k8s.io", "tokenreviews"): {"create"},
        **{(custom, plural): reading for plural in KINDS.values()},
    }
    pod = daemon_set["spec"]["template"]["spec"]
    (subject,) = binding["subjects"]
    assert subject["name"] == pod["serviceAccountName"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    # Bound by nothing here: the operator gives it to Prometheus.
    assert readers["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    # `serve`, which has the token, has no right; `net`, which has rights, has no token.
    serve, net = containers().values()
    assert net["securityContext"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["NET_ADMIN", "SYS_ADMIN", "DAC_READ_SEARCH"],
    }
    assert serve["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert serve["securityContext"]["runAsUser"] == SERVE_UID == pod["securityContext"]["fsGroup"]
    assert not serve["securityContext"]["allowPrivilegeEscalation"]
    assert pod["automountServiceAccountToken"] is False
    assert mounted(serve) == {"runtime", "handover-serve", "token"}
    assert mounted(net) == {"runtime", "handover", "netns", "cgroup"}


def test_nmi_is_on_every_linux_node_and_needs_no_pod_to_find_names() -> None:
    *_, daemon_set = manifests.nmi()
    pod = daemon_set["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    affinity = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert affinity["nodeSelectorTerms"] == [
        {
            "matchExpressions": [
                {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]},
                {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]},
            ]
        }
    ]
    assert pod["dnsPolicy"] == "Default"


def test_the_probe_pod_is_wherever_nmi_is_and_has_nothing_that_could_be_taken() -> None:
    probe, agent = [each for each in manifests.nmi(image="i:1") if each["kind"] == "DaemonSet"]
    pod, nmi = (each["spec"]["template"]["spec"] for each in (probe, agent))
    for same in ("tolerations", "nodeSelector", "affinity", "priorityClassName"):
        assert pod[same] == nmi[same]
    assert probe["spec"]["updateStrategy"] == agent["spec"]["updateStrategy"]
    assert probe["spec"]["template"]["metadata"]["labels"] == LABELS
    assert pod["automountServiceAccountToken"] is False
    # A network of its own, as a tenant's pod has one; nothing of the node, and no right.
    assert not {"hostNetwork", "hostPID", "volumes", "serviceAccountName"} & set(pod)
    (container,) = pod["containers"]
    assert container["image"] == "i:1"
    assert not {"volumeMounts", "env", "ports"} & set(container)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert f"({MARK.address!r}, {MARK.port})".replace("'", '"') in container["command"][-1]


def test_serve_is_told_that_there_is_a_probe_pod_and_each_finds_the_other_in_their_namespace() -> (
    None
):
    own = manifests.nmi(namespace="identity")
    assert "--path-probe" in containers()["serve"]["args"]
    assert {each["metadata"].get("namespace") for each in own if each["kind"] == "DaemonSet"} == {
        "identity"
    }


def test_nmi_requests_a_tenth_of_a_core_and_100_mebibytes_in_all() -> None:
    requests = [each["resources"]["requests"] for each in containers().values()]
    assert sum(int(each["cpu"].removesuffix("m")) for each in requests) == 100
    assert sum(int(each["memory"].removesuffix("Mi")) for each in requests) == 100


def test_where_nmi_asks_as_its_node_it_has_no_right_to_ask_itself() -> None:
    plain, bounded = manifests.nmi(), manifests.nmi(as_node=True)
    assert any(map(manifests.asks_for_any, plain[1]["rules"]))
    kinds = {"ClusterRole", "Role"}
    rules = [rule for each in bounded if each["kind"] in kinds for rule in each["rules"]]
    assert not any(map(manifests.asks_for_any, rules))
    assert [rule for rule in plain[1]["rules"] if rule in rules] == [
        rule for rule in plain[1]["rules"] if not manifests.asks_for_any(rule)
    ]
    for container in bounded[-1]["spec"]["template"]["spec"]["containers"]:
        assert "--tokens-as=node" in container["args"]


@pytest.mark.parametrize(
    ("rule", "any_token"),
    [
        ({"resources": ["serviceaccounts/token"], "verbs": ["create"]}, True),
        ({"resources": ["*"], "verbs": ["*"]}, True),
        ({"resources": ["serviceaccounts"], "verbs": ["create"]}, False),
        ({"resources": ["serviceaccounts/token"], "verbs": ["get"]}, False),
        ({"nonResourceURLs": ["*"], "verbs": ["*"]}, False),
        (
            {
                "resources": ["serviceaccounts/token"],
                "verbs": ["create"],
                "resourceNames": ["web"],
            },
            False,
        ),
    ],
)
def test_a_right_for_all_tokens_is_told_from_one_for_some(
    rule: dict[str, Any], any_token: bool
) -> None:
    assert manifests.asks_for_any(rule) is any_token


def test_in_a_namespace_of_its_own_nothing_of_nmi_is_elsewhere() -> None:
    first, *rest = manifests.nmi(namespace="identity")
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", "identity")
    # Pods of the node's network and root are refused by any stricter standard.
    assert first["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    places = {
        place["namespace"]
        for each in rest
        for place in (each["metadata"], *each.get("subjects", ()))
        if "namespace" in place
    }
    assert places == {"identity"}
    assert "kube-system" not in str(rest)


def test_what_aks_installs_is_excepted_by_labels_and_never_by_its_namespace_alone() -> None:
    found = {
        (each["metadata"]["namespace"], *each["spec"]["podLabels"].items())
        for each in manifests.aks_exceptions()
    }
    assert found == {
        ("kube-system", ("kubernetes.azure.com/managedby", "aks")),
        ("flux-system", ("app.kubernetes.io/name", "flux-extension")),
        ("flux-system", ("app.kubernetes.io/name", "microsoft.flux")),
        ("dapr-system", ("app.kubernetes.io/part-of", "dapr")),
        ("azappconfig-system", ("app.kubernetes.io/name", "appconfig-provider")),
        (
            "dataprotection-microsoft",
            ("app.kubernetes.io/name", "dataprotection-microsoft-kubernetes"),
        ),
        ("azureml", ("amlarc-component", "identity"), ("ml.azure.com/amlarc-system", "true")),
        ("azureml", ("app", "aml-operator"), ("ml.azure.com/amlarc-system", "true")),
        ("acstor", ("app.kubernetes.io/part-of", "azurecontainerstorage")),
        (
            "app-routing-system",
            ("app", "external-dns"),
            ("app.kubernetes.io/managed-by", "aks-app-routing-operator"),
        ),
        (
            "app-routing-system",
            ("app", "external-dns-private"),
            ("app.kubernetes.io/managed-by", "aks-app-routing-operator"),
        ),
    }


def test_each_exception_for_aks_has_its_source_before_it_and_a_row_in_the_documents() -> None:
    written = files(manifests).joinpath("aks.yaml").read_text()
    reference = Path("docs/reference/cli.md").read_text()
    heads = written.partition("items:")[2].split("  - apiVersion:")
    for head, made in zip(heads, manifests.aks_exceptions(), strict=False):
        name, namespace = made["metadata"]["name"], made["metadata"]["namespace"]
        assert "  # https://" in head, f"{name} has no source"
        assert f"`{name}`" in reference
        assert f"| {namespace} |" in reference


@pytest.mark.parametrize(
    "made", manifests.aks_exceptions(), ids=lambda made: made["metadata"]["name"]
)
def test_whoever_copies_the_labels_of_what_aks_installs_into_a_namespace_of_his_gains_nothing(
    made: dict[str, Any],
) -> None:
    """Not by its labels, and not with the exception itself beside his pod."""
    theirs = parsed(made)
    mine = replace(theirs, ref=ObjectRef("tenant", theirs.ref.name))
    there = {each["metadata"]["namespace"] for each in manifests.aks_exceptions()}
    rules = Rules(exception_namespaces=frozenset(there))
    own = Pod(ref=theirs.ref, uid="1", labels=theirs.pod_labels)
    copied = Pod(ref=ObjectRef("tenant", "p"), uid="2", labels=theirs.pod_labels)
    assert exception_of(own, [theirs], rules) is theirs
    assert match(copied, worlds.World(all_exceptions=[theirs, mine]), rules).exception is None
    # Each label is needed: a pod with all but one is none of AKS's.
    for label in theirs.pod_labels:
        labels = {key: value for key, value in theirs.pod_labels.items() if key != label}
        assert exception_of(replace(own, labels=labels), [theirs], rules) is None


def parsed(made: dict[str, Any]) -> AzurePodIdentityException:
    found = parse_exception(json.dumps(made).encode())
    assert isinstance(found, AzurePodIdentityException)
    return found


def mounted(container: dict[str, Any]) -> set[str]:
    return {mount["name"] for mount in container["volumeMounts"]}


def test_nmis_volumes_are_each_there_once_and_mounted() -> None:
    pod = manifests.nmi()[-1]["spec"]["template"]["spec"]
    volumes = [each["name"] for each in pod["volumes"]]
    assert len(set(volumes)) == len(volumes)
    assert set(volumes) == set[str]().union(*map(mounted, pod["containers"]))


def test_an_update_starts_the_new_pod_beside_the_old_one_and_so_no_port_is_declared() -> None:
    spec = manifests.nmi()[-1]["spec"]
    assert spec["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = spec["template"]["spec"]
    assert all("ports" not in container for container in pod["containers"])
    # More than a kept connection may be idle: it is answered once more, by the old pod.
    assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS > Limits().idle_seconds


@pytest.mark.parametrize("make", [manifests.nmi, manifests.mic], ids=["nmi", "mic"])
def test_a_proxys_secret_reaches_what_asks_azure_and_nothing_else(make: Any) -> None:
    pod = make(proxy_secret="corporate")[-1]["spec"]["template"]["spec"]
    found = {
        container["name"]: [
            each["name"]
            for each in container["env"]
            if each.get("valueFrom", {}).get("secretKeyRef", {}).get("name") == "corporate"
        ]
        for container in pod["containers"]
    }
    proxied = {"serve", "mic"} & set(found)
    assert {name for name, variables in found.items() if variables} == proxied
    (variables,) = (found[name] for name in proxied)
    assert variables == ["HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"]
    # The password is in no file: of the Secret only the certificates are.
    (volume,) = (each["secret"] for each in pod["volumes"] if each["name"] == "proxy")
    assert [each["key"] for each in volume["items"]] == ["ca-bundle.crt"]
    assert "corporate" not in json.dumps(make()[-1])
