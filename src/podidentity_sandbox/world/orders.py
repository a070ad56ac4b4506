"""What gives orders to a running sandbox: the client of `control`, which says what they are.

Alone in its file, since commands load it and nothing of what serves.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podidentity_sandbox.world import SandboxError

Answer = dict[str, Any]


def ask(path: Path, order: Mapping[str, str], seconds: float = 120) -> Answer:
    """Send an order and return the answer; raise SandboxError for a refusal, OSError for none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        client.connect(str(path))
        client.sendall(json.dumps(order).encode() + b"\n")
        with client.makefile("rb") as answers:
            line = answers.readline()
    if not line:
        raise ConnectionError("the sandbox went away")
    answer: Answer = json.loads(line)
    if "error" in answer:
        raise SandboxError(answer["error"])
    return answer
