"""CSI volumes in a pod's spec: published by their drivers before the pod runs, let go after it.

https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html#csi-ephemeral-inline-volumes
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podidentity_sandbox.node.api import ApiError
from podidentity_sandbox.node.csi import attributes_of, call, check_driver
from podidentity_sandbox.node.refusals import VolumeRefused
from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import PodSpec

_log = logging.getLogger(__name__)
_DRIVERS = "/apis/storage.k8s.io/v1/csidrivers"
_NOT_FOUND = 404


class CsiVolumes:
    """Those of one pod; their folders are where a kubelet has them."""

    def __init__(self, spec: PodSpec, services: Services, folder: Path) -> None:
        self._spec = spec
        self._services = services
        self._folder = folder / "volumes" / "kubernetes.io~csi"
        self._volumes: Mapping[str, Mapping[str, Any]] = {
            name: volume["csi"] for name, volume in spec.volumes.items() if "csi" in volume
        }
        self._published: set[str] = set()

    def path(self, name: str) -> Path:
        """Return where the volume's files are."""
        return self._folder / name / "mount"

    async def publish(self) -> None:
        """Have every volume filled that is not yet; raise VolumeRefused with the event's text."""
        for name, volume in self._volumes.items():
            if name in self._published:
                continue
            try:
                await self._publish(name, volume)
            except (VolumeRefused, ApiError) as error:
                raise VolumeRefused(
                    f'MountVolume.SetUp failed for volume "{name}" : {error}'
                ) from error
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

    async def _publish(self, name: str, volume: Mapping[str, Any]) -> None:
        driver = await self._driver(volume["driver"])
        check_driver(volume["driver"], driver)
        self.path(name).mkdir(parents=True, exist_ok=True)
        request = {
            "op": "publish",
            "volume": name,
            "target": str(self.path(name)),
            "readOnly": bool(volume.get("readOnly")),
            "attributes": attributes_of(volume, driver or {}, self._spec.raw),
            "secrets": {},
        }
        await call(volume["driver"], request)

    async def _driver(self, name: str) -> Mapping[str, Any] | None:
        api = self._services.api
        try:
            return await api.insist(lambda: api.request("GET", f"{_DRIVERS}/{name}"))
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            return None
