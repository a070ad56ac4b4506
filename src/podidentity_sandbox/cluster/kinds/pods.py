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
    """Yield the faults of a pod's or a pod template's spec."""
    if not spec.get("containers"):
        yield status.required(f"{path}.containers")
    volumes = {volume.get("name") for volume in spec.get("volumes", [])}
    yield from _volume_faults(spec.get("volumes", []), f"{path}.volumes")
    seen: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field, [])):
            where = f"{path}.{field}[{index}]"
            yield from _container_faults(container, where, volumes)
            name = container.get("name", "")
            if name in seen:
                message = f'Duplicate value: "{name}"'
                yield Cause(f"{where}.name", "FieldValueDuplicate", message)
            seen.add(name)
    for field in ("readinessGates", "schedulingGates"):
        if spec.get(field):
            yield status.forbidden_field(f"{path}.{field}", "the sandbox knows no gates")
    policy, policies = spec.get("restartPolicy"), ("Always", "OnFailure", "Never")
    if policy not in policies:
        yield status.unsupported(f"{path}.restartPolicy", policy, policies)


def _container_faults(container: Obj, where: str, volumes: set[str | None]) -> Iterator[Cause]:
    name = container.get("name", "")
    if not name:
        yield status.required(f"{where}.name")
    else:
        for fault in names.label_faults(name):
            yield status.invalid(f"{where}.name", name, fault)
    if not container.get("image"):
        yield status.required(f"{where}.image")
    yield from _mount_faults(container.get("volumeMounts", []), f"{where}.volumeMounts", volumes)
    # What the sandbox's kubelet does not do is refused here: it would be missed by nobody.
    if "startupProbe" in container:
        yield status.forbidden_field(f"{where}.startupProbe", "the sandbox makes none")
    for hook, action in container.get("lifecycle", {}).items():
        if (hook, *action) != ("preStop", "exec"):
            detail = "the sandbox runs preStop with exec alone"
            yield status.forbidden_field(f"{where}.lifecycle.{hook}", detail)


# ---- Files of volumes that the kubelet writes: which of them may be asked for, and at which paths.
#
# Rules, words and the places of faults, odd as some are, of ValidateLocalNonReservedPath and of
# validateVolumeSource:
# https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/apis/core/validation/validation.go

_NAMED = ("containerName", "resource")
_MOST = 0o777


def _file_faults(volume: Obj, where: str) -> Iterator[Cause]:
    """Yield the faults of the files of a volume, for every source."""
    projected = f"{where}.projected"
    yield from _of_source(volume, where)
    for index, source in enumerate(volume.get("projected", {}).get("sources", [])):
        yield from _of_source(source, f"{projected}.sources[{index}]")
        if "serviceAccountToken" in source:
            yield from _path(source["serviceAccountToken"], projected)


def _of_source(source: Obj, where: str) -> Iterator[Cause]:
    for kind in ("secret", "configMap"):
        for index, item in enumerate(source.get(kind, {}).get("items", [])):
            place = f"{where}.{kind}.items[{index}]"
            if not item.get("key"):
                yield status.required(f"{place}.key")
            yield from _path(item, place)
            yield from _mode(item, place)
    for item in source.get("downwardAPI", {}).get("items", []):
        place = f"{where}.downwardAPI"
        yield from _path(item, place)
        yield from _field(item, place)
        yield from _mode(item, place)


def _field(item: Obj, where: str) -> Iterator[Cause]:
    if "fieldRef" in item:
        if not item["fieldRef"].get("fieldPath"):
            yield status.required(f"{where}.fieldRef.fieldPath")
        if "resourceFieldRef" in item:
            detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
            yield status.invalid(where, "resource", detail)
    elif "resourceFieldRef" in item:
        absent = [field for field in _NAMED if not item["resourceFieldRef"].get(field)]
        if absent:
            yield status.required(f"{where}.resourceFieldRef.{absent[0]}")
    else:
        yield status.required(where, "one of fieldRef and resourceFieldRef is required")


def _mode(item: Obj, where: str) -> Iterator[Cause]:
    if not 0 <= item.get("mode", 0) <= _MOST:
        detail = "must be a number between 0 and 0777 (octal), both inclusive"
        yield status.invalid(f"{where}.mode", item["mode"], detail)


def _path(item: Obj, where: str) -> Iterator[Cause]:
    path, where = item.get("path", ""), f"{where}.path"
    if not path:
        yield status.required(where)
    yield from _descending(path, where)
    if path.startswith("..") and not path.startswith("../"):
        yield status.invalid(where, path, "must not start with '..'")


def _descending(path: str, where: str) -> Iterator[Cause]:
    """Yield the faults of a path that must not lead out of its volume."""
    if path.startswith("/"):
        yield status.invalid(where, path, "must be a relative path")
    yield from _back_steps(path, where)


def _back_steps(path: str, where: str) -> Iterator[Cause]:
    """Yield the fault of a path with `..` in it."""
    if ".." in path.split("/"):
        yield status.invalid(where, path, "must not contain '..'")


# ---- Volumes and where they are mounted: no path may lead out of its volume.
#
# Rules and words of ValidateVolumes and ValidateVolumeMounts:
# https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/validation.go

_HOST_PATH_TYPES = (
    *("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate"),
    *("File", "FileOrCreate", "Socket"),
)


def _volume_faults(volumes: list[Obj], path: str) -> Iterator[Cause]:
    """Yield the faults of a spec's volumes."""
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        where, name = f"{path}[{index}]", volume.get("name", "")
        yield from _volume_name_faults(name, f"{where}.name", seen)
        seen.add(name)
        if "hostPath" in volume:
            place = f"{where}.hostPath.path"
            yield from _back_steps(volume["hostPath"].get("path", ""), place)
            kind = volume["hostPath"].get("type", "")
            if kind not in _HOST_PATH_TYPES:
                yield status.unsupported(f"{where}.hostPath.type", kind, sorted(_HOST_PATH_TYPES))
        yield from _file_faults(volume, where)


def _volume_name_faults(name: str, where: str, seen: set[str]) -> Iterator[Cause]:
    """Yield the faults of a volume's name: it is that of a folder on the node as well."""
    if not name:
        yield status.required(where)
        return
    for fault in names.label_faults(name):
        yield status.invalid(where, name, fault)
    if name in seen:
        yield Cause(where, "FieldValueDuplicate", f'Duplicate value: "{name}"')


def _mount_faults(mounts: list[Obj], path: str, volumes: set[str | None]) -> Iterator[Cause]:
    """Yield the faults of a container's mounts of these volumes."""
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        where, target = f"{path}[{index}]", mount.get("mountPath", "")
        if mount.get("name") not in volumes:
            message = f'Not found: "{mount.get("name", "")}"'
            yield Cause(f"{where}.name", "FieldValueNotFound", message)
        if not target:
            yield status.required(f"{where}.mountPath")
        elif target in seen:
            yield status.invalid(f"{where}.mountPath", target, "must be unique")
        seen.add(target)
        for field in ("subPath", "subPathExpr"):
            yield from _descending(mount.get(field, ""), f"{where}.{field}")
        if mount.get("subPath") and mount.get("subPathExpr"):
            detail = "subPathExpr and subPath are mutually exclusive"
            yield status.invalid(f"{where}.subPathExpr", mount["subPathExpr"], detail)
