"""A pod's volumes, and the files that every pod has: hosts, resolv.conf, authorities.

A pod may write only what belongs to the node: its /run, and the network settings of its
namespace. Everything else behind a hostPath is the machine of the person who runs the sandbox, so
it is always read-only; what is not there, and a kubelet would make, is made in a
place of the node's own.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from podidentity_sandbox.atomic_writer import VolumeFile, change_owner, write
from podidentity_sandbox.node.contents import (
    KINDS,
    ContentSources,
    Object,
    Source,
    contents,
    references,
    sources_of,
)
from podidentity_sandbox.node.csi import CsiVolumes
from podidentity_sandbox.node.rootfs import Bind
from podidentity_sandbox.node.security import user_of_all
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import (
    NODE,
    ContainerRefused,
    ContainerSpec,
    Mount,
    PodSpec,
    VolumeRefused,
    amount,
    memory_limit,
    pod_fields,
    setting_up,
)
from podidentity_sandbox.node.syscalls import NO_DEVICES, NO_SUID, mount, unmount
from podidentity_sandbox.plan import DNS_ADDRESS, MACHINE_BUNDLES

# ---- Owners of files


def give(folder: Path, group: int, *, read_only: bool) -> None:
    """Let a group read all of a volume, or write it too; new files belong to the group.

    SetVolumeOwnership of pkg/volume/volume_linux.go. Without root there is no other group to give
    anything to.
    """
    mask = 0o440 if read_only else 0o660
    for path in (folder, *folder.rglob("*")):
        if change_owner(path, group=group) and not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) | mask | (0o2110 if path.is_dir() else 0))


# ---- Tokens of a pod's service account, bound to the pod


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and from when to when it is good."""

    text: str = field(repr=False)
    began: datetime
    ends: datetime


async def request_token(services: Services, spec: PodSpec, audience: str, seconds: int) -> Token:
    """Ask for a token for `audience`, "" for the API server itself; raise ApiRefusal."""
    path = f"/api/v1/namespaces/{spec.namespace}/serviceaccounts/{spec.service_account}/token"
    wish = {
        "expirationSeconds": seconds,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": spec.name, "uid": spec.uid},
        **({"audiences": [audience]} if audience else {}),
    }
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wish}
    api, now = services.api, datetime.now(UTC)
    answer = await api.insist(lambda: api.request("POST", path, body))
    state = answer["status"]
    return Token(state["token"], now, datetime.fromisoformat(state["expirationTimestamp"]))


# ---- Volumes whose files the kubelet itself writes
#
# What they show of objects and of the pod is what was so when it started. When a token grows old,
# all files of its volume are replaced at once; if no other is had, they stay as they are.

_RENEWED_AT = 0.8
"""Share of a token's life after which a kubelet asks for another; after a day at the latest."""
_LONGEST = 24 * 3600.0


class ContentVolumes:
    """Those of one pod."""

    def __init__(self, spec: PodSpec, services: Services, folder: Path) -> None:
        self._spec = spec
        self._services = services
        self._folder = folder / "volumes"
        self._address = ""
        self._tokens: dict[tuple[str, int], Token] = {}
        self._objects: dict[tuple[str, str], Object | None] = {}
        self._written: dict[str, dict[str, VolumeFile]] = {}
        self._volumes = {
            name: volume
            for name, volume in spec.volumes.items()
            if any(kind in volume for kind in KINDS)
        }

    def path(self, name: str) -> Path | None:
        """Return where a volume's files are; None for one that is not written here."""
        if name not in self._volumes:
            return None
        kind = next(kind for kind in KINDS if kind in self._volumes[name])
        return self._folder / f"kubernetes.io~{kind.lower()}" / name

    async def fill(self, address: str) -> None:
        self._address = address
        for name, volume in self._volumes.items():
            with setting_up(name):
                for resource, wanted in references(sources_of(volume)):
                    path = f"/api/v1/namespaces/{self._spec.namespace}/{resource}/{wanted}"
                    self._objects[resource, wanted] = await self._services.api.find(path)
                await self._write(name)

    async def keep_fresh(self) -> None:
        while self._tokens:
            left = (min(map(_stale, self._tokens.values())) - datetime.now(UTC)).total_seconds()
            await asyncio.sleep(max(left, 1.0))
            for name in self._volumes:
                try:
                    with setting_up(name):
                        await self._write(name)
                except (VolumeRefused, OSError) as error:
                    self._services.events.warn(self._spec, "FailedMount", str(error))

    async def _write(self, name: str) -> None:
        volume, path, now = self._volumes[name], self.path(name), datetime.now(UTC)
        assert path is not None  # noqa: S101 - only those of these kinds are here
        await self._refresh_tokens(sources_of(volume), now)
        files = contents(volume, self._content_sources())
        if self._written.get(name) != files:
            write(path, files)
            if (group := self._spec.security.get("fsGroup")) is not None:
                give(path, group, read_only=True)
            self._written[name] = files

    def _content_sources(self) -> ContentSources:
        raw = self._spec.raw
        return ContentSources(
            objects=self._objects,
            fields=pod_fields(
                raw, pod_address=self._address, host_address=self._services.node.address
            ),
            token=lambda audience, seconds: self._tokens[audience, seconds].text.encode(),
            user=user_of_all(raw["spec"]),
            group=self._spec.security.get("fsGroup"),
        )

    async def _refresh_tokens(self, sources: list[Source], now: datetime) -> None:
        for kind, said in sources:
            if kind != "serviceAccountToken":
                continue
            key = said.get("audience") or "", said.get("expirationSeconds") or 3600
            known = self._tokens.get(key)
            if known is None or _stale(known) <= now:
                self._tokens[key] = await request_token(self._services, self._spec, *key)


