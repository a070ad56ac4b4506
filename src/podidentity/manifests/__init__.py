"""What `podidentity enable` puts into a cluster, as YAML that a person can read and apply by hand.

The sandbox reads the same files: what it serves is what a real cluster gets. Therefore this module
imports nothing of the product.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from podidentity import __version__

IMAGE = f"localhost/podidentity:{__version__}"
"""The image as ./scripts/image names it: to be imported on each node, and never pulled.

A name without a registry is one of a public registry, where others may own it.
"""

NAMESPACE = "kube-system"
"""Of NMI, unless somebody wants another: every cluster has it, and tenants have no right in it."""

OWN_NAMESPACE = "podidentity"
"""Of NMI on AKS Automatic, which keeps kube-system to itself."""

ACCOUNT = "podidentity-nmi"
"""NMI's service account."""
DEBUG_READER = "podidentity-debug-reader"
"""The service account, and its ClusterRole, that may read `/debug` of NMI and nothing else."""
TOKENS = "serviceaccounts/token"
AUDIENCE = "api://AzureADTokenExchange"
"""Entra's, in the public cloud."""
POLICY_OF_NMI = "podidentity-nmi-tokens"
"""The ValidatingAdmissionPolicy that bounds the tokens NMI asks for by its own right."""
OWN_SECRETS = "podidentity-own-secrets"
"""The ValidatingAdmissionPolicy by which an AzureIdentity names a secret of its namespace alone."""
NODE_AUDIENCES = "podidentity-node-audiences"
"""The ClusterRole whose resources are audiences that nodes may ask for."""
IDENTITIES = "podidentity-identities"
"""The namespace of service accounts that stand for identities."""
ADMIN_SECRET = "aadpodidentity-admin-secret"  # noqa: S105 - its name
"""AAD Pod Identity's Secret of what MIC signs in by; these are two of its keys."""
ADMIN_SECRET_MANAGED, ADMIN_SECRET_IDENTITY = "UseMSI", "UserAssignedMSIClientID"
_ADMIN_IDENTITY = tuple(
    {
        "name": variable,
        "valueFrom": {"secretKeyRef": {"name": ADMIN_SECRET, "key": key, "optional": True}},
    }
    for variable, key in (
        ("USE_MSI", ADMIN_SECRET_MANAGED),
        ("USER_ASSIGNED_MSI_CLIENT_ID", ADMIN_SECRET_IDENTITY),
    )
)
STARTUP_TAINT = "aadpodidentity.k8s.io/agent-not-ready"
"""Key of the taint with which nodes start, until NMI is ready there, unless another is chosen."""

SERVICE_PRINCIPAL, CERTIFICATE, FEDERATED = 1, 2, 3
"""Types of an AzureIdentity that NMI needs rights of their own for."""
EVERY_TYPE = (0, SERVICE_PRINCIPAL, CERTIFICATE, FEDERATED)

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRedirect:
    """Where Cilium leads pods' requests from, and where to on their node."""

    metadata_ip: str = "169.254.169.254"
    metadata_port: int = 80
    port: int = 2579
    """NMI's, at the node's own address."""
    probe_port: int = 8085


def crds() -> list[Manifest]:
    return _documents("crds.yaml")


def admission_policies(*, foreign_secrets: bool = False) -> list[Manifest]:
    """Return the policies by which the API server refuses what NMI could not use, each bound.

    With `foreign_secrets` NMI reads secrets of other namespaces, and identities may name them.
    """
    found = _documents("admission-policies.yaml")
    return [
        each for each in found if not foreign_secrets or each["metadata"]["name"] != OWN_SECRETS
    ]


