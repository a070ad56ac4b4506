"""What tests and the demo may ask of the sandbox's Azure besides what Azure offers.

Plain HTTP on a Unix socket in the sandbox's folder, which only its owner can open:

    GET    /imds/requests   every request that reached IMDS
    DELETE /imds/requests   forget them
    PUT    /imds/fault      {"mode": "none|slow|hang|reset|rubbish|500|429|410", "seconds": 0}
    PUT    /arm/delay       {"seconds": 0.2}   from a scale set's change until its machines have it
    PUT    /roles/delay     {"seconds": 0}     from a role's assignment until it holds
    PUT    /imds/cache      {"seconds": 0}     a node's IMDS keeps to the identities that it saw
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.azure.imds.faults import Fault, Mode
from podidentity_sandbox.azure.imds.service import Imds
from podidentity_sandbox.azure.messages import BadBody, Reply, Request
from podidentity_sandbox.azure.state import World

SOCKET = "azure.sock"
"""File name in the sandbox's folder."""
_DELAYS = {"/arm/delay": "arm_delay", "/roles/delay": "role_delay", "/imds/cache": "identity_cache"}
"""What is set, by the world's name for it."""


class Control:
    """The control interface."""

    def __init__(self, world: World, imds: Imds) -> None:
        self._world = world
        self._imds = imds

    async def handle(self, request: Request) -> Reply:
        """Answer one request on the Unix socket."""
        match request.method, request.path:
            case "GET", "/imds/requests":
                return Reply.json(self._imds.journal.entries())
            case "DELETE", "/imds/requests":
                self._imds.journal.clear()
                return Reply(status=204)
            case "PUT", path if path == "/imds/fault" or path in _DELAYS:
                return self._set(request)
        return Reply.json({"error": f"no {request.method} {request.path} here"}, status=404)

    def _set(self, request: Request) -> Reply:
        try:
            body = request.json_object()
            seconds = _seconds(body)
            if request.path in _DELAYS:
                setattr(self._world, _DELAYS[request.path], seconds)
            else:
                self._imds.fault = Fault(mode=Mode(body.get("mode", "none")), seconds=seconds)
        except (BadBody, ValueError) as error:
            return Reply.json({"error": str(error)}, status=400)
        return Reply(status=204)


def _seconds(body: dict[str, Any]) -> float:
    value = body.get("seconds", 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError("seconds must be a number, 0 or more")
    return float(value)
