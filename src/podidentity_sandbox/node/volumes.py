"""A pod's volumes, and the files that every pod has: token, hosts, resolv.conf, authorities.

What a pod may write of the node is what is the node's own: its /run, and the network settings of
its namespace. All the rest behind a hostPath is the machine of the person who runs the sandbox,
so it is read-only whatever the spec says.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podidentity_sandbox.node.api import ApiError
from podidentity_sandbox.node.csivolumes import CsiVolumes
from podidentity_sandbox.node.programs import Bind
from podidentity_sandbox.node.refusals import ContainerRefused, VolumeRefused
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import TOKEN_PATH, ContainerSpec, PodSpec
from podidentity_sandbox.plan import DNS_ADDRESS

PODS = Path("/run/kubelet/pods")
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_OTHER_AUTHORITIES = (
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_WRITABLE = ("/run", "/proc/sys/net")
_TOKEN_SECONDS = 3607
"""What a real kubelet asks for: an hour, told apart from one that a person asked for."""
_SEARCH = "svc.cluster.local cluster.local"


class PodVolumes:
    """The files of one pod."""

    def __init__(self, spec: PodSpec, services: Services) -> None:
        self._spec = spec
        self._services = services
        self._folder = PODS / spec.uid
        self._csi = CsiVolumes(spec, services, self._folder)

    async def open(self, address: str) -> None:
        """Make them; raise VolumeRefused, or ApiError where there is no token to be had."""
        plan = self._services.plan
        hostname = self.hostname
        _write(
            self._folder / "hosts",
            f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{address}\t{hostname}\n",
        )
        search = f"search {self._spec.namespace}.{_SEARCH}"
        _write(self._folder / "resolv.conf", f"nameserver {DNS_ADDRESS}\n{search}\n")
        for name in self._spec.volumes:
            self._source(name)
        await self._csi.publish()
        if self._spec.mounts_token:
            _write(self._folder / "token" / "ca.crt", plan.ca_certificate.read_text())
            _write(self._folder / "token" / "namespace", self._spec.namespace)
            await self._fetch_token()

    @property
    def hostname(self) -> str:
        """The name that the pod's programs see of their machine."""
        return self._services.node.name if self._spec.host_network else self._spec.hostname

    async def keep_token_fresh(self) -> None:
        """Write a new token each time that four fifths of its life have passed."""
        while self._spec.mounts_token:
            await self._services.clock.sleep(_TOKEN_SECONDS * 0.8)
            try:
                await self._fetch_token()
            except ApiError as error:
                self._services.events.warn(self._spec, "FailedMount", f"token: {error}")

    def binds(self, container: ContainerSpec) -> tuple[Bind, ...]:
        """Return what the container sees of all this; raise ContainerRefused."""
        bundle = str(self._services.plan.ca_bundle)
        others = (path for path in _OTHER_AUTHORITIES if Path(path).exists())
        binds = [
            Bind(source=str(self._folder / "hosts"), target="/etc/hosts", read_only=False),
            Bind(source=str(self._folder / "resolv.conf"), target="/etc/resolv.conf"),
            *(Bind(source=bundle, target=path) for path in (AUTHORITIES, *others)),
        ]
        own_token = any(mount.path == TOKEN_PATH for mount in container.mounts)
        if self._spec.mounts_token and not own_token:
            binds.append(Bind(source=str(self._folder / "token"), target=TOKEN_PATH))
        for mount in container.mounts:
            if Path(mount.path).is_relative_to("/proc"):
                # https://github.com/opencontainers/runc/issues/2826
                inside = f'"{mount.path}" cannot be mounted because it is inside /proc'
                raise ContainerRefused("RunContainerError", inside)
            try:
                source = self._source(mount.volume)
            except VolumeRefused as error:
                raise ContainerRefused("CreateContainerConfigError", str(error)) from error
            ours = any(Path(source).is_relative_to(root) for root in _WRITABLE)
            binds.append(
                Bind(
                    source=str(Path(source, mount.sub_path)),
                    target=mount.path,
                    read_only=mount.read_only or not ours or self._read_only(mount.volume),
                    follow=mount.follow,
                )
            )
        return tuple(binds)

    async def close(self) -> None:
        """Remove them."""
        await self._csi.unpublish()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _source(self, name: str) -> str:
        volume = self._spec.volumes.get(name)
        if volume is None:
            raise VolumeRefused(f'volume "{name}" is not in the pod\'s spec')
        if "hostPath" in volume:
            return _host_path(volume["hostPath"])
        if "emptyDir" in volume:
            folder = self._folder / "volumes" / name
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
            return str(folder)
        if "csi" in volume:
            return str(self._csi.path(name))
        kind = next((key for key in volume if key != "name"), "of no kind")
        raise VolumeRefused(
            f'MountVolume.SetUp failed for volume "{name}" : '
            f"the sandbox does not serve {kind} volumes yet"
        )

    def _read_only(self, name: str) -> bool:
        return bool(self._spec.volumes[name].get("csi", {}).get("readOnly"))

    async def _fetch_token(self) -> None:
        spec, api = self._spec, self._services.api
        path = f"/api/v1/namespaces/{spec.namespace}/serviceaccounts/{spec.service_account}/token"
        bound = {"apiVersion": "v1", "kind": "Pod", "name": spec.name, "uid": spec.uid}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _TOKEN_SECONDS, "boundObjectRef": bound},
        }
        answer = await api.insist(lambda: api.request("POST", path, body))
        _write(self._folder / "token" / "token", answer["status"]["token"])


def _host_path(volume: Mapping[str, Any]) -> str:
    path, kind = Path(volume["path"]), volume.get("type") or ""
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
        raise VolumeRefused(f"hostPath type check failed: {path} is not a {kind or 'path'} here")
    return str(path)


def _write(path: Path, text: str) -> None:
    """Replace a file at once: whoever reads sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.name != "token":
        path.write_text(text)
        return
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)