def nmi(
    *,
    image: str = IMAGE,
    extra_args: Sequence[str] = (),
    derived_args: Sequence[str] = (),
    namespace: str = NAMESPACE,
    as_node: bool = False,
    policy: bool = False,
    audiences: Sequence[str] = (),
    identities: str = IDENTITIES,
    startup_taint: str = "",
    tolerations: Sequence[Manifest] = (),
    node_labels: Mapping[str, str | None] = MappingProxyType({}),
    redirect: LocalRedirect | None = None,
    proxy_secret: str = "",
    standard: bool = False,
    types: Collection[int] = EVERY_TYPE,
) -> list[Manifest]:
    """Return what NMI needs, in the order to create it; the DaemonSet `nmi` is the last.

    `extra_args` are flags of `podidentity nmi`, for both containers. They follow those of the file,
    and so win. `derived_args` are flags that nobody chose, because they follow from what is in the
    cluster: they stand before those of the file, or in the place of one, as do those that follow
    from the other arguments (`told_args`). A `namespace` of its own is the first manifest. With
    `as_node` NMI has no right to ask for pods' tokens, but that to ask as its own node. A `policy`
    bounds what it asks for by its own right. `audiences` are those of tokens, besides Entra's;
    `identities` is the namespace of accounts without pods. `startup_taint` is the key of the taint
    that NMI takes off its node. With `tolerations` its pods tolerate those taints alone, and the
    start-up taint. They are on nodes with the `node_labels` alone; None takes a key out where the
    manifest is merged. With `redirect` Cilium leads pods' requests to NMI, too; its policy of
    denial is not among the manifests. A `proxy_secret` says by which HTTP proxy Azure is asked
    (`by_proxy`). NMI gets only the rights that it needs in its mode, `standard` or managed, for
    AzureIdentities of these `types`.
    """
    manifests = _documents("nmi.yaml")
    asks = FEDERATED in types
    as_node, policy = as_node and asks, policy and asks
    for manifest in manifests:
        if "rules" in manifest:
            manifest["rules"] = _needed(
                manifest["rules"], records=standard, tokens=asks and not as_node, types=types
            )
    if as_node:
        manifests[-1:-1] = _node_tokens(audiences)
        derived_args = ["--tokens-as=node", *derived_args]
    if policy:
        manifests[-1:-1] = _token_policy(namespace, identities, audiences)
    if startup_taint:
        manifests[-1:-1] = startup_taint_rights(startup_taint, namespace)
        derived_args = [f"--startup-taint={startup_taint}", *derived_args]
        mine = {"key": startup_taint, "operator": "Exists"}
        # Without any it tolerates every taint.
        if tolerations and mine not in tolerations:
            tolerations = (*tolerations, mine)
    if redirect:
        manifests[-1:-1] = local_redirect(redirect, namespace)[:-1]
        derived_args = ["--backend=lrp", *derived_args]
    _derive(manifests[-1]["spec"]["template"]["spec"], derived_args)
    *others, agent = (each for each in manifests if each["kind"] == "DaemonSet")
    for daemon_set, args in (*((each, ()) for each in others), (agent, extra_args)):
        pod = daemon_set["spec"]["template"]["spec"]
        _complete(pod, image, args, tolerations)
        pod["nodeSelector"] |= node_labels
    by_proxy(agent["spec"]["template"]["spec"], proxy_secret)
    _place(manifests, namespace)
    return manifests if namespace == NAMESPACE else [own_namespace(namespace), *manifests]


def _derive(pod: Manifest, flags: Sequence[str]) -> None:
    """Give NMI's containers these flags: each in the place of one of its name, or the first."""
    for container in pod["containers"]:
        program, *args = container["args"]
        names = [name_of_flag(each) for each in args]
        new = []
        for flag in flags:
            if name_of_flag(flag) in names:
                args[names.index(name_of_flag(flag))] = flag
            else:
                new.append(flag)
        container["args"] = [program, *new, *args]


def name_of_flag(flag: str) -> str:
    """Return `--hold` of `--hold=0`."""
    return flag.partition("=")[0]


def told_args(daemon_set: Manifest) -> list[str]:
    """Return the `extra_args` that an NMI was given, by where they stand in its DaemonSet.

    Of another version, whose own flags are others, it is what remains when each flag of ours is
    taken out once.
    """
    # Up to 0.1 there was one container, called as in the archived project.
    args = _args(daemon_set).get("serve") or _args(daemon_set).get("nmi") or []
    ours = _args(_documents("nmi.yaml")[-1])
    names, own = ([name_of_flag(each) for each in found] for found in (args, ours["serve"][1:]))
    for start in range(1, len(args)):
        if names[start : start + len(own)] == own:
            return args[start + len(own) :]
    left = args[1:]
    for name in {name_of_flag(each) for found in ours.values() for each in found[1:]}:
        place = next((at for at, each in enumerate(left) if name_of_flag(each) == name), len(left))
        del left[place : place + 1]
    return left


def _args(daemon_set: Manifest) -> dict[str, list[str]]:
    containers = daemon_set["spec"]["template"]["spec"]["containers"]
    return {each["name"]: list(each.get("args") or ()) for each in containers}


