"""CSI volumes: what the kubelet asks a driver for, over the driver's own Unix socket.

The Container Storage Interface is gRPC; here it is one line of JSON each way, with the fields and
the error codes of its NodePublishVolume and NodeUnpublishVolume. A driver is registered while it
listens on `/run/kubelet/plugins/DRIVER/csi.sock` of the node: its pod mounts the hostPath
`/run/kubelet`, which is the node's own and may be written.

    → {"op": "publish", "volume": "store", "target": "/run/kubelet/pods/UID/volumes/…/mount",
       "readOnly": true, "attributes": {"secretProviderClass": "…", …}}
    → {"op": "unpublish", "volume": "store", "target": "…"}
    ← {}                                               it is done
    ← {"error": {"code": "Unknown", "message": "…"}}   it is not; a later publish may succeed

A connection carries one call. The driver must bear a repeated call, as CSI demands. The folder
`target` is there, empty, before the first publish; the driver writes files into it (it mounts
nothing) and may replace them as long as it is published; the kubelet removes them. `attributes` are
the volume's own `volumeAttributes` and the pod's, whatever the CSIDriver object says:
`csi.storage.k8s.io/` + `pod.name`, `pod.namespace`, `pod.uid`, `serviceAccount.name`, `ephemeral`.

https://kubernetes-csi.github.io/docs/pod-info.html
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from podidentity_sandbox.node.spec import PodSpec, VolumeRefused, setting_up

PLUGINS = Path("/run/kubelet/plugins")
_PREFIX = "csi.storage.k8s.io/"
_SECONDS = 120.0
"""How long a driver may take: csiTimeout of kubernetes pkg/volume/csi/csi_plugin.go."""
_LONGEST_ANSWER = 1024 * 1024


def attributes_of(volume: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes of a pod's `csi` volume as its driver gets them."""
    metadata = pod["metadata"]
    return {
        **(volume.get("volumeAttributes") or {}),
        f"{_PREFIX}pod.name": metadata["name"],
        f"{_PREFIX}pod.namespace": metadata["namespace"],
        f"{_PREFIX}pod.uid": metadata["uid"],
        f"{_PREFIX}serviceAccount.name": pod["spec"].get("serviceAccountName") or "default",
        f"{_PREFIX}ephemeral": "true",
    }


async def call(driver: str, request: Mapping[str, Any]) -> None:
    """Ask the driver, and return when it has done it; raise VolumeRefused in its words."""
    raw = json.dumps(request).encode() + b"\n"
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(
                str(PLUGINS / driver / "csi.sock"), limit=_LONGEST_ANSWER
            )
            with closing(writer):
                writer.write(raw)
                said = await reader.readline()
    except TimeoutError:
        raise VolumeRefused(
            "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
        ) from None
    except OSError:
        # Words of pkg/volume/csi/csi_client.go, newCsiDriverClient.
        raise VolumeRefused(
            "kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name "
            f"{driver} not found in the list of registered CSI drivers"
        ) from None
    if not said.endswith(b"\n"):  # as gRPC words a server that closes in mid-air
        raise VolumeRefused("rpc error: code = Unavailable desc = error reading from server: EOF")
    if error := json.loads(said).get("error"):
        # Text of a gRPC status as Go's client prints it.
        raise VolumeRefused(f"rpc error: code = {error['code']} desc = {error['message']}")


# ---- CSI volumes in a pod's spec
#
# Published by their drivers before the pod runs, and unpublished after it.
# https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html#csi-ephemeral-inline-volumes

_log = logging.getLogger(__name__)


class CsiVolumes:
    """Those of one pod; their folders are where a kubelet has them."""

    def __init__(self, spec: PodSpec, folder: Path) -> None:
        self._spec = spec
        self._folder = folder / "volumes" / "kubernetes.io~csi"
        self._volumes: Mapping[str, Mapping[str, Any]] = {
            name: volume["csi"] for name, volume in spec.volumes.items() if "csi" in volume
        }
        self._published: set[str] = set()

    def path(self, name: str) -> Path:
        return self._folder / name / "mount"

    async def publish(self) -> None:
        """Have every volume filled that is not yet; raise VolumeRefused with the event's text."""
        for name, volume in self._volumes.items():
            if name in self._published:
                continue
            with setting_up(name):
                self.path(name).mkdir(parents=True, exist_ok=True)
                request = {
                    "op": "publish",
                    "volume": name,
                    "target": str(self.path(name)),
                    "readOnly": bool(volume.get("readOnly")),
                    "attributes": attributes_of(volume, self._spec.raw),
                }
                await call(volume["driver"], request)
            self._published.add(name)

    async def unpublish(self) -> None:
        """Have every volume let go; a driver that is away has nothing to let go any more."""
        for name in sorted(self._published):
            request = {"op": "unpublish", "volume": name, "target": str(self.path(name))}
            try:
                await call(self._volumes[name]["driver"], request)
            except VolumeRefused as error:
                _log.warning("%s: volume %s: %s", self._spec.label, name, error)
        self._published.clear()
