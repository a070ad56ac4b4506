"""Errors that travel to the pod's event: the driver's gRPC codes, and Go's way to chain a text."""

from __future__ import annotations


class MountFailed(Exception):
    """The volume cannot be mounted; `code` is gRPC's."""

    def __init__(self, message: str, code: str = "Unknown") -> None:
        super().__init__(message)
        self.code = code