def _stale(token: Token) -> datetime:
    life = (token.ends - token.began).total_seconds()
    return token.began + timedelta(seconds=min(life * _RENEWED_AT, _LONGEST))


# ---- All volumes of a pod

PODS = Path("/run/kubelet/pods")
AUTHORITIES, *_OTHER_AUTHORITIES = MACHINE_BUNDLES
_WRITABLE = ("/run", "/proc/sys/net")
_SEARCH = "svc.cluster.local cluster.local"


class PodVolumes:
    """The files of one pod."""

    def __init__(self, spec: PodSpec, services: Services) -> None:
        self._spec = spec
        self._services = services
        self._folder = PODS / spec.uid
        self._csi = CsiVolumes(spec, self._folder)
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
                with setting_up(name):
                    self._make_empty(name, volume["emptyDir"])
            self._source(name)
        await self._csi.publish()
        await self._contents.fill(address)

    @property
    def hostname(self) -> str:
        """The name that the pod's programs see of their machine."""
        return self._services.node.name if self._spec.host_network else self._spec.hostname

    async def keep_fresh(self) -> None:
        await self._contents.keep_fresh()

    def binds(self, container: ContainerSpec) -> tuple[Bind, ...]:
        """Return the container's mounts of these volumes; raise ContainerRefused."""
        bundle = str(self._services.plan.ca_bundle)
        others = (path for path in _OTHER_AUTHORITIES if Path(path).exists())
        return (
            Bind(source=str(self._folder / "hosts"), target="/etc/hosts", read_only=False),
            Bind(source=str(self._folder / "resolv.conf"), target="/etc/resolv.conf"),
            *(Bind(source=bundle, target=path) for path in (AUTHORITIES, *others)),
            *(self._bind(mount) for mount in container.mounts),
        )

    def _bind(self, mount: Mount) -> Bind:
        if mount.sub_path or mount.sub_path_expr:
            why = "the sandbox serves no subPath: mount the whole volume"
            raise ContainerRefused("CreateContainerConfigError", why)
        if Path(mount.path).is_relative_to("/proc"):
            # https://github.com/opencontainers/runc/issues/2826
            inside = f'"{mount.path}" cannot be mounted because it is inside /proc'
            raise ContainerRefused("RunContainerError", inside)
        try:
            source = self._source(mount.volume)
        except VolumeRefused as error:
            raise ContainerRefused("CreateContainerConfigError", str(error)) from error
        csi_asks = bool(self._spec.volumes[mount.volume].get("csi", {}).get("readOnly"))
        written = self._contents.path(mount.volume) is not None
        ours = any(Path(source).is_relative_to(root) for root in _WRITABLE)
        return Bind(
            source=source,
            target=mount.path,
            read_only=mount.read_only or not ours or csi_asks or written,
            follow=mount.follow,
        )

    async def close(self) -> None:
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
            size = self._memory_size(said)
            mount("tmpfs", str(folder), "tmpfs", NO_DEVICES | NO_SUID, f"size={size},mode=0777")
        folder.chmod(0o777)
        if (group := self._spec.security.get("fsGroup")) is not None:
            give(folder, group, read_only=False)

    def _memory_size(self, said: Mapping[str, Any]) -> int:
        """Return the size as calculateEmptyDirMemorySize in pkg/volume/emptydir does."""
        wanted = math.ceil(amount(str(said.get("sizeLimit") or "0")))
        limits = [memory_limit(each.resources) for each in self._spec.containers]
        of_node = math.ceil(amount(NODE["memory"]))
        of_pod = sum(limits) if all(limits) else of_node
        return min(size for size in (wanted, of_pod, of_node) if size)

    def _source(self, name: str) -> str:
        volume = self._spec.volumes[name]
        if "emptyDir" in volume:
            return str(self._empty(name))
        if "csi" in volume:
            return str(self._csi.path(name))
        if (written := self._contents.path(name)) is not None:
            return str(written)
        with setting_up(name):
            if "hostPath" in volume:
                return _host_path(volume["hostPath"])
            kind = next((key for key in volume if key != "name"), "of no kind")
            raise VolumeRefused(f"the sandbox does not serve {kind} volumes yet")


_HOST_PATHS = Path("/run/kubelet/hostpaths")
"""What was made on the node where the machine has nothing: its own files are never written."""


def _host_path(volume: Mapping[str, Any]) -> str:
    """Return the place itself, links followed: what may be written is judged by that.

    A container runtime makes a folder where no type is said and nothing is there. Words of
    https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/volume/hostpath/host_path.go
    """
    path, kind = Path(volume["path"]).resolve(), volume.get("type") or ""
    if not path.exists():
        home = path.parent.is_dir()
        if not path.is_relative_to("/run"):
            path = _HOST_PATHS / path.relative_to("/")
        if kind == "FileOrCreate" and not (home or path.parent.is_dir()):
            raise VolumeRefused(f"open {volume['path']}: no such file or directory")
        _make(path, kind)
    is_so, what = {
        "Directory": (path.is_dir, "directory"),
        "DirectoryOrCreate": (path.is_dir, "directory"),
        "File": (path.is_file, "file"),
        "FileOrCreate": (path.is_file, "file"),
        "Socket": (path.is_socket, "socket file"),
        "CharDevice": (path.is_char_device, "character device"),
        "BlockDevice": (path.is_block_device, "block device"),
    }.get(kind, (path.exists, "path"))
    if not is_so():
        raise VolumeRefused(f"hostPath type check failed: {volume['path']} is not a {what}")
    return str(path)


def _make(path: Path, kind: str) -> None:
    if kind in ("", "DirectoryOrCreate"):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
    elif kind == "FileOrCreate":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o644)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
