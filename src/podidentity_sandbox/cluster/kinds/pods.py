"""Pods: the defaults, rules and life of a pod as its kubelet and its owner know them.

Defaults are those of a pod recorded from a real server; the rules are those of
https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj, names, status
from podidentity_sandbox.cluster.registry import Strategy
from podidentity_sandbox.cluster.status import Cause
from podidentity_sandbox.cluster.storage import field_of


def qos_class(spec: Obj) -> str:
    """Return the class of a pod's spec, whose defaults are filled in."""
    pairs = [
        [str(container["resources"].get(way, {}).get(name)) for way in ("limits", "requests")]
        for container in _containers(spec)
        for name in ("cpu", "memory")
    ]
    if all(pair == ["None", "None"] for pair in pairs):
        return "BestEffort"
    whole = all(limit == request != "None" for limit, request in pairs)
    return "Guaranteed" if whole else "Burstable"


def _containers(spec: Obj) -> list[Obj]:
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


# ---- Pods

SELECTABLE = {
    path: path
    for path in (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    )
}
ENDED = ("Succeeded", "Failed")
_VOLUME_DEFAULTS: dict[str, Obj] = {
    "hostPath": {"type": ""},
    "secret": {"defaultMode": 0o644},
    "configMap": {"defaultMode": 0o644},
    "projected": {"defaultMode": 0o644},
    "downwardAPI": {"defaultMode": 0o644},
}
_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_UPDATE_FORBIDDEN = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)


