"""Why a container or a volume of a pod cannot be had, in a kubelet's words."""

from __future__ import annotations


class ContainerRefused(Exception):
    """The container cannot be started as its spec is; `reason` is that of its waiting state."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class VolumeRefused(Exception):
    """A volume cannot be set up, now or ever; the text is that of the FailedMount event."""
