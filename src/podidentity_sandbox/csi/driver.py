"""The driver: volumes published for pods, rotated as long as they are, and let go.

Words and order: pkg/secrets-store/nodeserver.go and pkg/rotation/reconciler.go of
https://github.com/kubernetes-sigs/secrets-store-csi-driver.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import shutil
import ssl
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from podidentity_sandbox.apiserver import ApiRefusal, ApiServer, ApiUnreachable
from podidentity_sandbox.atomic_writer import show
from podidentity_sandbox.csi.parameters import POD_NAME, POD_NAMESPACE, MountFailed
from podidentity_sandbox.csi.provider import SecretFile, SecretsProvider


def write(folder: Path, files: Sequence[SecretFile]) -> None:
    """Make `folder` show these files and no others; raise OSError."""
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    fresh.chmod(0o755)
    for file in files:
        path = fresh / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    show(folder, fresh.name, [file.path for file in files])


def clear(folder: Path) -> None:
    """Remove all that `write` made."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


# ---- The API server, as the driver's pod sees it: SecretProviderClasses, and events on pods

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CLASSES = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/{}/secretproviderclasses/{}"
_COMPONENT = "csi-secrets-store-rotation"
_log = logging.getLogger(__name__)


class PodRef(NamedTuple):
    """A pod."""

    namespace: str
    name: str
    uid: str


class Cluster(ApiServer):
    """The API server, by the pod's service account."""

    def __init__(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        trust = ssl.create_default_context(cafile=str(_SERVICE_ACCOUNT / "ca.crt"))
        # The token is read each time: the kubelet renews it.
        token = (_SERVICE_ACCOUNT / "token").read_text
        super().__init__(f"https://{host}:{port}", trust, token, agent="secrets-store-csi/sandbox")

    async def secret_provider_class(self, namespace: str, name: str) -> dict[str, Any]:
        """Return the object; raise MountFailed in the words of controller-runtime's client."""
        try:
            return await self.request("GET", _CLASSES.format(namespace, name))
        except ApiRefusal as error:
            gone = f'SecretProviderClass.secrets-store.csi.x-k8s.io "{name}" not found'
            why = gone if error.status == 404 else error.message
        except ApiUnreachable as error:
            why = str(error)
        raise MountFailed(f"failed to get secretproviderclass {namespace}/{name}, error: {why}")

    async def tell(self, pod: PodRef, kind: str, reason: str, message: str) -> None:
        """Put an event on a pod; one that cannot be put is let go."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{pod.name[:200]}.{uuid.uuid4().hex[:16]}",
                "namespace": pod.namespace,
            },
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", **pod._asdict()},
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": _COMPONENT},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self.request("POST", f"/api/v1/namespaces/{pod.namespace}/events", event)
        except (ApiRefusal, ApiUnreachable) as error:
            _log.warning("an event was lost: %s", error)


# ---- The driver

_POD_UID = "csi.storage.k8s.io/pod.uid"
_ACCOUNT = "csi.storage.k8s.io/serviceAccount.name"
_AZURE = "azure"


@dataclass(slots=True)
class Volume:
    """A volume that is mounted."""

    attributes: Mapping[str, str]
    versions: Mapping[str, str]
    """Of each file, as the vault names them."""

    @property
    def pod(self) -> PodRef:
        """The pod that mounts it."""
        return PodRef(
            *(self.attributes.get(key, "") for key in (POD_NAMESPACE, POD_NAME, _POD_UID))
        )


class Driver:
    """The driver of one node."""

    def __init__(self, cluster: Cluster, provider: SecretsProvider) -> None:
        self._cluster = cluster
        self._provider = provider
        self._volumes: dict[str, Volume] = {}

    async def publish(self, request: Mapping[str, Any]) -> None:
        """Fill the folder of a volume; raise MountFailed."""
        target, attributes = request.get("target"), request.get("attributes")
        if not target:
            raise MountFailed("Target path missing in request", "InvalidArgument")
        if not attributes:
            raise MountFailed("Volume attributes missing in request", "InvalidArgument")
        if target in self._volumes:
            return
        _log.info("publishing %s", target)
        parameters = await self._parameters(attributes)
        if not request.get("readOnly"):
            raise MountFailed("Readonly is not true in request", "InvalidArgument")
        where = f"{attributes.get(POD_NAMESPACE, '')}/{attributes.get(POD_NAME, '')}"
        try:
            versions = await self._mount(Path(target), parameters)
        except MountFailed as error:
            raise MountFailed(
                f"failed to mount secrets store objects for pod {where}, err: {error}"
            ) from error
        self._volumes[target] = Volume(attributes, versions)

    async def unpublish(self, request: Mapping[str, Any]) -> None:
        """Empty the folder of a volume."""
        target = str(request["target"])
        _log.info("unpublishing %s", target)
        self._volumes.pop(target, None)
        await asyncio.to_thread(clear, Path(target))

    async def rotate(self) -> None:
        """Read every volume again, and write those of which a secret has changed."""
        for target, volume in list(self._volumes.items()):
            await self._rotate(target, volume)

    async def _rotate(self, target: str, volume: Volume) -> None:
        attributes = volume.attributes
        namespace, name = attributes.get(POD_NAMESPACE, ""), attributes["secretProviderClass"]
        try:
            parameters = await self._parameters(attributes)
            before, found = volume.versions, await self._provider.files(parameters)
            if target not in self._volumes:
                return  # let go meanwhile
            volume.versions = {file.path: file.version for file in found}
            if volume.versions == before:
                return
            await asyncio.to_thread(write, Path(target), found)
        except MountFailed as error:
            _log.warning("%s: cannot rotate: %s", target, error)
            message = f"provider mount err: {error}"
            await self._cluster.tell(volume.pod, "Warning", "MountRotationFailed", message)
            return
        except OSError:
            _log.exception("%s: cannot write", target)
            return
        message = f"successfully rotated mounted contents for spc {namespace}/{name}"
        await self._cluster.tell(volume.pod, "Normal", "MountRotationComplete", message)

    async def _parameters(self, attributes: Mapping[str, str]) -> dict[str, str]:
        name = attributes.get("secretProviderClass", "")
        if not name:
            raise MountFailed("secretProviderClass is not set")
        namespace = attributes.get(POD_NAMESPACE, "")
        found = await self._cluster.secret_provider_class(namespace, name)
        spec = found.get("spec") or {}
        provider = spec.get("provider") or ""
        if not provider:
            raise MountFailed(f"provider not set in {namespace}/{name}")
        if provider != _AZURE:
            raise MountFailed(f'error connecting to provider "{provider}": provider not found')
        pod = {
            key: attributes.get(key, "") for key in (POD_NAME, POD_NAMESPACE, _POD_UID, _ACCOUNT)
        }
        return {**(spec.get("parameters") or {}), **pod}

    async def _mount(self, target: Path, parameters: Mapping[str, str]) -> dict[str, str]:
        found = await self._provider.files(parameters)
        await asyncio.to_thread(write, target, found)
        return {file.path: file.version for file in found}
