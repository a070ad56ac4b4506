"""The objects that install the driver in the sandbox's cluster."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

NAMESPACE, NAME = "kube-system", "csi-secrets-store-provider-azure"


def manifests(*, rotation: str) -> list[dict[str, Any]]:
    """Return the objects in the order to create them, the DaemonSet last.

    `rotation`: how often volumes are read again, as Go writes durations (`2m`).
    """
    text = files(__package__).joinpath("manifests.yaml").read_text(encoding="utf-8")
    found = list(yaml.safe_load_all(text))
    (container,) = found[-1]["spec"]["template"]["spec"]["containers"]
    container["args"] = [f"--rotation-poll-interval={rotation}", *container["args"][1:]]
    return found
