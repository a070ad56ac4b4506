"""Volumes and where they are mounted: no path may lead out of its volume.

Rules and words of ValidateVolumes and ValidateVolumeMounts:
https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster import names, status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.kinds import volumefiles
from podidentity_sandbox.cluster.status import Cause

VOLUME = {
    "name": str,
    "hostPath": {"path": str, "type": str},
    "csi": {"driver": str, "nodePublishSecretRef": {"name": str}},
    **volumefiles.SHAPES,
}


def volume_faults(volumes: list[Obj], path: str) -> Iterator[Cause]:
    """Yield the faults of a spec's volumes."""
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        where, name = f"{path}[{index}]", volume.get("name", "")
        yield from _name_faults(name, f"{where}.name", seen)
        seen.add(name)
        if "hostPath" in volume:
            place = f"{where}.hostPath.path"
            yield from volumefiles.back_steps(volume["hostPath"].get("path", ""), place)
        yield from volumefiles.faults(volume, where)


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
            yield from volumefiles.descending(mount.get(field, ""), f"{where}.{field}")
        if mount.get("subPath") and mount.get("subPathExpr"):
            detail = "subPathExpr and subPath are mutually exclusive"
            yield status.invalid(f"{where}.subPathExpr", mount["subPathExpr"], detail)