class PodStrategy(Strategy):
    """Pods live on for their grace period once they are on a node: the kubelet ends them."""

    def default(self, new: Obj) -> None:
        """Fill in the defaults; an account has two names, an old one and a new one."""
        spec = new.setdefault("spec", {})
        default_spec(spec)
        for container in _containers(spec):
            _default_of_pods(container, in_nodes_network=bool(spec.get("hostNetwork")))
        if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
            spec["serviceAccountName"] = spec["serviceAccount"] = account

    def prepare_create(self, new: Obj) -> None:
        """Fill in what admission fills in, and begin its status."""
        spec = new["spec"]
        if "serviceAccountName" not in spec:
            spec["serviceAccountName"] = spec["serviceAccount"] = "default"
        _tolerate(spec)
        spec.setdefault("priority", 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        new["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}

    def prepare_update(self, new: Obj, old: Obj) -> None:
        """Keep what admission demands."""
        del old
        _tolerate(new["spec"])

    def validate(self, new: Obj, old: Obj | None) -> Iterator[Cause]:
        """Check the spec; once made, nearly nothing of it may change."""
        yield from spec_faults(new.get("spec", {}), "spec")
        if old is not None and _fixed(new.get("spec", {})) != _fixed(old["spec"]):
            yield status.forbidden_field("spec", _UPDATE_FORBIDDEN)

    def grace_seconds(self, obj: Obj, asked: int | None) -> int:
        """Return the grace period; none for a pod that no kubelet runs."""
        spec = obj["spec"]
        if not spec.get("nodeName") or field_of(obj, "status.phase") in ENDED:
            return 0
        return int(spec["terminationGracePeriodSeconds"] if asked is None else asked)


def _tolerate(spec: Obj) -> None:
    """Let a pod stay a while on a node that is not ready, as DefaultTolerationSeconds does."""
    tolerations = spec.setdefault("tolerations", [])
    for key in _TOLERATED:
        taint = {"key": key, "effect": "NoExecute"}
        if not any(tolerates(toleration, taint) for toleration in tolerations):
            tolerations.append({**taint, "operator": "Exists", "tolerationSeconds": 300})


def tolerates(toleration: Obj, taint: Obj) -> bool:
    """Whether a toleration is one of a taint: ToleratesTaint of api/core/v1/toleration.go."""
    key, effect = toleration.get("key"), toleration.get("effect")
    if (key and key != taint["key"]) or (effect and effect != taint["effect"]):
        return False
    exists = toleration.get("operator", "Equal") == "Exists"
    return exists or bool(key and toleration.get("value", "") == taint.get("value", ""))


def default_spec(spec: Obj) -> None:
    """Fill in the defaults of a pod's or a pod template's spec."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("enableServiceLinks", True)
    for volume in spec.get("volumes", []):
        for source, defaults in _VOLUME_DEFAULTS.items():
            if source in volume:
                volume[source] = {**defaults, **volume[source]}
    for container in _containers(spec):
        tag = str(container.get("image", "")).rpartition(":")[2]
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        for port in container.get("ports", []):
            port.setdefault("protocol", "TCP")
        moving = tag == "latest" or ":" not in str(container.get("image", ""))
        container.setdefault("imagePullPolicy", "Always" if moving else "IfNotPresent")


def _default_of_pods(container: Obj, *, in_nodes_network: bool) -> None:
    """Fill in what no template gets: setHostNetworkPorts, and SetDefaults_Pod for requests."""
    for port in container.get("ports", []) if in_nodes_network else ():
        port.setdefault("hostPort", port.get("containerPort"))
    resources = container["resources"]
    for name, limit in resources.get("limits", {}).items():
        resources.setdefault("requests", {}).setdefault(name, limit)


def _fixed(spec: Obj) -> Obj:
    """Return what of a spec never changes."""
    free = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")
    fixed = {key: value for key, value in spec.items() if key not in free}
    for field in ("containers", "initContainers"):
        if field in fixed:
            fixed[field] = [
                {k: v for k, v in c.items() if k not in ("image", "imagePullPolicy")}
                for c in fixed[field]
            ]
    return fixed


def spec_faults(spec: Obj, path: str) -> Iterator[Cause]:
    """Yield the faults of a pod's or a pod template's spec: what its node would stumble over.

    A volume's name is a folder of the node, and no file of it may lead out of it. What the
    sandbox's kubelet does not do is refused here: nobody would miss it.
    """
    if not spec.get("containers"):
        yield status.required(f"{path}.containers")
    volumes = [volume.get("name", "") for volume in spec.get("volumes", [])]
    for name in volumes:
        for fault in names.label_faults(name):
            yield status.invalid(f"{path}.volumes.name", name, fault)
    for each in _files(spec):
        if each.startswith(("/", "..")) or ".." in each.split("/"):
            yield status.invalid(f"{path}.volumes", each, "must be a path inside of the volume")
    yield from _container_faults(_containers(spec), volumes, f"{path}.containers")
    for field in ("readinessGates", "schedulingGates"):
        if spec.get(field):
            yield status.forbidden_field(f"{path}.{field}", "the sandbox knows no gates")


def _container_faults(every: list[Obj], volumes: list[str], where: str) -> Iterator[Cause]:
    for container in every:
        name = container.get("name", "")
        for fault in names.label_faults(name):
            yield status.invalid(f"{where}.name", name, fault)
        if [each.get("name") for each in every].count(name) > 1:
            yield Cause(f"{where}.name", "FieldValueDuplicate", f'Duplicate value: "{name}"')
        if not container.get("image"):
            yield status.required(f"{where}.image")
        for mount in container.get("volumeMounts", []):
            if mount.get("name") not in volumes:
                message = f'Not found: "{mount.get("name", "")}"'
                yield Cause(f"{where}.volumeMounts.name", "FieldValueNotFound", message)
        if "startupProbe" in container:
            yield status.forbidden_field(f"{where}.startupProbe", "the sandbox makes none")
        for hook, action in container.get("lifecycle", {}).items():
            if (hook, *action) != ("preStop", "exec"):
                detail = "the sandbox runs preStop with exec alone"
                yield status.forbidden_field(f"{where}.lifecycle.{hook}", detail)


def _files(spec: Obj) -> Iterator[str]:
    """Yield the paths of the files that a kubelet writes into the volumes of a spec."""
    for volume in spec.get("volumes", []):
        for source in (volume, *volume.get("projected", {}).get("sources", [])):
            yield source.get("serviceAccountToken", {}).get("path", "token")
            for kind in ("secret", "configMap", "downwardAPI"):
                for item in source.get(kind, {}).get("items", []):
                    yield str(item.get("path", ""))