def mic(
    *,
    image: str = IMAGE,
    extra_args: Sequence[str] = (),
    namespace: str = NAMESPACE,
    managed_identity: bool = False,
    cloud_config: str = "",
    proxy_secret: str = "",
    admin_identity: bool = False,
) -> list[Manifest]:
    """Return what MIC needs, in the order to create it; the Deployment `mic` is the last.

    `extra_args` are flags of `podidentity mic`. With `managed_identity` its pods are excepted from
    NMI in `namespace`, so that they get a token of their machine's identity. `cloud_config` is the
    path of the cloud provider's file on the nodes, which root alone may read; it may name one, too.
    `admin_identity`: the admin Secret names one, and MIC reads that of it as well. A `proxy_secret`
    says by which HTTP proxy Azure is asked (`by_proxy`).
    """
    manifests = _documents("mic.yaml")
    for each in manifests:
        if each["kind"] == "Deployment":
            pod = each["spec"]["template"]["spec"]
            _complete(pod, image, extra_args, ())
            by_proxy(pod, proxy_secret)
            (container,) = pod["containers"]
            if cloud_config:
                # It is root's: MIC reads it as root without a capability.
                source = {"path": cloud_config, "type": "File"}
                pod["volumes"].append({"name": "cloud-config", "hostPath": source})
                mount = {"name": "cloud-config", "mountPath": cloud_config, "readOnly": True}
                container["volumeMounts"].append(mount)
                pod["securityContext"] |= {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False}
            if admin_identity:
                container["env"] += _ADMIN_IDENTITY
        for place in (each["metadata"], *each.get("subjects", ())):
            # The Lease stays in `default`: there the archived MIC has its lock.
            if place.get("namespace") == NAMESPACE:
                place["namespace"] = namespace
    if managed_identity or cloud_config or admin_identity:
        manifests.insert(-1, mic_exception(namespace))
    return manifests


def _needed(
    rules: Sequence[Manifest], *, records: bool, tokens: bool, types: Collection[int]
) -> list[Manifest]:
    unused = set() if records else {"azureassignedidentities"}
    unused |= set() if tokens else {TOKENS}
    unused |= set() if {SERVICE_PRINCIPAL, CERTIFICATE} & set(types) else {"secrets"}
    for rule in rules:
        if "resources" in rule:
            rule["resources"] = [each for each in rule["resources"] if each not in unused]
    return [rule for rule in rules if rule.get("resources", True)]


PROXY_FILES = "/var/run/secrets/podidentity-proxy"
"""Where a proxy's Secret has `ca-bundle.crt`; its own SSL_CERT_FILE names that file."""
_PROXIED = ("HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")


def by_proxy(pod: Manifest, secret: str) -> None:
    """Have what asks Azure in a pod ask by the proxy of a Secret of its namespace; "": not so.

    The Secret has the variables, each of which may be missing, and perhaps `ca-bundle.crt`.
    """
    if not secret:
        return
    bundle = [{"key": "ca-bundle.crt", "path": "ca-bundle.crt"}]
    source = {"secretName": secret, "optional": True, "items": bundle}
    pod["volumes"].append({"name": "proxy", "secret": source})
    (container,) = (each for each in pod["containers"] if each["name"] in {"serve", "mic"})
    for name in _PROXIED:
        found = {"secretKeyRef": {"name": secret, "key": name, "optional": True}}
        container["env"].append({"name": name, "valueFrom": found})
    mount = {"name": "proxy", "mountPath": PROXY_FILES, "readOnly": True}
    container["volumeMounts"].append(mount)


def mic_exception(namespace: str = NAMESPACE) -> Manifest:
    """Return the exception by which MIC's own pods get tokens of their machine's identities."""
    labels = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "mic"}
    return {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzurePodIdentityException",
        "metadata": {"name": "podidentity-mic", "namespace": namespace, "labels": labels},
        "spec": {"podLabels": labels},
    }


def _complete(
    pod: Manifest, image: str, args: Sequence[str], tolerations: Sequence[Manifest]
) -> None:
    """Give a pod's containers their image and these flags as well, and the pod its tolerations."""
    for container in pod["containers"]:
        container["image"] = image
        if args:
            container["args"] = [*container["args"], *args]
    if tolerations:
        pod["tolerations"] = list(tolerations)


def _place(manifests: Sequence[Manifest], namespace: str) -> None:
    for manifest in manifests:
        for place in (manifest["metadata"], *manifest.get("subjects", ())):
            if "namespace" in place:
                place["namespace"] = namespace


def _node_tokens(audiences: Sequence[str]) -> list[Manifest]:
    manifests = _documents("node-tokens.yaml")
    for manifest in manifests:
        for rule in manifest.get("rules", ()):
            if AUDIENCE in rule["resources"]:
                rule["resources"] += audiences
    return manifests


def _token_policy(namespace: str, identities: str, audiences: Sequence[str]) -> list[Manifest]:
    policy, binding = _documents("token-policy.yaml")
    more = "".join(f", {literal(audience)}" for audience in audiences)
    written = {
        f"serviceaccount:{NAMESPACE}:": f"serviceaccount:{namespace}:",
        f"'{IDENTITIES}'": f"'{identities}'",
        f"['{AUDIENCE}'": f"['{AUDIENCE}'{more}",
    }
    for each in (*policy["spec"]["matchConditions"], *policy["spec"]["validations"]):
        for old, new in written.items():
            each["expression"] = each["expression"].replace(old, new)
    return [policy, binding]


