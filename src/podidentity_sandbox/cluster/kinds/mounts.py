"""Volumes and where they are mounted: no path may lead out of its volume.

Rules and words of ValidateVolumes and ValidateVolumeMounts:
https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.status import Cause


def volume_faults(volumes: list[Obj], path: str) -> Iterator[Cause]:
    """Yield the faults of a spec's volumes."""
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        where, name = f"{path}[{index}]", volume.get("name", "")
        if not name:
            yield status.required(f"{where}.name")
        elif name in seen:
            yield Cause(f"{where}.name", "FieldValueDuplicate", f'Duplicate value: "{name}"')
        seen.add(name)
        if "hostPath" in volume:
            place = f"{where}.hostPath.path"
            yield from _back_steps(volume["hostPath"].get("path", ""), place)


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
            yield from _descending(mount.get(field, ""), f"{where}.{field}")
        if mount.get("subPath") and mount.get("subPathExpr"):
            detail = "subPathExpr and subPath are mutually exclusive"
            yield status.invalid(f"{where}.subPathExpr", mount["subPathExpr"], detail)


def _descending(path: str, where: str) -> Iterator[Cause]:
    if path.startswith("/"):
        yield status.invalid(where, path, "must be a relative path")
    yield from _back_steps(path, where)


def _back_steps(path: str, where: str) -> Iterator[Cause]:
    if ".." in path.split("/"):
        yield status.invalid(where, path, "must not contain '..'")
