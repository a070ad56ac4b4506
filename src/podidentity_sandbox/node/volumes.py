"""A pod's volumes, and the files that every pod has: hosts, resolv.conf, authorities.

What a pod may write of the node is what is the node's own: its /run, and the network settings of
its namespace. All the rest behind a hostPath is the machine of the person who runs the sandbox,
so it is read-only whatever the spec says.
"""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podidentity_sandbox.node.contentvolumes import ContentVolumes
from podidentity_sandbox.node.csivolumes import CsiVolumes
from podidentity_sandbox.node.environment import expand
from podidentity_sandbox.node.folders import give
from podidentity_sandbox.node.programs import Bind
from podidentity_sandbox.node.quantities import NODE, amount, memory_limit
from podidentity_sandbox.node.refusals import ContainerRefused, VolumeRefused
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import ContainerSpec, Mount, PodSpec
from podidentity_sandbox.node.syscalls import NO_DEVICES, NO_SUID, mount, unmount
from podidentity_sandbox.plan import DNS_ADDRESS

PODS = Path("/run/kubelet/pods")
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_OTHER_AUTHORITIES = (
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_WRITABLE = ("/run", "/proc/sys/net")
_SEARCH = "svc.cluster.local cluster.local"


class PodVolumes:
    """The files of one pod."""

    def __init__(self, spec: PodSpec, services: Services) -> None:
        self._spec = spec
        self._services = services
        self._folder = PODS / spec.uid
        self._csi = CsiVolumes(spec, services, self._folder)
        self._contents = ContentVolumes(spec, services, self._folder)

    async def open(self, address: str) -> None:
        """Make them; raise VolumeRefused."""
        hostname = self.hostname
        _write(
            self._folder / "hosts",
            f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{address}\t{hostname}\n",
        )
        search = f"search {self._spec.namespace}.{_SEARCH}"
        _write(self._folder / "resolv.conf", f"nameserver {DNS_ADDRESS}\n{search}\n")
        for name, volume in self._spec.volumes.items():
            if "emptyDir" in volume:
                self._make_empty(name, volume["emptyDir"])
            self._source(name)
        await self._csi.publish()
        await self._contents.fill(address)

    @property
    def hostname(self) -> str:
        """The name that the pod's programs see of their machine."""
        return self._services.node.name if self._spec.host_network else self._spec.hostname

    def observe(self, raw: Mapping[str, Any]) -> None:
        """Take note of the pod's object as it is now."""
        self._contents.observe(raw)

    async def keep_fresh(self) -> None:
        """Keep the files up to date, for ever."""
        await self._contents.keep_fresh()

    def binds(self, container: ContainerSpec, variables: Mapping[str, str]) -> tuple[Bind, ...]:
        """Return what the container sees of all this; raise ContainerRefused.

        `variables` are those of its environment, which a subPathExpr may name.
        """
        bundle = str(self._services.plan.ca_bundle)
        others = (path for path in _OTHER_AUTHORITIES if Path(path).exists())
        return (
            Bind(source=str(self._folder / "hosts"), target="/etc/hosts", read_only=False),
            Bind(source=str(self._folder / "resolv.conf"), target="/etc/resolv.conf"),
            *(Bind(source=bundle, target=path) for path in (AUTHORITIES, *others)),
            *(self._bind(container, mount, variables) for mount in container.mounts),
        )

    def _bind(self, container: ContainerSpec, mount: Mount, variables: Mapping[str, str]) -> Bind:
        if Path(mount.path).is_relative_to("/proc"):
            # https://github.com/opencontainers/runc/issues/2826
            inside = f'"{mount.path}" cannot be mounted because it is inside /proc'
            raise ContainerRefused("RunContainerError", inside)
        try:
            source = self._source(mount.volume)
        except VolumeRefused as error:
            raise ContainerRefused("CreateContainerConfigError", str(error)) from error
        ours = any(Path(source).is_relative_to(root) for root in _WRITABLE)
        sub_path = mount.sub_path or expand(mount.sub_path_expression, variables)
        try:
            inner = below(Path(source), sub_path, make=ours and not self._read_only(mount.volume))
        except OSError as error:
            why = (
                f'failed to prepare subPath for volumeMount "{mount.volume}" '
                f'of container "{container.name}"'
            )
            raise ContainerRefused("CreateContainerConfigError", why) from error
        return Bind(
            source=str(inner),
            target=mount.path,
            read_only=mount.read_only or not ours or self._read_only(mount.volume),
            follow=mount.follow,
        )

    async def close(self) -> None:
        """Remove them."""
        await self._contents.close()
        await self._csi.unpublish()
        for name in self._spec.volumes:
            if self._empty(name).is_mount():
                unmount(str(self._empty(name)))
        shutil.rmtree(self._folder, ignore_errors=True)

    def _empty(self, name: str) -> Path:
        return self._folder / "volumes" / "kubernetes.io~empty-dir" / name

    def _make_empty(self, name: str, said: Mapping[str, Any]) -> None:
        """Make an emptyDir; one of the medium Memory is as large as its limit, or the pod's."""
        folder = self._empty(name)
        folder.mkdir(parents=True, exist_ok=True)
        if said.get("medium") == "Memory" and not folder.is_mount():
            size = self._memory_size(name, said)
            mount("tmpfs", str(folder), "tmpfs", NO_DEVICES | NO_SUID, f"size={size},mode=0777")
        folder.chmod(0o777)
        if (group := self._spec.security.get("fsGroup")) is not None:
            give(folder, group, read_only=False)

    def _memory_size(self, name: str, said: Mapping[str, Any]) -> int:
        """Return the size as calculateEmptyDirMemorySize in pkg/volume/emptydir does."""
        try:
            wanted = math.ceil(amount(str(said.get("sizeLimit") or "0")))
            limits = [memory_limit(each.resources) for each in self._spec.containers]
        except ValueError as error:
            raise VolumeRefused(
                f'MountVolume.SetUp failed for volume "{name}" : {error}'
            ) from error
        of_node = math.ceil(amount(NODE["memory"]))
        of_pod = sum(limits) if all(limits) else of_node
        return min(size for size in (wanted, of_pod, of_node) if size)

    def _source(self, name: str) -> str:
        volume = self._spec.volumes.get(name)
        if volume is None:
            raise VolumeRefused(f'volume "{name}" is not in the pod\'s spec')
        if "hostPath" in volume:
            return _host_path(volume["hostPath"])
        if "emptyDir" in volume:
            return str(self._empty(name))
        if "csi" in volume:
            return str(self._csi.path(name))
        if (written := self._contents.path(name)) is not None:
            return str(written)
        kind = next((key for key in volume if key != "name"), "of no kind")
        raise VolumeRefused(
            f'MountVolume.SetUp failed for volume "{name}" : '
            f"the sandbox does not serve {kind} volumes yet"
        )

    def _read_only(self, name: str) -> bool:
        asked = self._spec.volumes[name].get("csi", {}).get("readOnly")
        return bool(asked) or self._contents.path(name) is not None


def below(folder: Path, sub_path: str, *, make: bool) -> Path:
    """Return the place of a subPath; raise OSError where a link in it leads out of the volume."""
    if not sub_path:
        return folder
    inner = (folder / sub_path).resolve()
    if not inner.is_relative_to(folder.resolve()):
        raise OSError(errno.EPERM, "it leads out of its volume")
    if make and not inner.exists():
        inner.mkdir(parents=True, mode=0o750)
    return inner


def _host_path(volume: Mapping[str, Any]) -> str:
    """Return the place itself, links followed: what may be written is judged by that."""
    path, kind = Path(volume["path"]).resolve(), volume.get("type") or ""
    if not path.exists() and path.is_relative_to("/run") and kind in {"", "DirectoryOrCreate"}:
        path.mkdir(parents=True)
    wanted = {
        "Directory": path.is_dir,
        "DirectoryOrCreate": path.is_dir,
        "File": path.is_file,
        "FileOrCreate": path.is_file,
        "Socket": path.is_socket,
        "CharDevice": path.is_char_device,
        "BlockDevice": path.is_block_device,
    }.get(kind, path.exists)
    if not wanted():
        given = volume["path"]
        raise VolumeRefused(f"hostPath type check failed: {given} is not a {kind or 'path'} here")
    return str(path)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
