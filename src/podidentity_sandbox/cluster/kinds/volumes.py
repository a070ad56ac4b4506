"""Volumes of pods: their files, and where they are mounted."""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster import Obj, names, status
from podidentity_sandbox.cluster.status import Cause

# ---- Files of volumes that the kubelet writes: which of them may be asked for, and at which paths.
#
# Rules, words and the places of faults, odd as some are, of ValidateLocalNonReservedPath and of
# validateVolumeSource:
# https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/apis/core/validation/validation.go

_NAMED = ("containerName", "resource")
_MOST = 0o777


def file_faults(volume: Obj, where: str) -> Iterator[Cause]:
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
    yield from descending(path, where)
    if path.startswith("..") and not path.startswith("../"):
        yield status.invalid(where, path, "must not start with '..'")


def descending(path: str, where: str) -> Iterator[Cause]:
    """Yield the faults of a path that must not lead out of its volume."""
    if path.startswith("/"):
        yield status.invalid(where, path, "must be a relative path")
    yield from back_steps(path, where)


def back_steps(path: str, where: str) -> Iterator[Cause]:
    """Yield the fault of a path with `..` in it."""
    if ".." in path.split("/"):
        yield status.invalid(where, path, "must not contain '..'")


# ---- Volumes and where they are mounted: no path may lead out of its volume.
#
# Rules and words of ValidateVolumes and ValidateVolumeMounts:
# https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/validation.go

HOST_PATH_TYPES = (
    *("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate"),
    *("File", "FileOrCreate", "Socket"),
)


def volume_faults(volumes: list[Obj], path: str) -> Iterator[Cause]:
    """Yield the faults of a spec's volumes."""
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        where, name = f"{path}[{index}]", volume.get("name", "")
        yield from _name_faults(name, f"{where}.name", seen)
        seen.add(name)
        if "hostPath" in volume:
            place = f"{where}.hostPath.path"
            yield from back_steps(volume["hostPath"].get("path", ""), place)
            kind = volume["hostPath"].get("type", "")
            if kind not in HOST_PATH_TYPES:
                yield status.unsupported(f"{where}.hostPath.type", kind, sorted(HOST_PATH_TYPES))
        yield from file_faults(volume, where)


def _name_faults(name: str, where: str, seen: set[str]) -> Iterator[Cause]:
    """Yield the faults of a volume's name: it is that of a folder on the node as well."""
    if not name:
        yield status.required(where)
        return
    for fault in names.label_faults(name):
        yield status.invalid(where, name, fault)
    if name in seen:
        yield Cause(where, "FieldValueDuplicate", f'Duplicate value: "{name}"')


def mount_faults(mounts: list[Obj], path: str, volumes: set[str | None]) -> Iterator[Cause]:
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
            yield from descending(mount.get(field, ""), f"{where}.{field}")
        if mount.get("subPath") and mount.get("subPathExpr"):
            detail = "subPathExpr and subPath are mutually exclusive"
            yield status.invalid(f"{where}.subPathExpr", mount["subPathExpr"], detail)