def startup_taint_rights(key: str = STARTUP_TAINT, namespace: str = NAMESPACE) -> list[Manifest]:
    """Return the policy that bounds NMI's right on nodes, and after it that right.

    `key` is the taint's, a name as Kubernetes has them; `namespace` is NMI's.
    """
    manifests = _documents("startup-taint.yaml")
    spec = manifests[0]["spec"]
    for each in (*spec["matchConditions"], *spec["validations"]):
        for field in ("expression", "message"):
            text = each.get(field, "").replace(f"account:{NAMESPACE}:", f"account:{namespace}:")
            each |= {field: text.replace(STARTUP_TAINT, key)} if text else {}
    _place(manifests, namespace)
    return manifests


def local_redirect(
    redirect: LocalRedirect = LocalRedirect(),
    namespace: str = NAMESPACE,
) -> list[Manifest]:
    manifests = _documents("local-redirect.yaml")
    daemon_set, policy, deny = manifests
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    container["ports"][0]["containerPort"] = redirect.port
    container["readinessProbe"]["httpGet"]["port"] = redirect.probe_port
    spec = policy["spec"]
    spec["redirectFrontend"]["addressMatcher"] = {
        "ip": redirect.metadata_ip,
        "toPorts": [{"port": str(redirect.metadata_port), "protocol": "TCP"}],
    }
    spec["redirectBackend"]["toPorts"] = [{"port": str(redirect.port), "protocol": "TCP"}]
    deny["spec"]["egressDeny"] = [{"toCIDR": [f"{redirect.metadata_ip}/32"]}]
    _place(manifests, namespace)
    return manifests


def literal(audience: str) -> str:
    return json.dumps(audience)


def asks_for_any(rule: Manifest) -> bool:
    """Whether a rule lets one ask for a token of any service account."""
    asked = {"create", "*"} & set(rule["verbs"]) and {TOKENS, "*"} & set(rule.get("resources", ()))
    return bool(asked) and not rule.get("resourceNames")


def account_tokens(
    account: str, *, accounts: str, namespace: str = NAMESPACE, agent: str = ACCOUNT
) -> list[Manifest]:
    """Return NMI's right to ask for tokens of one service account of the namespace `accounts`.

    `namespace` and `agent` are those of NMI's own account. It is for accounts that no pod has: no
    node may ask for those.
    """
    metadata = {
        "name": account,
        "namespace": accounts,
        "labels": {"app.kubernetes.io/managed-by": "podidentity"},
    }
    rule = {
        "apiGroups": [""],
        "resources": [TOKENS],
        "resourceNames": [account],
        "verbs": ["create"],
    }
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": agent, "namespace": namespace}
    head = {"apiVersion": f"{group}/v1", "metadata": metadata}
    reference = {"apiGroup": group, "kind": "Role", "name": account}
    return [
        {**head, "kind": "Role", "rules": [rule]},
        {**head, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
    ]


KUBELET_UNIT = "kubelet.service"


def boot_unit(kubelet: str = KUBELET_UNIT) -> str:
    """Return the systemd unit that closes IMDS to pods before the unit of a kubelet starts."""
    text = _text("podidentity-boot.service")
    return text.replace(f"={KUBELET_UNIT}", f"={kubelet}")


def automatic_tolerations() -> list[Manifest]:
    """Return what NMI's pods tolerate on AKS Automatic, where none may tolerate every taint."""
    (patch,) = _documents("aks-automatic.yaml")
    found: list[Manifest] = patch["spec"]["template"]["spec"]["tolerations"]
    return found


def aks_exceptions() -> list[Manifest]:
    """Return the exceptions for what AKS installs, that for its add-ons in kube-system first.

    The custom resources must be served before, and the namespaces be there.
    """
    return _documents("aks.yaml")


def own_namespace(namespace: str) -> Manifest:
    """Return a namespace in which pods may be what NMI's are: of the node's network, and root.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    labels = {"app.kubernetes.io/name": "podidentity"}
    allowed = {"pod-security.kubernetes.io/enforce": "privileged"}
    metadata = {"name": namespace, "labels": {**labels, **allowed}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


@functools.cache
def _read(name: str) -> str:
    """Return a file's documents as JSON, which is read ten times as fast again."""
    import yaml  # `--help` names an image and a namespace, and reads no file

    # libyaml's is ten times as fast; an installation of PyYAML may be without it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents: list[Manifest] = []
    for document in yaml.load_all(_text(name), Loader=loader):
        documents.extend(document["items"] if document["kind"] == "List" else [document])
    return json.dumps(documents)


def _text(name: str) -> str:
    from importlib.resources import files

    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _documents(name: str) -> list[Manifest]:
    """Return a file's documents, of which the caller may change what he wants."""
    documents: list[Manifest] = json.loads(_read(name))
    return documents
