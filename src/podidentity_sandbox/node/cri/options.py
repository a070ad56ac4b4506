"""The choices of a node with a container runtime, in a file of the sandbox's folder.

They are read at each start of the node, so that a node can come back with others, as a machine that
was imaged anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

_NAME = "runtime.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """The choices."""

    tools: str
    """Folder that scripts/setup-runtime filled."""
    images: tuple[str, ...] = ()
    """OCI archives that the node has from its first start."""
    driver: str = "cgroupfs"
    """How cgroups are named: `cgroupfs` or `systemd`, kubelet and runtime alike."""
    runtime_driver: str = ""
    """The container runtime's, where it is set to another than the kubelet's."""
    handler: str = "runc"
    """The program that makes containers where a pod names no runtime class."""
    own_netns_folder: bool = False
    """containerd's `netns_mounts_under_state_dir`: no namespace is in /run/netns."""
    tells_address: bool = True
    """Whether the kubelet reports an address of its node; one that waits for its cloud does not."""

    def save(self, folder: Path) -> None:
        """Write them for the sandbox in `folder`."""
        (folder / _NAME).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        raw: dict[str, Any] = json.loads((folder / _NAME).read_text())
        return cls(**{**raw, "images": tuple(raw["images"])})
