"""What release 0.1 left in a cluster, as it was recorded: release_0_1.yaml, whose head says how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CLIENT = "708177af-0297-42d1-b5ed-9b0bd4754d95"
"""The client id of the identity that is bound in both namespaces, `default` and `shop`."""
SUBSCRIPTION = "81f86c74-b48f-5d9c-956f-fe64282cbc6a"
"""The subscription of that identity, and of the machines that it is attached to."""
_RECORDED = Path(__file__).with_suffix(".yaml")


def objects(*, client: str = CLIENT, subscription: str = SUBSCRIPTION) -> list[dict[str, Any]]:
    """Return the objects, the custom resources first, for another Azure than it was recorded in."""
    text = _RECORDED.read_text().replace(CLIENT, client).replace(SUBSCRIPTION, subscription)
    return list(yaml.safe_load_all(text))
