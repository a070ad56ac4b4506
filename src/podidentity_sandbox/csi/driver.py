"""The driver: volumes published for pods, rotated as long as they are, and let go.

Words and order: pkg/secrets-store/nodeserver.go and pkg/rotation/reconciler.go of
https://github.com/kubernetes-sigs/secrets-store-csi-driver.
"""

from __future__ import annotations

import datetime
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podidentity_sandbox.apiserver import ApiRefusal, ApiServer, ApiUnreachable
from podidentity_sandbox.atomic_writer import VolumeFile, write
from podidentity_sandbox.csi.parameters import POD_NAME, POD_NAMESPACE, MountFailed
from podidentity_sandbox.csi.provider import Secrets

# ---- The API server, as the driver's pod sees it: SecretProviderClasses, and events on pods

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CLASSES = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/{}/secretproviderclasses/{}"
_COMPONENT = "csi-secrets-store-rotation"
_log = logging.getLogger(__name__)


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

    async def tell(
        self, attributes: Mapping[str, str], kind: str, reason: str, message: str
    ) -> None:
        """Put an event on the pod of a volume; one that cannot be put is let go."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace, name = attributes[POD_NAMESPACE], attributes[POD_NAME]
        pod = {"namespace": namespace, "name": name, "uid": attributes[_POD_UID]}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{name}.", "namespace": namespace},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", **pod},
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": _COMPONENT},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self.request("POST", f"/api/v1/namespaces/{namespace}/events", event)
        except (ApiRefusal, ApiUnreachable) as error:
            _log.warning("an event was lost: %s", error)


# ---- The driver

_POD_UID = "csi.storage.k8s.io/pod.uid"


@dataclass(slots=True)
class Volume:
    """A volume that is mounted."""

    folder: Path
    attributes: Mapping[str, str]
    secrets: Secrets = field(default_factory=dict, repr=False)


class Driver:
    """The driver of one node."""

    def __init__(
        self, cluster: Cluster, secrets: Callable[[Mapping[str, str]], Awaitable[Secrets]]
    ) -> None:
        """`secrets` returns what a class with these parameters asks for; raises MountFailed."""
        self._cluster = cluster
        self._secrets = secrets
        self._volumes: dict[str, Volume] = {}

    async def publish(self, request: Mapping[str, Any]) -> None:
        target, attributes = request["target"], request["attributes"]
        if target in self._volumes:
            return
        _log.info("publishing %s", target)
        volume = Volume(Path(target), attributes)
        parameters = await self._parameters(attributes)
        if not request["readOnly"]:
            raise MountFailed("Readonly is not true in request", "InvalidArgument")
        try:
            _show(volume, await self._secrets(parameters))
        except MountFailed as error:
            where = f"{attributes[POD_NAMESPACE]}/{attributes[POD_NAME]}"
            raise MountFailed(
                f"failed to mount secrets store objects for pod {where}, err: {error}"
            ) from error
        self._volumes[target] = volume

    async def unpublish(self, request: Mapping[str, Any]) -> None:
        """Let a volume go, whose folder the kubelet removes."""
        _log.info("unpublishing %s", request["target"])
        self._volumes.pop(request["target"], None)

    async def rotate(self) -> None:
        """Read every volume again, and write those of which a secret has changed."""
        for target, volume in list(self._volumes.items()):
            await self._rotate(target, volume)

    async def _rotate(self, target: str, volume: Volume) -> None:
        attributes = volume.attributes
        try:
            found = await self._secrets(await self._parameters(attributes))
            if found == volume.secrets or target not in self._volumes:  # the same, or let go
                return
            _show(volume, found)
        except MountFailed as error:
            _log.warning("%s: cannot rotate: %s", target, error)
            message = f"provider mount err: {error}"
            await self._cluster.tell(attributes, "Warning", "MountRotationFailed", message)
            return
        except OSError:
            _log.exception("%s: cannot write", target)
            return
        name = f"{attributes[POD_NAMESPACE]}/{attributes['secretProviderClass']}"
        message = f"successfully rotated mounted contents for spc {name}"
        await self._cluster.tell(attributes, "Normal", "MountRotationComplete", message)

    async def _parameters(self, attributes: Mapping[str, str]) -> dict[str, str]:
        name = attributes.get("secretProviderClass", "")
        if not name:
            raise MountFailed("secretProviderClass is not set")
        found = await self._cluster.secret_provider_class(attributes[POD_NAMESPACE], name)
        spec = found.get("spec") or {}
        if spec.get("provider") != "azure":
            provider = spec.get("provider", "")
            raise MountFailed(f'error connecting to provider "{provider}": provider not found')
        pod = {key: attributes[key] for key in (POD_NAME, POD_NAMESPACE)}
        return {**(spec.get("parameters") or {}), **pod}


def _show(volume: Volume, found: Secrets) -> None:
    """Let a pod see these files; raise MountFailed for a path that is none, or OSError."""
    try:
        write(volume.folder, {path: VolumeFile(text.encode()) for path, (text, _) in found.items()})
    except ValueError as error:
        raise MountFailed(str(error)) from error
    volume.secrets = found
